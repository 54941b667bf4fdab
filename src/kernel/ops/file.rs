//! Files. They are private, and written as a whole or not at all.

use std::io;
use std::path::Path;

use clatd_stages::journal::Outcome;
use clatd_stages::translator::TAYGA_FILE_HEADING;
use clatd_stages::world::WorldError;

use super::super::Kernel;
use super::super::failure::{Failure, NOTHING, OpResult};
use super::{Look, Nature, Operation, UNDOING};
use crate::trusted;

pub(super) enum Change<'a> {
    Write { path: &'a str, contents: &'a str },
    Remove { path: &'a str },
}

impl<'a> Operation<'a> for Change<'a> {
    fn nature(&self) -> Nature {
        match self {
            Self::Write { .. } => Nature {
                untold: true,
                atomic: true,
                // Only the journal has its path.
                swept: false,
                outlives_device: false,
            },
            Self::Remove { .. } => UNDOING,
        }
    }

    fn device(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::Write { .. } | Self::Remove { .. } => None,
        }
    }

    async fn carry_out(&self, _: &mut Kernel, outcome: Option<&Outcome>) -> OpResult {
        match self {
            Self::Write { path, contents } => write(path, contents),
            Self::Remove { path } => remove(path, outcome),
        }
    }

    async fn stands(&self, _: &mut Look<'_>) -> Result<bool, WorldError> {
        match self {
            Self::Write { path, contents } => Ok(holds(Path::new(path), contents)),
            Self::Remove { .. } => Ok(true),
        }
    }
}

/// Writes a file that nobody else can read, and replaces an earlier one as a whole.
fn write(path: &str, contents: &str) -> OpResult {
    let path = Path::new(path);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::new("it has no file name"));
    };
    // The path of a file that the user named may contain links of the system, such as /var/run.
    let written = directory.canonicalize().and_then(|directory| {
        trusted::shared_directory(&directory)?;
        trusted::replace(&directory.join(name), contents.as_bytes())
    });
    written.map(|()| NOTHING).map_err(|error| {
        let directory = directory.display();
        let hint = match error.kind() {
            _ if trusted::is_distrust(&error) => None,
            io::ErrorKind::NotFound => Some(format!("the directory {directory} must exist")),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Some(format!("{directory} must be writable"))
            }
            _ => None,
        };
        let failure = Failure::new(error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

/// Removes a file. It is no error if the file is gone already. If the daemon was killed before it wrote the outcome,
/// the file may still be the earlier one; then only its first line shows whether it is ours.
fn remove(path: &str, outcome: Option<&Outcome>) -> OpResult {
    let path = Path::new(path);
    if outcome.is_none() && !holds(path, TAYGA_FILE_HEADING) {
        return Ok(NOTHING);
    }
    trusted::remove(path)?;
    Ok(NOTHING)
}

/// Whether the file is there and begins with this.
fn holds(path: &Path, beginning: &str) -> bool {
    trusted::read_foreign(path).is_ok_and(|text| text.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn without_a_record_only_our_own_file_is_removed() {
        let bed = tempfile::tempdir().unwrap();
        let path = bed.path().join("tayga.conf");
        let text = path.to_str().unwrap();
        fs::write(&path, "somebody else's").unwrap();
        remove(text, None).unwrap();
        assert!(path.exists());
        write(text, &format!("{TAYGA_FILE_HEADING} for instance wan0\n")).unwrap();
        remove(text, None).unwrap();
        assert!(!path.exists());
        write(text, "x").unwrap();
        remove(text, Some(&NOTHING)).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_others_can_change_gets_no_file() {
        use std::os::unix::fs::PermissionsExt;
        let bed = tempfile::tempdir().unwrap();
        let directory = bed.path().join("open");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        let failure = write(directory.join("x").to_str().unwrap(), "x").unwrap_err();
        assert!(failure.into_source().to_string().contains("can be written by others"));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }
}
