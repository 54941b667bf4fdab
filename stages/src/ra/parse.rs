//! The fixed part of a router advertisement, and the walk through its options.

use std::net::Ipv6Addr;

use super::{IgnoredOption, MAX_IGNORED, Preference, ROUTER_ADVERTISEMENT, RaError, RouterAdvertisement, options};

/// ICMPv6 header, and the fields up to the retransmission timer (RFC 4861 section 4.2).
const FIXED: usize = 16;

/// Reads an ICMPv6 message that came from `source` with `hop_limit`.
///
/// The receiver checks the checksum: the kernel does so before a raw ICMPv6 socket sees the message (RFC 3542 section
/// 3.1).
pub fn parse(packet: &[u8], source: Ipv6Addr, hop_limit: u8) -> Result<RouterAdvertisement, RaError> {
    if hop_limit != 255 {
        return Err(RaError::HopLimit(hop_limit));
    }
    if !source.is_unicast_link_local() {
        return Err(RaError::Source(source));
    }
    let Some((fixed, mut rest)) = packet.split_first_chunk::<FIXED>() else {
        return Err(RaError::Short(packet.len()));
    };
    let [kind, code, _, _, _hop_limit, flags, lifetime @ ..] = fixed;
    if *kind != ROUTER_ADVERTISEMENT {
        return Err(RaError::Type(*kind));
    }
    if *code != 0 {
        return Err(RaError::Code(*code));
    }
    let router_lifetime_s = u16::from_be_bytes([lifetime[0], lifetime[1]]);
    let mut advertisement = RouterAdvertisement {
        router_lifetime_s,
        preference: preference(*flags, router_lifetime_s),
        managed: flags & 0x80 != 0,
        other_config: flags & 0x40 != 0,
        ..RouterAdvertisement::default()
    };
    while let Some((&kind, after_kind)) = rest.split_first() {
        let at = packet.len() - rest.len();
        let Some(&units) = after_kind.first() else {
            return Err(RaError::OptionCutOff { at });
        };
        if units == 0 {
            return Err(RaError::OptionWithoutLength { at, kind });
        }
        let length = usize::from(units) * 8;
        let Some((option, after)) = rest.split_at_checked(length) else {
            let left = rest.len();
            return Err(RaError::OptionTooLong { at, kind, length, left });
        };
        rest = after;
        if let Err(problem) = options::read(kind, option, &mut advertisement)
            && advertisement.ignored.len() < MAX_IGNORED
        {
            advertisement.ignored.push(IgnoredOption { at, kind, problem });
        }
    }
    Ok(advertisement)
}

/// RFC 4191 section 2.2: bits 3 and 4 of the flags. They mean nothing where the sender is no default router.
fn preference(flags: u8, router_lifetime_s: u16) -> Preference {
    match (flags >> 3) & 0b11 {
        _ if router_lifetime_s == 0 => Preference::Medium,
        0b01 => Preference::High,
        0b11 => Preference::Low,
        _ => Preference::Medium,
    }
}
