//! NetworkManager (its D-Bus API, version 1.0 and later).

use std::collections::BTreeMap;
use std::net::IpAddr;

use zbus::{Connection, MatchRule, OwnedObjectPath, OwnedVariant};

use super::address_of;
use super::call::{PROPERTIES, call, owner_changes, property, property_changes};

pub(super) const NAME: &str = "NetworkManager";
pub(super) const SERVICE: &str = "org.freedesktop.NetworkManager";
const PATH: &str = "/org/freedesktop/NetworkManager";
const DEVICE: &str = "org.freedesktop.NetworkManager.Device";
const IP4_CONFIG: &str = "org.freedesktop.NetworkManager.IP4Config";
const IP6_CONFIG: &str = "org.freedesktop.NetworkManager.IP6Config";

/// The servers that it learned on this device or has in its profile, those of IPv6 first.
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

/// Statistics and states change all the time, so only changes of these interfaces are received.
pub(super) fn changes() -> [zbus::Result<MatchRule<'static>>; 4] {
    [
        property_changes(SERVICE, DEVICE),
        property_changes(SERVICE, IP4_CONFIG),
        property_changes(SERVICE, IP6_CONFIG),
        owner_changes(SERVICE),
    ]
}

#[cfg(test)]
mod tests {
    use zbus::Variant;

    use super::*;

    fn config(properties: Vec<(&str, Variant<'_>)>) -> BTreeMap<String, OwnedVariant> {
        let owned = |(name, value): (&str, Variant<'_>)| (name.to_owned(), value.try_into().unwrap());
        properties.into_iter().map(owned).collect()
    }

    fn shown(properties: Vec<(&str, Variant<'_>)>) -> Vec<String> {
        servers_in(config(properties)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_form_of_the_list_is_read() {
        let data: Vec<BTreeMap<String, Variant<'_>>> = ["192.0.2.1", "no address", "192.0.2.2"]
            .map(|address| BTreeMap::from([("address".to_owned(), Variant::from(address))]))
            .into();
        let numbers: Vec<u32> = [[192, 0, 2, 3], [192, 0, 2, 4]].map(u32::from_ne_bytes).into();
        let bytes: Vec<Vec<u8>> = vec![vec![0xfe; 16], vec![1, 2, 3]];
        let both = vec![
            ("NameserverData", Variant::from(data)),
            ("Nameservers", Variant::from(numbers.clone())),
        ];
        assert_eq!(shown(both), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(
            shown(vec![("Nameservers", Variant::from(numbers))]),
            ["192.0.2.3", "192.0.2.4"]
        );
        let sixteen = "fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe";
        assert_eq!(shown(vec![("Nameservers", Variant::from(bytes))]), [sixteen]);
        assert_eq!(shown(vec![("Nameservers", Variant::from("nonsense"))]), [""; 0]);
        assert_eq!(shown(Vec::new()), [""; 0]);
    }
}
