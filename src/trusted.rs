//! clatd's own files and directories, which are trusted only if nobody else can write them; and files of others,
//! which are read without ever waiting.
//!
//! As root the daemon executes what its journals say. So the journals, and each directory on the way to them, must
//! belong to root or to the daemon's user, must be writable for nobody else, and must not be a symbolic link. If that
//! holds for all of them, nobody else can change it later, so one check is enough.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::geteuid;

/// The largest size that is read from another user's file.
const MOST: u64 = 16 << 20;
/// Writable for the group or for all.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Why a file or directory is not believed.
#[derive(Debug, thiserror::Error)]
#[error("{} {problem}", path.display())]
pub struct Distrust {
    path: PathBuf,
    problem: String,
}

impl Distrust {
    fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

impl From<Distrust> for io::Error {
    fn from(distrust: Distrust) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, distrust)
    }
}

/// Whether this error is about a file that is not trusted, and not about one that could not be read.
pub fn is_distrust(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Distrust>())
}

/// The purpose of the last directory of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// It has our files alone.
    Ours,
    /// Others may have files there, too, as in `/tmp`.
    Shared,
}

/// Checks that only root and the daemon's user can change the directories of an absolute path, including the last.
pub fn directory(path: &Path) -> io::Result<()> {
    walk(path, Last::Ours)
}

/// The same for a directory in which others may have files. Its sticky bit makes a directory such as `/tmp` safe.
pub fn shared_directory(path: &Path) -> io::Result<()> {
    walk(path, Last::Shared)
}

/// Makes a directory for this user alone, with its parents, and checks it.
pub fn create_directory(path: &Path) -> io::Result<()> {
    // The existing part is checked before anything is made in it.
    let there = path.ancestors().find(|ancestor| fs::symlink_metadata(ancestor).is_ok());
    if let Some(there) = there {
        walk(there, if there == path { Last::Ours } else { Last::Shared })?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    directory(path)
}

fn walk(path: &Path, last: Last) -> io::Result<()> {
    if !path.is_absolute() {
        return Err(Distrust::new(path, "is no absolute path").into());
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut so_far = PathBuf::from("/");
    let mut at = open("/", flags, Mode::empty())?;
    let parts: Vec<_> = path
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .collect();
    for (number, part) in parts.iter().enumerate() {
        so_far.push(part);
        at = match openat(&at, part.as_os_str(), flags, Mode::empty()) {
            Ok(next) => next,
            Err(error) => return Err(explained(&at, part, &so_far, error.into())),
        };
        let is_last = number + 1 == parts.len();
        let sticky_will_do = !is_last || last == Last::Shared;
        judge(&so_far, &File::from(at.try_clone()?).metadata()?, sticky_will_do)?;
    }
    Ok(())
}

/// Why a part of a path is not a directory that can be opened.
fn explained(at: &OwnedFd, part: &Component<'_>, path: &Path, error: io::Error) -> io::Error {
    match fstatat(at.as_fd(), part.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFLNK => is_link(path).into(),
        Ok(stat) if stat.st_mode & libc::S_IFMT != libc::S_IFDIR => Distrust::new(path, "is no directory").into(),
        Ok(_) | Err(_) => error,
    }
}

fn is_link(path: &Path) -> Distrust {
    let target = fs::read_link(path).map(|target| format!(" to {}", target.display()));
    let target = target.unwrap_or_default();
    Distrust::new(
        path,
        format!("is a symbolic link{target}, which is not followed: name the place itself, or remove the link"),
    )
}

fn judge(path: &Path, found: &Metadata, sticky_will_do: bool) -> Result<(), Distrust> {
    let owner = found.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        let problem =
            format!("belongs to user {owner}, who could change what clatd does; chown it to root, or remove it");
        return Err(Distrust::new(path, problem));
    }
    let safe_by_sticky = sticky_will_do && found.mode() & STICKY != 0;
    if found.mode() & OTHERS_WRITE != 0 && !safe_by_sticky {
        let problem = format!(
            "can be written by others (mode {:04o}), who could change what clatd does; `chmod go-w` it, or remove it",
            found.mode() & 0o7777
        );
        return Err(Distrust::new(path, problem));
    }
    Ok(())
}

/// Opens an own file without waiting and without following a link, and checks it. Its directory was checked.
pub fn open_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let opened = options
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(is_link(path).into()),
        // A fifo that nobody reads, or a socket.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            return Err(Distrust::new(path, "is no regular file; remove it").into());
        }
        opened => opened?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Distrust::new(path, format!("is {}, no regular file; remove it", kind(&found))).into());
    }
    judge(path, &found, false)?;
    Ok(file)
}

/// Reads an own file; `None` = it or its directory does not exist.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    let opened = directory(path.parent().unwrap_or(path)).and_then(|()| open_file(path, OpenOptions::new().read(true)));
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => text(opened?, path).map(Some),
    }
}

/// Reads another user's file. Never waits for a writer: it accepts regular files and /dev/null only. Follows links.
pub fn read_foreign(path: &Path) -> io::Result<String> {
    text(open_foreign(path)?, path)
}

/// The same for bytes.
pub fn read_foreign_bytes(path: &Path) -> io::Result<Vec<u8>> {
    bytes(open_foreign(path)?, path)
}

fn open_foreign(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let found = file.metadata()?;
    // People write `-c /dev/null` for no file at all.
    if !found.is_file() && !is_null(&found) {
        return Err(io::Error::other(format!(
            "it is {}, expected a regular file",
            kind(&found)
        )));
    }
    Ok(file)
}

/// Whether it is the device /dev/null, which is always ready and always empty.
fn is_null(found: &Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == libc::makedev(1, 3)
}

fn text(file: File, path: &Path) -> io::Result<String> {
    String::from_utf8(bytes(file, path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn bytes(file: File, path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::other(format!(
            "{} has more than {} MiB",
            path.display(),
            MOST >> 20
        )));
    }
    Ok(bytes)
}

fn kind(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a fifo"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        "something else"
    }
}

/// Writes a file that nobody else can read, and replaces an earlier one as a whole. A symbolic link in its place is
/// replaced, not followed.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("it has no file name"))?
        .to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    // A leftover of a process that had the same process number.
    remove(&temporary)?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(contents)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Removes a file. It is no error if the file is gone already.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::time::{Duration, Instant};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn why(result: io::Result<impl std::fmt::Debug>) -> String {
        let error = result.unwrap_err();
        assert!(is_distrust(&error), "{error}");
        error.to_string()
    }

    #[test]
    fn a_directory_that_others_can_change_is_not_believed() {
        let bed = tempfile::tempdir().unwrap();
        let (outer, inner) = (bed.path().join("outer"), bed.path().join("outer/inner"));
        create_directory(&inner).unwrap();
        directory(&inner).unwrap();
        for bad in [0o777, 0o770, 0o720, 0o702] {
            mode(&outer, bad);
            assert!(why(directory(&inner)).contains("outer can be written by others"));
            mode(&outer, 0o755);
            mode(&inner, bad);
            assert!(why(directory(&inner)).contains("inner can be written by others"));
            assert!(why(create_directory(&inner)).contains("inner can be written by others"));
            mode(&inner, 0o700);
        }
        // As /tmp is; but not the last one.
        mode(&outer, 0o1777);
        directory(&inner).unwrap();
        assert!(why(directory(&outer)).contains("can be written by others"));
        shared_directory(&outer).unwrap();
    }

    #[test]
    fn a_link_in_any_place_is_named() {
        let bed = tempfile::tempdir().unwrap();
        let real = bed.path().join("real");
        create_directory(&real.join("clatd")).unwrap();
        let link = bed.path().join("link");
        symlink(&real, &link).unwrap();
        for path in [&link, &link.join("clatd")] {
            let why = why(directory(path));
            assert!(why.contains("link is a symbolic link to"), "{why}");
        }
        assert!(why(create_directory(&link.join("new"))).contains("is a symbolic link"));
        assert!(!real.join("new").exists(), "nothing is made behind it");
    }

    #[test]
    fn what_belongs_to_others_is_not_believed() {
        if !geteuid().is_root() {
            return;
        }
        let bed = tempfile::tempdir().unwrap();
        let (place, path) = (bed.path().join("clatd"), bed.path().join("clatd/file"));
        create_directory(&place).unwrap();
        replace(&path, b"text").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("text"));
        chown(&path, Some(1234), None).unwrap();
        assert!(why(read(&path)).contains("file belongs to user 1234"));
        chown(&path, Some(0), None).unwrap();
        chown(&place, Some(1234), None).unwrap();
        assert!(why(read(&path)).contains("clatd belongs to user 1234"));
    }

    #[test]
    fn only_regular_files_are_read_and_nothing_waits() {
        let bed = tempfile::tempdir().unwrap();
        let path = bed.path().join("file");
        assert_eq!(read(&path).unwrap(), None);
        assert_eq!(read(&bed.path().join("none/file")).unwrap(), None);
        let begun = Instant::now();
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        assert!(why(read(&path)).contains("is a fifo"));
        assert!(read_foreign(&path).unwrap_err().to_string().contains("a fifo"));
        fs::remove_file(&path).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(why(read(&path)).contains("no regular file"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(why(read(&path)).contains("is a directory"));
        fs::remove_dir(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        assert!(why(read(&path)).contains("is a symbolic link to /etc/passwd"));
        assert!(read_foreign(&path).unwrap().contains("root"));
        assert!(
            read_foreign(Path::new("/dev/zero"))
                .unwrap_err()
                .to_string()
                .contains("a device")
        );
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_file_that_others_can_write_is_not_believed() {
        let bed = tempfile::tempdir().unwrap();
        let path = bed.path().join("file");
        replace(&path, b"x").unwrap();
        for bad in [0o602, 0o620, 0o666] {
            mode(&path, bad);
            assert!(why(read(&path)).contains("can be written by others"));
        }
    }

    #[test]
    fn a_file_is_replaced_in_one_go() {
        let bed = tempfile::tempdir().unwrap();
        let (victim, path) = (bed.path().join("victim"), bed.path().join("tayga.conf"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &path).unwrap();
        replace(&path, b"prefix 64:ff9b::/96\n").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(read(&path).unwrap().as_deref(), Some("prefix 64:ff9b::/96\n"));
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read_dir(bed.path()).unwrap().count(), 2, "no temporary file stays");
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
