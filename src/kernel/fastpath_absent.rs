//! Replaces the fast path in a clatd that was built without it (feature `ebpf`).

use std::net::Ipv6Addr;

use async_trait::async_trait;
use clatd_stages::fast_path::{Attachment, FastPathSpec, Offer};
use clatd_stages::journal::Outcome;
use clatd_stages::net::Link;
use clatd_stages::world::WorldError;

use super::failure::{Failure, NOTHING, OpResult};
use super::netlink::Netlink;
use super::ops::Look;
use super::translators::{Host, Position, Started, TranslatorKind};

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
    pub fn document(&self) -> clatd_stages::counters::FastPathCounters {
        match *self {}
    }
}

#[async_trait]
impl TranslatorKind for FastPathSpec {
    fn device(&self) -> &str {
        self.device()
    }

    fn position(&self) -> Position {
        Position::Before
    }

    async fn start(&self, _: Host<'_>) -> Result<Started, Failure> {
        Err(Failure::new(ABSENT))
    }

    async fn stands(&self, _: &mut Look<'_>) -> Result<bool, WorldError> {
        Ok(false)
    }
}

impl FastPath {
    /// There is nothing to load.
    pub(crate) fn load_ahead(&self) {}

    pub(crate) fn offer(&self, _: &Link, _: Option<u16>) -> Offer {
        Offer::Refused(ABSENT.into())
    }

    /// A clatd with the fast path removes what it left behind.
    #[allow(clippy::unused_async, reason = "the other one waits")]
    pub(super) async fn detach(&self, _: &Netlink, _: &str, _: &str, _: Attachment, _: Option<&Outcome>) -> OpResult {
        Ok(NOTHING)
    }

    pub(super) fn set_next_hop(&self, _: &str, _: Option<Ipv6Addr>) -> OpResult {
        Err(Failure::new(ABSENT))
    }
}
