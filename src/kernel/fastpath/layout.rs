//! What the programs are told and what they count, as stages/translator/bpf/layout.h has it: keep the two together.
//! Numbers are in the order of this machine unless said otherwise.

use std::net::{Ipv4Addr, Ipv6Addr};

use clatd_stages::fast_path::{FastPathSpec, LinkHeader, Sharing};
use clatd_stages::settings::{MapEntry, TosSetting, UnmappedSource};
use ipnet::{Ipv4Net, Ipv6Net};

/// `struct clat`.
pub(super) const CLAT: usize = 96;
/// `struct key4` behind the prefix length.
pub(super) const KEY4: usize = 8;
/// `struct to6`.
pub(super) const TO6: usize = 24;
/// `struct key6` behind the prefix length.
pub(super) const KEY6: usize = 20;
/// `struct to4`.
pub(super) const TO4: usize = 16;
/// `struct flow_key`.
pub(super) const FLOW_KEY: u32 = 24;
/// `struct flow`.
pub(super) const FLOW: u32 = 8;

const READY: u8 = 1;
const ONLY: u8 = 2;
const BY_PREFIX: u8 = 4;
const STRICT: u8 = 8;
const TRAFFIC_CLASS: u8 = 16;
const TOS: u8 = 32;
const FLOWS: u8 = 64;
/// In place of a CLAT device: found by the other side's prefix.
const SHARED: u32 = 0;
/// In place of a shift: not to be translated by the programs.
const NO_MAPPING: u32 = 255;
const ETHERNET_HEADER: u8 = 14;

/// Where the packets of an instance go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop(pub Option<Ipv6Addr>);

/// `struct clat`: all that the programs know of one instance.
pub(super) fn clat(spec: &FastPathSpec, uplink: u32, clat_header: LinkHeader, next_hop: Option<NextHop>) -> [u8; CLAT] {
    let translation = &spec.translation;
    let prefix = translation.plat_prefix.0;
    let only = only(spec);
    let own = only.or_else(|| shared(spec)).and_then(single);
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let flags = flag(next_hop.is_some(), READY)
        | flag(only.is_some(), ONLY)
        | flag(translation.unmapped_source == UnmappedSource::Prefix, BY_PREFIX)
        | flag(translation.wkp_strict && prefix.is_well_known(), STRICT)
        | flag(translation.traffic_class != TosSetting::Copy, TRAFFIC_CLASS)
        | flag(translation.tos != TosSetting::Copy, TOS)
        | flag(spec.shared == Some(Sharing::Flows), FLOWS);
    let (own_v4, own_v6) = own.unwrap_or((Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED));
    let gateway = next_hop
        .and_then(|next_hop| next_hop.0)
        .unwrap_or(Ipv6Addr::UNSPECIFIED);
    let mut record = Record::default();
    record.u128(prefix.address().to_bits());
    record.u128(mask6(prefix.length()));
    record.u128(own_v6.to_bits());
    record.u32(own_v4.to_bits());
    record.u32(translation.own_v4.to_bits());
    record.u32(translation.mtu4);
    record.u32(translation.mtu6);
    record.u32(translation.mtu6.min(translation.lowest_ipv6_mtu));
    record.u32(uplink);
    record.bytes(&gateway.octets());
    record.bytes(&[
        96 - prefix.length(),
        length(clat_header),
        length(spec.placement.header),
        flags,
    ]);
    record.bytes(&[value(translation.traffic_class), value(translation.tos), 0, 0]);
    record.done()
}

fn value(tos: TosSetting) -> u8 {
    match tos {
        TosSetting::Copy => 0,
        TosSetting::Value(value) => value,
    }
}

/// The mapping of a CLAT, if that is all there is.
fn only(spec: &FastPathSpec) -> Option<&MapEntry> {
    match spec.translation.maps.as_slice() {
        [map] if single(map).is_some() => Some(map),
        _ => None,
    }
}

/// The mapping whose IPv6 address is the host's, too.
pub(super) fn shared(spec: &FastPathSpec) -> Option<&MapEntry> {
    spec.shared.and_then(|_| spec.translation.maps.first())
}

/// The addresses of a mapping of two addresses.
fn single(map: &MapEntry) -> Option<(Ipv4Addr, Ipv6Addr)> {
    ((map.v4.prefix_len(), map.v6.prefix_len()) == (32, 128)).then(|| (map.v4.addr(), map.v6.addr()))
}

fn length(header: LinkHeader) -> u8 {
    match header {
        LinkHeader::Ethernet => ETHERNET_HEADER,
        LinkHeader::None => 0,
    }
}

/// `struct key4` of a network, and the length that the map wants.
pub(super) fn key4(clat: u32, network: Ipv4Net) -> (u32, [u8; KEY4]) {
    let mut record = Record::default();
    record.u32(clat);
    record.bytes(&network.addr().octets());
    (32 + u32::from(network.prefix_len()), record.done())
}

/// `struct key6` of a network, and the length that the map wants.
pub(super) fn key6(uplink: u32, network: Ipv6Net) -> (u32, [u8; KEY6]) {
    let mut record = Record::default();
    record.u32(uplink);
    record.bytes(&network.addr().octets());
    (32 + u32::from(network.prefix_len()), record.done())
}

/// `struct key6` of an instance's prefix, and the length that the map wants.
pub(super) fn prefix_key(uplink: u32, spec: &FastPathSpec) -> (u32, [u8; KEY6]) {
    let prefix = spec.translation.plat_prefix.0;
    let mut record = Record::default();
    record.u32(uplink);
    record.bytes(&prefix.address().octets());
    (32 + u32::from(prefix.length()), record.done())
}

/// `struct to6` of an explicit mapping (RFC 7757 section 3.3.1).
pub(super) fn to6(v4: Ipv4Net, v6: Ipv6Net) -> [u8; TO6] {
    let (suffix, shift) = suffix(v4, v6);
    let mut record = Record::default();
    record.u128(v6.addr().to_bits());
    record.u32(suffix);
    record.u32(shift);
    record.done()
}

/// `struct to4` of an explicit mapping (RFC 7757 section 3.3.2).
pub(super) fn to4(clat: u32, v4: Ipv4Net, v6: Ipv6Net) -> [u8; TO4] {
    let (suffix, shift) = suffix(v4, v6);
    to4_record(clat, v4.addr().to_bits(), suffix, shift)
}

/// `struct to4` of a network whose packets are left to the userspace translator.
pub(super) fn to_engine(clat: u32) -> [u8; TO4] {
    to4_record(clat, 0, 0, NO_MAPPING)
}

/// `struct to4` of an address that instances share with the host.
pub(super) fn to_sharers() -> [u8; TO4] {
    to4_record(SHARED, 0, 0, 0)
}

fn to4_record(clat: u32, base: u32, suffix: u32, shift: u32) -> [u8; TO4] {
    let mut record = Record::default();
    [clat, base, suffix, shift].iter().for_each(|word| record.u32(*word));
    record.done()
}

/// The bits of the IPv4 address that are not the prefix's, and how far left of the end they stand in the IPv6 address.
fn suffix(v4: Ipv4Net, v6: Ipv6Net) -> (u32, u32) {
    let suffix = v4.hostmask().to_bits();
    // RFC 7757 section 3.2: the IPv6 suffix has at least as many bits. Without any, nothing is shifted.
    let shift = (96 + u32::from(v4.prefix_len())).saturating_sub(v6.prefix_len().into());
    (suffix, if suffix == 0 { 0 } else { shift })
}

fn mask6(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// Fields one after the other.
#[derive(Default)]
struct Record(Vec<u8>);

impl Record {
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_ne_bytes());
    }

    /// High half first, whatever the order of bytes.
    fn u128(&mut self, value: u128) {
        self.bytes(&((value >> 64) as u64).to_ne_bytes());
        self.bytes(&(value as u64).to_ne_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The record, which has this length.
    fn done<const LENGTH: usize>(self) -> [u8; LENGTH] {
        debug_assert_eq!(self.0.len(), LENGTH);
        let mut record = [0; LENGTH];
        for (to, from) in record.iter_mut().zip(self.0) {
            *to = from;
        }
        record
    }
}
