//! A bus can be reached from every network namespace that shares its folder. A service in another namespace has other
//! links with the same indexes and names.

use std::io;
use std::os::unix::fs::MetadataExt;

use zbus::Connection;

use super::call::call;

/// Fails if the service is in another network namespace than this process. If this process may not look, it assumes
/// that the service is in the same one.
pub(super) async fn same_as_ours(connection: &Connection, service: &str) -> zbus::Result<()> {
    const BUS: (&str, &str, &str) = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus");
    let pid: u32 = call(connection, BUS, "GetConnectionUnixProcessID", &service).await?;
    match (identity("self"), identity(&pid.to_string())) {
        (Ok(ours), Ok(its)) if ours != its => Err(zbus::Error::Failure("it lives in another network namespace".into())),
        _ => Ok(()),
    }
}

/// Identifies the network namespace of a process: each namespace has its own net/dev. ns/net would do, too, but only who
/// may trace the process can read that.
fn identity(process: &str) -> io::Result<(u64, u64)> {
    let file = std::fs::metadata(format!("/proc/{process}/net/dev"))?;
    Ok((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_here_has_the_same_identity() {
        let parent = nix::unistd::getppid().to_string();
        assert_eq!(identity("self").unwrap(), identity(&parent).unwrap());
    }
}
