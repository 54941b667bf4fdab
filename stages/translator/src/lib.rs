//! Stateless IP/ICMP translation (SIIT, RFC 7915) on byte slices.
//!
//! One [`Translator`] holds the configuration and the address mappings (RFC 6052 prefix and RFC 7757 explicit
//! mappings); it never changes, so an `Arc` of it serves all threads. Each thread owns a [`Worker`] (identification
//! counter, scratch space, rate limiter, counters). A packet lies in a [`PacketBuf`] with [`HEADROOM`] free bytes in
//! front, so that IPv4 becomes IPv6 in place; every resulting packet is handed to an [`Output`].
//!
//! ```
//! use clatd_translator::{Config, Frame, HEADROOM, Kind, Offload, PacketBuf, Translator};
//!
//! let config = Config { pref64: Some("64:ff9b::/96".parse().unwrap()), ..Config::default() }
//!     .with_clat("192.0.0.1".parse().unwrap(), "2001:db8::464".parse().unwrap());
//! let translator = Translator::new(config).unwrap();
//! let mut worker = translator.worker(0);
//! let packet = [0x45, 0, 0, 20, 0, 0, 0x40, 0, 64, 99, 0x50, 0x51, 192, 0, 0, 1, 198, 51, 100, 1];
//! let mut buffer = vec![0; HEADROOM + packet.len()];
//! buffer[HEADROOM..].copy_from_slice(&packet);
//! let mut packet = PacketBuf::new(&mut buffer, HEADROOM, packet.len()).unwrap();
//! let mut seen = Vec::new();
//! translator.translate(&mut worker, 0, Offload::NONE, &mut packet, &mut |_: Kind, _: &Offload, frame: Frame<'_>| {
//!     seen.push(frame.bytes().to_vec());
//! });
//! assert_eq!(seen[0][0] >> 4, 6);
//! ```
//!
//! Nothing here does I/O, reads a clock, allocates per packet or panics on any input.

#![forbid(unsafe_code)]

mod address;
mod buffer;
mod chain;
mod checksum;
mod config;
mod counters;
mod eam;
mod extension;
mod flow;
mod fragment;
mod generate;
mod gso;
mod icmp;
mod icmp_errors;
mod inner;
mod limiter;
pub mod offline;
mod outcome;
mod own;
pub mod pcap;
mod plain;
mod prefix;
mod translator;
mod transport;
mod v4to6;
mod v6to4;
mod wire;

pub use buffer::{Frame, HEADROOM, Kind, Output, PacketBuf};
pub use checksum::internet_checksum;
pub use config::{Config, ConfigError, IcmpErrors, Tos, UdpZeroChecksum, UnmappedSource};
pub use counters::{Counters, CountersSnapshot, Direction, DropReason, Protocol};
pub use eam::{EamTable, MapError};
pub use flow::{DropEvent, Flow, Transport};
pub use gso::Offload;
pub use prefix::{Pref64, Pref64Error};
pub use translator::{Translator, Verdict, Worker};
