#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

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
