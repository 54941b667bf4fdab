//! One configuration in both translators.

use std::time::Duration;

use clatd::kernel::fastpath::{Devices, NextHop, Program, Programs};
use clatd_stages::fast_path::{Attachment, FastPathSpec, LinkHeader, Placement};
use clatd_stages::settings::{self, MapEntry, Pref64Setting};
use clatd_stages::translator::UserspaceSpec;
use clatd_translator::{Config, Kind, Offload, Tos, Translator, UnmappedSource, Verdict};

use crate::support::{self, Got, hex};

/// Loopback: what a test run takes for the device.
const DEVICE: u32 = 1;
const ETHERNET: usize = 14;
/// TC_ACT_REDIRECT, and the verdict that the next program decides.
pub const REDIRECT: i32 = 7;
pub const NEXT: i32 = -1;
/// More than a test run takes in one page.
const LARGEST: usize = 3000;

/// What the programs did with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// They translated it as the other translator does.
    Fast,
    /// They left it as it was.
    Left,
    /// The kernel runs no program on such a packet.
    NotRun,
}

/// Both translators, configured alike.
pub struct Pair {
    config: Config,
    translator: Translator,
    programs: Programs,
}

impl Pair {
    /// None for configurations that the fast path is not for: without a prefix, or that no translator takes.
    pub fn new(config: Config) -> Option<Self> {
        let spec = spec(&config)?;
        let translator = Translator::new(config.clone()).ok()?;
        let mut programs = Programs::load().unwrap_or_else(|error| panic!("{}", clatd::report::chain(&error)));
        let devices = Devices {
            clat: DEVICE,
            uplink: DEVICE,
            clat_header: LinkHeader::Ethernet,
        };
        let next_hop = Some(NextHop(Some("fe80::1".parse().unwrap())));
        programs.enter(devices, &spec, next_hop).unwrap();
        programs.take_in(devices, &spec).unwrap();
        Some(Self {
            config,
            translator,
            programs,
        })
    }

    /// Runs both on a packet; the error says what differs.
    pub fn compare(&mut self, packet: &[u8]) -> Result<Took, String> {
        let Some((program, frame)) = framed(packet).filter(|_| packet.len() <= LARGEST) else {
            return Ok(Took::NotRun);
        };
        let Ok((verdict, out)) = self.programs.try_on(program, &frame) else {
            return Ok(Took::NotRun);
        };
        let (engine, got) = support::run_with(&self.translator, &mut self.translator.worker(0), Offload::NONE, packet);
        if out == frame {
            // To the next program, or untouched to the userspace translator.
            return match verdict {
                NEXT | REDIRECT if !self.is_plain(packet, engine, &got) => Ok(Took::Left),
                NEXT | REDIRECT => Err("it is plain, but was left".into()),
                other => Err(format!("verdict {other} for an unchanged packet")),
            };
        }
        let translated = out.get(ETHERNET..).unwrap_or_default();
        if verdict != REDIRECT {
            return Err(format!("verdict {verdict} for a changed packet{}", hex(translated)));
        }
        let [
            Got {
                kind: Kind::Translated,
                bytes,
                ..
            },
        ] = got.as_slice()
        else {
            return Err(format!("the other translator: {engine:?}; got{}", hex(translated)));
        };
        match without_identification(translated) == without_identification(bytes) {
            true => Ok(Took::Fast),
            false => Err(format!("expected{}\n  got{}", hex(bytes), hex(translated))),
        }
    }

    /// How long the program takes for a packet that it translates.
    pub fn time(&mut self, packet: &[u8]) -> Option<Duration> {
        let (program, frame) = framed(packet)?;
        let (verdict, out, time) = self.programs.time_on(program, &frame).ok()?;
        (verdict == REDIRECT && out != frame).then_some(time)
    }

    /// Whether the fast path is meant for it, said independently of the programs.
    fn is_plain(&self, packet: &[u8], engine: Verdict, got: &[Got]) -> bool {
        let [
            Got {
                kind: Kind::Translated,
                bytes,
                ..
            },
        ] = got
        else {
            return false;
        };
        if engine != Verdict::Translated {
            return false;
        }
        let maps = &self.config.maps;
        let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
        match packet[0] >> 4 {
            4 => {
                let destination: [u8; 4] = packet[16..20].try_into().unwrap();
                let is_fragment = word(6) & 0x3fff != 0;
                packet[0] == 0x45
                    && word(2) == packet.len()
                    && match packet[9] {
                        1 => !is_fragment && matches!(packet[20], 0 | 8),
                        6 => true,
                        17 => word(6) & 0x1fff != 0 || word(26) != 0,
                        _ => false,
                    }
                    // A Fragment Header says that it is one, or was cut.
                    && is_fragment == (bytes[6] == 44)
                    && !maps.iter().any(|(v4, _)| v4.contains(&std::net::Ipv4Addr::from(destination)))
            }
            _ => {
                let address = |at: usize| std::net::Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
                let mapped = |address| maps.iter().any(|(_, v6)| v6.contains(&address));
                let plain = |next: u8, at: usize| match next {
                    6 => true,
                    17 => word(at + 6) != 0,
                    58 => matches!(packet[at], 128 | 129),
                    _ => false,
                };
                let fragmented = usize::from(u16::from_be_bytes([bytes[6], bytes[7]])) & 0x3fff;
                word(4) + 40 == packet.len()
                    && match packet[6] {
                        // The others have no transport header.
                        44 if word(42) & 0xfff8 != 0 => matches!(packet[40], 6 | 17),
                        44 => word(42) & 1 != 0 && plain(packet[40], 48),
                        next => plain(next, 40),
                    }
                    && mapped(address(24))
                    && !mapped(address(8))
                    // It became one packet of IPv4, a fragment if it was one.
                    && bytes[0] == 0x45
                    && (fragmented != 0) == (packet[6] == 44)
            }
        }
    }
}

/// The program that is for such packets, and the packet in a frame.
fn framed(packet: &[u8]) -> Option<(Program, Vec<u8>)> {
    let (program, kind) = match packet.first()? >> 4 {
        4 => (Program::Out, [0x08, 0x00]),
        6 => (Program::In, [0x86, 0xdd]),
        _ => return None,
    };
    Some((program, [&[0; 12], &kind[..], packet].concat()))
}

/// The identification is a random number in either, but for fragments; a header checksum that is right covers it.
pub fn without_identification(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet.len() >= 20 && packet[0] >> 4 == 4 {
        let is_right = support::sum16(&packet[..20]) == 0xffff;
        if u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff == 0 {
            packet[4..6].fill(0);
        }
        packet[10..12].fill(u8::from(!is_right));
    }
    packet
}

pub fn spec(config: &Config) -> Option<FastPathSpec> {
    let tos = |tos| match tos {
        Tos::Copy => settings::TosSetting::Copy,
        Tos::Fixed(value) => settings::TosSetting::Value(value),
    };
    let maps = config.maps.iter().map(|&(v4, v6)| MapEntry { v4, v6 });
    let translation = UserspaceSpec {
        maps: maps.collect(),
        own_v4: config.own_v4,
        own_v6: config.own_v6,
        mtu4: config.mtu4,
        mtu6: config.mtu6,
        lowest_ipv6_mtu: config.lowest_ipv6_mtu,
        wkp_strict: config.wkp_strict,
        traffic_class: tos(config.traffic_class),
        tos: tos(config.tos),
        unmapped_source: match config.unmapped_source {
            UnmappedSource::Drop => settings::UnmappedSource::Drop,
            UnmappedSource::Prefix => settings::UnmappedSource::Prefix,
        },
        ..UserspaceSpec::of(
            &settings::Settings::default(),
            Pref64Setting(config.pref64?).0,
            None,
            (config.mtu4, config.mtu6),
        )
    };
    Some(FastPathSpec {
        uplink: "lo".into(),
        placement: Placement {
            attachment: Attachment::Tcx,
            header: LinkHeader::Ethernet,
        },
        translation,
        delegated: None,
        shared: None,
    })
}
