//! systemd-resolved (org.freedesktop.resolve1(5)).

use std::net::IpAddr;

use tracing::debug;
use zbus::{Connection, MatchRule, OwnedObjectPath};

use super::address_of;
use super::call::{call, owner_changes, property, property_changes};

pub(super) const NAME: &str = "systemd-resolved";
pub(super) const SERVICE: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const LINK: &str = "org.freedesktop.resolve1.Link";

/// Address family, address, port (0 = the usual one), and the name in its certificate.
type ServerEx = (i32, Vec<u8>, u16, String);
type Server = (i32, Vec<u8>);

/// The servers that were set for this link, by resolvectl, systemd-networkd or NetworkManager.
pub(super) async fn servers(connection: &Connection, index: u32) -> zbus::Result<Vec<IpAddr>> {
    let index = i32::try_from(index).map_err(|_| zbus::Error::OutOfBounds)?;
    let link: OwnedObjectPath = call(connection, (SERVICE, PATH, MANAGER), "GetLink", &index).await?;
    let link = (SERVICE, link.as_str(), LINK);
    let extended: zbus::Result<Vec<ServerEx>> = property(connection, link, "DNSEx").await;
    let Ok(extended) = extended else {
        // Before systemd 246.
        let plain: Vec<Server> = property(connection, link, "DNS").await?;
        return Ok(plain.iter().filter_map(|(_, bytes)| address_of(bytes)).collect());
    };
    let usual = extended.into_iter().filter_map(|(_, bytes, port, _)| {
        let address = address_of(&bytes)?;
        let is_usual = port == 0 || port == 53;
        if !is_usual {
            debug!("{NAME} has a DNS server at port {port} of {address}; clatd asks port 53 only");
        }
        is_usual.then_some(address)
    });
    Ok(usual.collect())
}

/// The links report no changes; the manager has the servers of all links.
pub(super) fn changes() -> [zbus::Result<MatchRule<'static>>; 2] {
    [property_changes(SERVICE, MANAGER), owner_changes(SERVICE)]
}
