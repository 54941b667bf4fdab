//! clatd: one daemon that gives working IPv4 to an IPv6-only host, over every uplink.

pub mod claims;
pub mod cli;
mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod dhcp6;
pub mod doctor;
pub mod hardening;
pub mod instance;
pub mod kernel;
pub mod logging;
pub mod metrics;
pub mod netlink;
pub mod probe;
pub mod ra;
pub mod report;
pub mod service;
pub mod status;
pub mod supervisor;
mod sys;
pub mod trusted;
pub mod uplinks;
mod util;
pub mod watch;
pub mod world;
