//! NetworkManager (its D-Bus API, version 1.0 and later).

use std::collections::BTreeMap;
use std::net::IpAddr;

use zbus::{Connection, MatchRule, OwnedObjectPath, OwnedVariant};

use super::{PROPERTIES, address_of, call, owner_changes, property, property_changes};

pub(super) const NAME: &str = "NetworkManager";
pub(super) const SERVICE: &str = "org.freedesktop.NetworkManager";
const PATH: &str = "/org/freedesktop/NetworkManager";
const DEVICE: &str = "org.freedesktop.NetworkManager.Device";
const IP4_CONFIG: &str = "org.freedesktop.NetworkManager.IP4Config";
const IP6_CONFIG: &str = "org.freedesktop.NetworkManager.IP6Config";

/// What it learned on this device or has in its profile, those of IPv6 first.
pub(super) async fn servers(connection: &Connection, device: &str) -> zbus::Result<Vec<IpAddr>> {
    let device: OwnedObjectPath = call(connection, (SERVICE, PATH, SERVICE), "GetDeviceByIpIface", &device).await?;
    let mut servers = Vec::new();
    for (pointer, interface) in [("Ip6Config", IP6_CONFIG), ("Ip4Config", IP4_CONFIG)] {
        let config: OwnedObjectPath = property(connection, (SERVICE, device.as_str(), DEVICE), pointer).await?;
        // A device that is not configured has the path "/".
        if config.as_str() != "/" {
            let properties = call(connection, (SERVICE, config.as_str(), PROPERTIES), "GetAll", &interface).await?;
            servers.extend(servers_in(properties));
        }
    }
    Ok(servers)
}

/// `NameserverData` where it is there (IPv4, since version 1.14), else `Nameservers`.
fn servers_in(mut properties: BTreeMap<String, OwnedVariant>) -> Vec<IpAddr> {
    let data = properties.remove("NameserverData");
    let data: Vec<BTreeMap<String, OwnedVariant>> = data.and_then(|value| value.try_into().ok()).unwrap_or_default();
    let texts = data.into_iter().filter_map(|mut server| server.remove("address"));
    let addresses: Vec<IpAddr> = texts
        .filter_map(|text| String::try_from(text).ok()?.parse().ok())
        .collect();
    if !addresses.is_empty() {
        return addresses;
    }
    let Some(plain) = properties.remove("Nameservers") else {
        return Vec::new();
    };
    if let Ok(v6) = plain.try_clone().and_then(Vec::<Vec<u8>>::try_from) {
        return v6.iter().filter_map(|bytes| address_of(bytes)).collect();
    }
    // An IPv4 address is a number whose bytes are in network order.
    let v4 = Vec::<u32>::try_from(plain).unwrap_or_default();
    v4.into_iter()
        .map(|number| IpAddr::from(number.to_ne_bytes()))
        .collect()
}

/// Statistics and states change all the time, so only these interfaces are listened to.
pub(super) fn changes() -> [zbus::Result<MatchRule<'static>>; 4] {
    [
        property_changes(SERVICE, DEVICE),
        property_changes(SERVICE, IP4_CONFIG),
        property_changes(SERVICE, IP6_CONFIG),
        owner_changes(SERVICE),
    ]
}
