//! Tests on an uplink: whether an address of ours is free (RFC 4862 section 5.4), and whether a PLAT prefix leads
//! anywhere (RFC 7050 section 3.2). Both are tested before use and watched meanwhile.

use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

mod closing;
mod conflict;
mod dad;
mod packet;
mod reach;
mod trace;

pub use conflict::{ConflictWatch, advertise, announce, solicit};
pub use dad::{DadResult, detect, is_duplicate};
pub use reach::{How, answers, is_never_probed};
pub use trace::{in_arp_table, trace};

/// A probe that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The device is absent, down or without carrier, so nobody could answer.
    #[error("{device} {problem}")]
    Device {
        /// The device.
        device: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nobody is at the addresses of ipv4only.arpa, by design (RFC 7050 section 3.2.1).
    #[error("{target} holds an address of ipv4only.arpa, which must not be probed (RFC 7050 section 3.2.1)")]
    NeverProbed {
        /// The address that was to be probed.
        target: Ipv6Addr,
    },
    /// A system call failed.
    #[error("{doing}")]
    System {
        /// What was being done, to what.
        doing: String,
        /// The cause.
        source: io::Error,
    },
}

impl ProbeError {
    fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source }
    }

    /// The error for a failed call on `device`. An absent device is an error of its own.
    fn on(device: &str, doing: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => Self::device(device, "does not exist"),
            Some(libc::ENETDOWN) => Self::device(device, "is down"),
            // The queue of the device is full, or closed because the carrier was just lost.
            Some(libc::ENOBUFS) => Self::device(device, "takes no packets"),
            _ => Self::System {
                doing: format!("{doing} on {device}"),
                source,
            },
        }
    }

    fn device(device: &str, problem: &'static str) -> Self {
        Self::Device {
            device: device.to_owned(),
            problem,
        }
    }
}

/// Random enough for nonces and identifiers, which only distinguish packets.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// The end of every echo and connection attempt: after the last one, this much longer is waited.
const LAST_WAIT: Duration = Duration::from_millis(1500);
