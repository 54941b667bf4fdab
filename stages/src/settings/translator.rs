//! The translator.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{IcmpErrorRate, MapEntry, TosSetting, TranslatorChoice, UdpZeroChecksum, UnmappedSource};

section! {
    /// The translator.
    Translator {
        /// Which translator moves the packets.
        translator: TranslatorChoice = TranslatorChoice::Auto,
        /// Packet queues (threads) of the userspace translator; 0 = one per core.
        translator_queues: u32 = 0,
        /// RFC 7757 explicit address mappings besides the CLAT's own.
        map: Vec<MapEntry> = Vec::new(),
        /// The translator's own IPv6 address: source of its ICMPv6 errors; none = the CLAT's.
        translator_v6_addr: Option<Ipv6Addr> = None,
        /// RFC 7915 lowest-ipv6-mtu in bytes.
        lowest_ipv6_mtu: u32 = 1280,
        /// What becomes of UDP over IPv4 without a checksum.
        udp_zero_checksum: UdpZeroChecksum = UdpZeroChecksum::Compute,
        /// The IPv6 traffic class of what was IPv4.
        traffic_class: TosSetting = TosSetting::Copy,
        /// The IPv4 TOS octet of what was IPv6.
        tos: TosSetting = TosSetting::Copy,
        /// How many ICMP errors a second the translator sends.
        icmp_error_rate: IcmpErrorRate = IcmpErrorRate::default(),
        /// RFC 6052 section 3.1: no non-global IPv4 addresses in the well-known prefix.
        wkp_strict: bool = false,
        /// What becomes of an IPv4 source or IPv6 destination without a mapping.
        unmapped_source: UnmappedSource = UnmappedSource::Drop,
        /// The translator's own IPv4 address: source of its ICMPv4 errors.
        tayga_v4_addr: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2),
        /// TAYGA's configuration file; none = a temporary one.
        tayga_conffile: Option<String> = None,
    }
}
