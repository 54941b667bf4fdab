//! Files that we write: private, whole or not at all, and never through somebody's symbolic link.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::failure::{Done, Failure, NOTHING};

/// Writes a file for nobody else to read, replacing what is there in one go.
pub(crate) fn write(path: &str, contents: &str) -> Done {
    let path = Path::new(path);
    let name = path
        .file_name()
        .ok_or_else(|| Failure::new("it has no file name"))?
        .to_string_lossy();
    // Exclusively made beside its place, then renamed: a symbolic link in its place is replaced, not followed.
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = create(&temporary)
        .and_then(|mut file| {
            file.write_all(contents.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        let directory = path.parent().unwrap_or(Path::new("/")).display().to_string();
        let hint = match error.kind() {
            io::ErrorKind::NotFound => Some(format!("the directory {directory} must exist")),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Some(format!("{directory} must be writable"))
            }
            _ => None,
        };
        let failure = Failure::new(error);
        return Err(match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        });
    }
    Ok(NOTHING)
}

fn create(path: &Path) -> io::Result<fs::File> {
    let options = || {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW);
        options
    };
    match options().open(path) {
        // Left over by a process that had our number.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options().open(path)
        }
        other => other,
    }
}

/// Removes a file; one that is gone already is no error.
pub(crate) fn remove(path: &str) -> Done {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(NOTHING),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_symbolic_link_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (victim, path) = (directory.path().join("victim"), directory.path().join("tayga.conf"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();

        write(path.to_str().unwrap(), "prefix 64:ff9b::/96\n").unwrap();

        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&path).unwrap(), "prefix 64:ff9b::/96\n");
        assert_eq!(
            fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            2,
            "no temporary file stays"
        );
        remove(path.to_str().unwrap()).unwrap();
        remove(path.to_str().unwrap()).unwrap();
    }
}
