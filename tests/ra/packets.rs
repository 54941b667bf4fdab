//! Router advertisements, and packets that only look like some, byte by byte.

use std::net::Ipv6Addr;

/// A router advertisement in the making.
#[derive(Clone)]
pub struct Ra {
    pub source: Ipv6Addr,
    pub hop_limit: u8,
    message: Vec<u8>,
}

/// The advertisement of a default router, for half an hour.
pub fn ra(source: &str) -> Ra {
    Ra {
        source: source.parse().unwrap(),
        hop_limit: 255,
        message: vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0],
    }
}

impl Ra {
    pub fn router_lifetime(mut self, seconds: u16) -> Self {
        self.message[6..8].copy_from_slice(&seconds.to_be_bytes());
        self
    }
    pub fn high(mut self) -> Self {
        self.message[5] |= 0x08;
        self
    }
    pub fn hop_limit(mut self, hop_limit: u8) -> Self {
        self.hop_limit = hop_limit;
        self
    }
    /// A /96 prefix.
    pub fn pref64(mut self, prefix: &str, seconds: u16) -> Self {
        let prefix: Ipv6Addr = prefix.parse().unwrap();
        self.message.extend([38, 2]);
        self.message.extend((seconds & !7).to_be_bytes());
        self.message.extend(&prefix.octets()[..12]);
        self
    }
    pub fn rdnss(mut self, server: &str, seconds: u32) -> Self {
        let server: Ipv6Addr = server.parse().unwrap();
        self.message.extend([25, 3, 0, 0]);
        self.message.extend(seconds.to_be_bytes());
        self.message.extend(server.octets());
        self
    }
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.message.extend(bytes);
        self
    }

    /// As an IPv6 packet to all nodes.
    pub fn packet(&self) -> Vec<u8> {
        let mut message = self.message.clone();
        let sum = checksum(self.source, ALL_NODES, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.ipv6(58, &message)
    }

    /// With a wrong checksum.
    pub fn corrupted(&self) -> Vec<u8> {
        let mut packet = self.packet();
        packet[43] ^= 1;
        packet
    }

    /// In two fragments.
    pub fn fragments(&self) -> [Vec<u8>; 2] {
        let whole = self.packet().split_off(40);
        let (first, second) = whole.split_at(16);
        let fragment = |offset: u16, more: u16, part: &[u8]| {
            let mut payload = vec![58, 0];
            payload.extend((offset | more).to_be_bytes());
            payload.extend([0, 0, 0x46, 0x4c]);
            payload.extend(part);
            self.ipv6(44, &payload)
        };
        [fragment(0, 1, first), fragment(16, 0, second)]
    }

    fn ipv6(&self, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([next_header, self.hop_limit]);
        packet.extend(self.source.octets());
        packet.extend(ALL_NODES.octets());
        packet.extend(payload);
        packet
    }
}

pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut bytes = source.octets().to_vec();
    bytes.extend(destination.octets());
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(message);
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
