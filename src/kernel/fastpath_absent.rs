//! Replaces the fast path in a clatd that was built without it (feature `ebpf`).

use std::net::Ipv6Addr;

use clatd_stages::fast_path::{Attachment, FastPathSpec, Offer};
use clatd_stages::journal::Outcome;
use clatd_stages::net::Link;

use super::failure::{Done, Failure, NOTHING};
use super::netlink::Netlink;

const ABSENT: &str = "this clatd was built without it";

/// There is none.
#[derive(Debug, Clone, Default)]
pub struct FastPath;

/// What nobody counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {}

impl std::ops::AddAssign for Counted {
    fn add_assign(&mut self, _: Self) {}
}

impl Counted {
    /// Never.
    pub fn carried(&self, _: usize) -> (u64, u64) {
        match *self {}
    }

    /// Never.
    pub fn document(&self) -> serde_json::Value {
        match *self {}
    }
}

impl FastPath {
    /// There is nothing to load.
    pub(crate) fn load_ahead(&self) {}

    pub(crate) fn offer(&self, _: &Link, _: Option<u16>) -> Offer {
        Offer::Refused(ABSENT.into())
    }

    #[allow(clippy::unused_async, reason = "the other one waits")]
    pub(super) async fn attach(&self, _: &Netlink, _: &FastPathSpec) -> Done {
        Err(Failure::new(ABSENT))
    }

    /// A clatd with the fast path removes what it left behind.
    #[allow(clippy::unused_async, reason = "the other one waits")]
    pub(super) async fn detach(&self, _: &Netlink, _: &str, _: &str, _: Attachment, _: Option<&Outcome>) -> Done {
        Ok(NOTHING)
    }

    pub(super) fn set_next_hop(&self, _: &str, _: Option<Ipv6Addr>) -> Done {
        Err(Failure::new(ABSENT))
    }

    #[allow(clippy::unused_async, reason = "the other one waits")]
    pub(crate) async fn stands(&self, _: &Netlink, _: &FastPathSpec, _: u32, _: u32) -> Result<bool, std::io::Error> {
        Ok(false)
    }

    pub(super) fn counted(&self, _: &str) -> Option<Counted> {
        None
    }
}
