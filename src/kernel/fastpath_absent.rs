//! In place of the fast path, in a clatd that was built without it (feature `ebpf`).

use std::net::Ipv6Addr;

use clatd_stages::fast_path::{FastPathSpec, Offer};
use clatd_stages::net::Link;

use super::failure::{Done, Failure};
use super::netlink::Netlink;

const ABSENT: &str = "this clatd was built without it";

/// There is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct FastPath;

/// What nobody counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {}

impl std::ops::AddAssign for Counted {
    fn add_assign(&mut self, _: Self) {}
}

impl Counted {
    /// Never.
    pub fn document(&self) -> serde_json::Value {
        match *self {}
    }
}

impl FastPath {
    pub(crate) fn offer(&self, _: &Link, _: Option<u16>) -> Offer {
        Offer::Refused(ABSENT.into())
    }

    #[allow(clippy::unused_async, reason = "the other one waits")]
    pub(super) async fn attach(&self, _: &Netlink, _: &FastPathSpec) -> Done {
        Err(Failure::new(ABSENT))
    }

    pub(super) fn detach(&self, _: &str) {}

    pub(super) fn set_next_hop(&self, _: &str, _: Option<Ipv6Addr>) -> Done {
        Err(Failure::new(ABSENT))
    }

    pub(crate) fn stands(&self, _: &FastPathSpec, _: u32, _: u32) -> Result<bool, std::io::Error> {
        Ok(false)
    }

    pub(super) fn counted(&self, _: &str) -> Option<Counted> {
        None
    }
}
