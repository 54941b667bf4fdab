//! Who we are: the DUID of the machine and the IAID of an uplink (RFC 8415 sections 11 and 12).

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// A DHCP unique identifier: type code and 1 to 128 octets that mean nothing to others (section 11.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duid(Vec<u8>);

impl Duid {
    /// Takes a DUID from the wire; `None` = no DUID has this length.
    pub fn new(octets: &[u8]) -> Option<Self> {
        (3..=130).contains(&octets.len()).then(|| Self(octets.to_vec()))
    }

    /// DUID-UUID (section 11.5, RFC 6355) from something that stays with the machine, such as `/etc/machine-id`. It
    /// is hashed, since the network must not learn the machine-id (machine-id(5)); the UUID is of version 8 (RFC
    /// 9562).
    pub fn from_machine(machine: &[u8]) -> Self {
        let digest = Sha256::new()
            .chain_update(b"clatd DUID-UUID\0")
            .chain_update(machine)
            .finalize();
        let mut octets = vec![0, 4];
        octets.extend_from_slice(&digest[..16]);
        octets[8] = octets[8] & 0x0f | 0x80;
        octets[10] = octets[10] & 0x3f | 0x80;
        Self(octets)
    }

    /// The octets, type code first.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, octet) in self.0.iter().enumerate() {
            let colon = if place == 0 { "" } else { ":" };
            write!(f, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

impl Serialize for Duid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let octets: Result<Vec<u8>, _> = text.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect();
        let octets = octets.map_err(|_| D::Error::custom("a DUID is octets in hex with colons between"))?;
        Self::new(&octets).ok_or_else(|| D::Error::custom("a DUID has 3 to 130 octets"))
    }
}

/// The IAID of the uplink with this name; it stays the same for that uplink (section 12).
pub fn iaid(device: &str) -> u32 {
    let digest = Sha256::new()
        .chain_update(b"clatd IAID\0")
        .chain_update(device)
        .finalize();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duid_tells_the_machine_and_hides_its_id() {
        let id = b"0123456789abcdef0123456789abcdef";
        let duid = Duid::from_machine(id);
        assert_eq!(duid, Duid::from_machine(id));
        assert_ne!(duid, Duid::from_machine(b"another"));
        assert_eq!((duid.octets().len(), &duid.octets()[..2]), (18, &[0, 4][..]));
        assert_eq!(duid.octets()[8] >> 4, 8);
        assert_eq!(duid.octets()[10] >> 6, 2);
        assert!(!duid.to_string().replace(':', "").contains("0123456789abcdef"));
    }

    #[test]
    fn a_duid_survives_a_file() {
        let duid = Duid::from_machine(b"x");
        let text = serde_json::to_string(&duid).unwrap();
        assert_eq!(serde_json::from_str::<Duid>(&text).unwrap(), duid);
        for bad in ["\"\"", "\"00\"", "\"00:04\"", "\"zz:00:00\"", "3"] {
            assert!(serde_json::from_str::<Duid>(bad).is_err(), "{bad}");
        }
        assert!(Duid::new(&[0; 131]).is_none() && Duid::new(&[0; 130]).is_some());
    }

    #[test]
    fn each_uplink_has_its_iaid() {
        assert_eq!(iaid("wan0"), iaid("wan0"));
        assert_ne!(iaid("wan0"), iaid("wan1"));
    }
}
