//! The translator, the worker of one thread, and the way of a packet through both.

use crate::address::{AddressMap, Side};
use crate::buffer::{Kind, Output, PacketBuf, Scratch};
use crate::config::{Config, ConfigError, IcmpErrors, Tos, UdpZeroChecksum};
use crate::counters::{Counters, Direction, DropReason, Protocol};
use crate::flow::DropEvent;
use crate::fragment;
use crate::generate::Answer;
use crate::gso::Offload;
use crate::icmp::Mtus;
use crate::icmp_errors::LONGEST6;
use crate::limiter::Limiter;
use crate::outcome::{Done, Dropped, Pass, ResultPlace};
use crate::plain::{self, Plain};
use crate::wire::V4Header;
use crate::{own, transport, v4to6, v6to4};
use alloc::sync::Arc;
use alloc::{string::String, vec::Vec};
use core::net::Ipv6Addr;

/// A configured translator: immutable, to be shared by all threads.
#[derive(Debug)]
pub struct Translator {
    pub(crate) map: AddressMap,
    pub(crate) mtus: Mtus,
    pub(crate) lowest_ipv6_mtu: u32,
    pub(crate) udp_zero_checksum: UdpZeroChecksum,
    pub(crate) traffic_class: Tos,
    pub(crate) tos: Tos,
    pub(crate) hairpin: bool,
    pub(crate) dummy_v4: u32,
    pub(crate) node_identification: bool,
    own_v4: u32,
    own_v6: Option<u128>,
    config: Config,
}

/// What one thread needs besides the translator.
#[derive(Debug)]
pub struct Worker {
    identification: u32,
    /// For results that are not made in place; the second one for hairpinned ICMP errors and answers.
    scratch: Scratch,
    scratch2: Scratch,
    limiter: Limiter,
    counters: Arc<Counters>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was translated and given to the output, in one piece or several.
    Translated,
    /// It was dropped.
    Dropped {
        /// Why.
        reason: DropReason,
        /// Whether an answer to its source (an ICMP error, or an echo reply of the translator itself) was given to
        /// the output instead.
        answered: bool,
    },
}

impl Translator {
    /// Checks the configuration and builds the translator.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let map = AddressMap::new(&config)?;
        let own_v4 = u32::from(config.own_v4);
        let by_mapping = || map.to_v6(own_v4, Side::Theirs).ok();
        let own_v6 = config.own_v6.map(u128::from).or_else(by_mapping);
        Ok(Self {
            mtus: Mtus {
                mtu4: config.mtu4,
                mtu6: config.mtu6,
            },
            lowest_ipv6_mtu: config.lowest_ipv6_mtu,
            udp_zero_checksum: config.udp_zero_checksum,
            traffic_class: config.traffic_class,
            tos: config.tos,
            hairpin: config.hairpin,
            dummy_v4: u32::from(config.dummy_v4),
            node_identification: config.node_identification,
            map,
            own_v4,
            own_v6,
            config,
        })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Source of generated ICMPv6 errors; without one none are sent.
    pub fn own_v6(&self) -> Option<Ipv6Addr> {
        self.own_v6.map(Ipv6Addr::from)
    }

    /// Lines about mappings that are legal but overlap (RFC 7757 section 5).
    pub fn warnings(&self) -> Vec<String> {
        self.map.eam().overlaps()
    }

    /// A worker for thread number `index`; this allocates, translating does not.
    pub fn worker(&self, index: u32) -> Worker {
        self.worker_with(index, self.config.icmp_errors)
    }

    pub(crate) fn worker_with(&self, index: u32, icmp_errors: IcmpErrors) -> Worker {
        let mtu4 = self.mtus.mtu4.min(0xffff) as usize;
        let mtu6 = self.mtus.mtu6.min(self.lowest_ipv6_mtu).min(0x1_0000) as usize;
        let room = LONGEST6.max(mtu4).max(mtu6);
        Worker {
            // Far apart, so that threads do not repeat each other's values.
            identification: self.config.identification_seed.wrapping_add(index.wrapping_mul(0x5bd1)),
            scratch: Scratch::new(room),
            scratch2: Scratch::new(room),
            limiter: Limiter::new(icmp_errors),
            counters: Arc::new(Counters::default()),
        }
    }

    /// Translates one packet; its IP version tells the direction.
    ///
    /// `now_ms` is any monotonic clock in milliseconds, for the rate limit of ICMP errors. `offload` is what the
    /// device said about the packet, [`Offload::NONE`] for an ordinary one. Every resulting packet is given to
    /// `out` before this returns; the packet buffer holds nothing useful afterwards.
    pub fn translate(
        &self,
        worker: &mut Worker,
        now_ms: u64,
        offload: Offload,
        packet: &mut PacketBuf<'_>,
        out: &mut impl Output,
    ) -> Verdict {
        let length = packet.bytes().len();
        let version = version(packet);
        let plain = match version {
            Some(4) => plain::v4to6(self, &offload, packet),
            Some(6) => plain::v6to4(self, &mut worker.identification, &offload, packet),
            _ => None,
        };
        let Some(Plain { protocol, offload }) = plain else {
            return self.translate_the_long_way(worker, now_ms, offload, packet, out);
        };
        out.packet(Kind::Translated, &offload, packet.frame());
        worker.counters.translated(direction(version), protocol, length);
        Verdict::Translated
    }

    /// What [`Translator::translate`] does, without the short way for plain packets: for tests that compare the two.
    #[doc(hidden)]
    pub fn translate_the_long_way(
        &self,
        worker: &mut Worker,
        now_ms: u64,
        offload: Offload,
        packet: &mut PacketBuf<'_>,
        out: &mut impl Output,
    ) -> Verdict {
        let length = packet.bytes().len();
        let version = version(packet);
        let direction = direction(version);
        let result = match version {
            Some(4) => v4to6::translate(self, Pass::First, offload, packet, worker.scratch.room()),
            Some(6) => {
                let id = &mut worker.identification;
                v6to4::translate(self, id, offload, packet, worker.scratch.room()).and_then(|done| {
                    if done.hairpin {
                        self.hairpin(worker, packet, done)
                    } else {
                        Ok(done)
                    }
                })
            }
            _ => Err(DropReason::NotIp.into()),
        };
        let is_error = matches!(&result, Ok(done) if matches!(done.place, ResultPlace::Scratch(_)));
        match result.and_then(|done| deliver(worker, direction, packet, done, out)) {
            Ok(protocol) => {
                worker.counters.translated(direction, protocol, length);
                if is_error {
                    worker.counters.error(direction);
                }
                Verdict::Translated
            }
            Err(Dropped { reason, answer }) => {
                worker.counters.dropped(direction, reason);
                out.dropped(DropEvent {
                    direction,
                    reason,
                    packet: packet.bytes(),
                });
                let answered = answer.is_some_and(|a| self.answer(worker, now_ms, direction, packet, a, out));
                Verdict::Dropped { reason, answered }
            }
        }
    }

    /// The second pass of RFC 7757 section 4.2.2. Its drops are never answered: the packet has changed already.
    fn hairpin(&self, worker: &mut Worker, packet: &mut PacketBuf<'_>, done: Done) -> Result<Done, Dropped> {
        let result = match done.place {
            ResultPlace::Packet => v4to6::translate(self, Pass::Hairpin, done.offload, packet, worker.scratch2.room()),
            ResultPlace::Scratch(length) => {
                let bytes = worker.scratch.bytes(length);
                let header = V4Header::read(bytes).ok_or(DropReason::Truncated)?;
                let result = v4to6::error(self, Pass::Hairpin, &header, bytes, worker.scratch2.room());
                core::mem::swap(&mut worker.scratch, &mut worker.scratch2);
                result
            }
        };
        worker.counters.hairpinned();
        result.map_err(|drop| drop.reason.into())
    }

    /// Sends the answer to a packet that goes no further, if one may be sent.
    fn answer(
        &self,
        worker: &mut Worker,
        now_ms: u64,
        direction: Direction,
        packet: &mut PacketBuf<'_>,
        answer: Answer,
        out: &mut impl Output,
    ) -> bool {
        let id = worker.identification as u16;
        let length = match (answer, direction, self.own_v6) {
            (Answer::Echo, ..) => own::echo_reply(packet.bytes_mut(), id).map(|()| 0),
            (Answer::Error(head), Direction::V4ToV6, _) => {
                head.write_v4(packet.bytes(), self.own_v4, id, worker.scratch2.room())
            }
            (Answer::Error(head), Direction::V6ToV4, Some(own)) => {
                head.write_v6(packet.bytes(), own, worker.scratch2.room())
            }
            (Answer::Error(_), Direction::V6ToV4, None) => None,
        };
        let Some(length) = length else { return false };
        if !worker.limiter.allow(now_ms) {
            worker.counters.suppressed(direction);
            return false;
        }
        worker.identification = worker.identification.wrapping_add(1);
        worker.counters.answered(direction);
        let frame = if answer == Answer::Echo {
            packet.frame()
        } else {
            worker.scratch2.frame(length)
        };
        out.packet(Kind::Answer, &Offload::NONE, frame);
        true
    }

    /// Whether an IPv4 packet is for the translator itself, and not for a mapped node.
    #[inline]
    pub(crate) fn is_own4(&self, address: u32) -> bool {
        address == self.own_v4 && !self.map.is_mapped(address)
    }

    /// Whether an IPv6 packet is for the translator itself, and not for a mapped node.
    #[inline]
    pub(crate) fn is_own6(&self, address: u128) -> bool {
        self.own_v6 == Some(address) && self.map.eam().to_v4_bits(address).is_none()
    }
}

impl Worker {
    /// This worker's counters, to be read from any thread.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

fn version(packet: &PacketBuf<'_>) -> Option<u8> {
    packet.bytes().first().map(|octet| octet >> 4)
}

fn direction(version: Option<u8>) -> Direction {
    if version == Some(6) {
        Direction::V6ToV4
    } else {
        Direction::V4ToV6
    }
}

/// Gives a translated packet to the output, in fragments if need be.
fn deliver(
    worker: &mut Worker,
    direction: Direction,
    packet: &mut PacketBuf<'_>,
    mut done: Done,
    out: &mut impl Output,
) -> Result<Protocol, Dropped> {
    let Some((limit, id)) = done.fragment else {
        match done.place {
            ResultPlace::Packet => out.packet(Kind::Translated, &done.offload, packet.frame()),
            ResultPlace::Scratch(length) => out.packet(Kind::Translated, &done.offload, worker.scratch.frame(length)),
        }
        return Ok(transport::class(done.protocol));
    };
    let whole = match done.place {
        ResultPlace::Packet => {
            done.offload.complete(packet.bytes_mut(), done.protocol)?;
            packet.bytes()
        }
        ResultPlace::Scratch(length) => worker.scratch.bytes(length),
    };
    let is_v6 = whole.first().is_some_and(|octet| octet >> 4 == 6);
    let count = if is_v6 {
        fragment::v6(whole, id, limit, &mut worker.scratch2, out)
    } else {
        fragment::v4(whole, limit, &mut worker.scratch2, out)
    };
    worker
        .counters
        .fragments(direction, count.ok_or(DropReason::BadHeader)?);
    Ok(transport::class(done.protocol))
}
