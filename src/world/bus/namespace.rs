//! A bus can be reached from every network namespace that shares its folder. A service in another namespace has other
//! links with the same indexes and names.

use std::fs::read_link;

use zbus::Connection;

use super::call::call;

/// Fails if the service is in another network namespace than this process. If this process may not look, it assumes
/// that the service is in the same one.
pub(super) async fn same_as_ours(connection: &Connection, service: &str) -> zbus::Result<()> {
    const BUS: (&str, &str, &str) = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus");
    let pid: u32 = call(connection, BUS, "GetConnectionUnixProcessID", &service).await?;
    let (ours, its) = (read_link("/proc/self/ns/net"), read_link(format!("/proc/{pid}/ns/net")));
    match (ours, its) {
        (Ok(ours), Ok(its)) if ours != its => Err(zbus::Error::Failure("it lives in another network namespace".into())),
        _ => Ok(()),
    }
}
