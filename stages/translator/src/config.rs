//! What a translator is told.

use crate::eam::MapError;
use crate::prefix::Pref64;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use ipnet::{Ipv4Net, Ipv6Net};

/// The settings of a [`crate::Translator`]. `Config::default()` has no mappings yet and is refused as it is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The RFC 6052 prefix (`plat-prefix`); without one only explicit mappings translate.
    pub pref64: Option<Pref64>,
    /// The explicit address mappings (`map`, RFC 7757), including the CLAT's own pair.
    pub maps: Vec<(Ipv4Net, Ipv6Net)>,
    /// The translator's own IPv4 address (`tayga-v4-addr`): source of the ICMPv4 errors it generates.
    pub own_v4: Ipv4Addr,
    /// The translator's own IPv6 address (`translator-v6-addr`): source of the ICMPv6 errors it generates. By
    /// default `own_v4` as the mappings or the prefix translate it.
    pub own_v6: Option<Ipv6Addr>,
    /// `lowest-ipv6-mtu` in octets, at least 1280: IPv4 packets without DF that become larger are fragmented
    /// (RFC 7915 section 4).
    pub lowest_ipv6_mtu: u32,
    /// MTU in octets of the next hop on the IPv4 side, at least 68.
    pub mtu4: u32,
    /// MTU in octets of the next hop on the IPv6 side, at least 1280.
    pub mtu6: u32,
    /// What becomes of IPv4 UDP packets without a checksum (RFC 7915 section 4.5).
    pub udp_zero_checksum: UdpZeroChecksum,
    /// Refuse non-global IPv4 addresses in the Well-Known Prefix (RFC 6052 section 3.1). Off by default, because
    /// draft-ietf-v6ops-nat64-wkp-1918 turns that rule around.
    pub wkp_strict: bool,
    /// What becomes of an IPv4 source or an IPv6 destination that no explicit mapping covers.
    pub unmapped_source: UnmappedSource,
    /// Send IPv6 packets for an explicitly mapped IPv6 node back to IPv6 (RFC 7757 section 4.2.2).
    pub hairpin: bool,
    /// Whether the translator sends ICMP errors of its own (RFC 7915 sections 4.4 and 5.4).
    pub icmp_errors: IcmpErrors,
    /// The IPv6 traffic class of translated IPv4 packets (RFC 7915 section 4.1).
    pub traffic_class: Tos,
    /// The IPv4 TOS of translated IPv6 packets (RFC 7915 section 5.1).
    pub tos: Tos,
    /// Source of translated ICMPv6 errors whose own source has no IPv4 address: 192.0.0.8
    /// (draft-ietf-v6ops-icmpext-xlat-v6only-source).
    pub dummy_v4: Ipv4Addr,
    /// Tell the original source of such errors in a Node Identification object, where it fits.
    pub node_identification: bool,
    /// First value of the IPv4 identification generator.
    pub identification_seed: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pref64: None,
            maps: Vec::new(),
            own_v4: Ipv4Addr::new(192, 0, 0, 2),
            own_v6: None,
            lowest_ipv6_mtu: 1280,
            mtu4: 1500,
            mtu6: 1500,
            udp_zero_checksum: UdpZeroChecksum::default(),
            wkp_strict: false,
            unmapped_source: UnmappedSource::default(),
            hairpin: true,
            icmp_errors: IcmpErrors::default(),
            traffic_class: Tos::default(),
            tos: Tos::default(),
            dummy_v4: Ipv4Addr::new(192, 0, 0, 8),
            node_identification: true,
            identification_seed: 1,
        }
    }
}

impl Config {
    /// Adds the CLAT's own pair of addresses, a /32 and a /128 (RFC 7757 appendix A.1).
    pub fn with_clat(mut self, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        self.maps.push((v4.into(), v6.into()));
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.pref64.is_none() && self.maps.is_empty() {
            return Err(ConfigError::NoMapping);
        }
        for (name, value, lowest) in [
            ("lowest-ipv6-mtu", self.lowest_ipv6_mtu, 1280),
            ("IPv6 MTU", self.mtu6, 1280),
            ("IPv4 MTU", self.mtu4, 68),
        ] {
            if value < lowest {
                return Err(ConfigError::Mtu { name, value, lowest });
            }
        }
        Ok(())
    }
}

/// Why a [`Config`] was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is neither a prefix nor an explicit mapping.
    #[error("neither a translation prefix nor an explicit mapping is given: no address can be translated")]
    NoMapping,
    /// An MTU is below what the protocol allows.
    #[error("{name} {value} is below {lowest}")]
    Mtu {
        /// Which MTU.
        name: &'static str,
        /// What was given, in octets.
        value: u32,
        /// What the protocol asks for, in octets.
        lowest: u32,
    },
    /// An explicit mapping is not valid.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// What to do with an unfragmented IPv4 UDP packet whose checksum is zero (RFC 7915 section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UdpZeroChecksum {
    /// Compute the checksum; first fragments, where that is impossible, are dropped.
    #[default]
    Compute,
    /// Drop it.
    Drop,
    /// Translate it as it is, fragments too; the receiver must know of RFC 6936.
    Pass,
}

/// What to do with an IPv4 source or an IPv6 destination that no explicit mapping covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnmappedSource {
    /// Drop the packet: a CLAT or SIIT-DC edge relay speaks for its mapped addresses only.
    #[default]
    Drop,
    /// Translate it by the prefix: an SIIT translator between networks.
    Prefix,
}

/// Whether ICMP errors are generated (RFC 7915 sections 4.4 and 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpErrors {
    /// Never.
    Off,
    /// At most `per_second` on average and `burst` at once, for each worker.
    Limited {
        /// Errors a second.
        per_second: u32,
        /// Errors at once.
        burst: u32,
    },
    /// Always.
    Unlimited,
}

impl Default for IcmpErrors {
    /// As Linux does (`icmp_msgs_per_sec`, `icmp_msgs_burst`).
    fn default() -> Self {
        Self::Limited {
            per_second: 1000,
            burst: 50,
        }
    }
}

/// How the TOS octet or traffic class is set (RFC 7915 sections 4.1 and 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tos {
    /// Copied, all eight bits.
    #[default]
    Copy,
    /// Always this value.
    Fixed(u8),
}

impl Tos {
    pub(crate) fn apply(self, received: u8) -> u8 {
        match self {
            Self::Copy => received,
            Self::Fixed(value) => value,
        }
    }
}
