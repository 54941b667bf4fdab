//! The programs of the fast path: attached, detached, told of the next hop.

use std::net::Ipv6Addr;

use clatd_stages::fast_path::{Attachment, FastPathSpec};
use clatd_stages::journal::Outcome;
use clatd_stages::world::WorldError;

use super::super::Kernel;
use super::super::failure::{Failure, OpResult};
#[cfg(feature = "ebpf")]
use super::super::fastpath;
use super::super::translators::{Position, TranslatorKind};
use super::{Look, Nature, Operation, Sweep, UNDOING};

pub(super) enum Change<'a> {
    Attach {
        fast_path: &'a FastPathSpec,
        uplink: &'a str,
    },
    Detach {
        device: &'a str,
        uplink: &'a str,
        attachment: Attachment,
    },
    SetNextHop {
        device: &'a str,
        gateway: Option<Ipv6Addr>,
    },
}

impl<'a> Change<'a> {
    pub(super) fn attach(fast_path: &'a FastPathSpec) -> Self {
        let uplink = fast_path.uplink.as_str();
        Self::Attach { fast_path, uplink }
    }
}

impl<'a> Operation<'a> for Change<'a> {
    fn nature(&self) -> Nature {
        match self {
            Self::Attach { fast_path, .. } => Nature {
                untold: true,
                atomic: false,
                // TCX links go with the daemon that has them open.
                swept: match fast_path.placement.attachment {
                    Attachment::Tcx => false,
                    Attachment::Clsact => true,
                },
                outlives_device: false,
            },
            Self::Detach { .. } => Nature {
                atomic: false,
                // The programs on the CLAT device, and what the maps have of it.
                outlives_device: true,
                ..UNDOING
            },
            Self::SetNextHop { .. } => Nature {
                untold: false,
                atomic: false,
                swept: false,
                outlives_device: false,
            },
        }
    }

    fn device(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::Attach { uplink, .. } | Self::Detach { uplink, .. } => Some(uplink),
            Self::SetNextHop { .. } => None,
        }
    }

    async fn carry_out(&self, kernel: &mut Kernel, outcome: Option<&Outcome>) -> OpResult {
        match *self {
            Self::Attach { fast_path, .. } => kernel.start_translator(fast_path).await,
            Self::Detach {
                device,
                uplink,
                attachment,
            } => {
                kernel.stop_translator(device, Position::Before).await;
                // Also if it was another process that attached them, or an instance that panicked.
                let (netlink, programs) = (&kernel.netlink, &kernel.holds.fast_path);
                programs.detach(netlink, device, uplink, attachment, outcome).await
            }
            Self::SetNextHop { device, gateway } => kernel.holds.fast_path.set_next_hop(device, gateway),
        }
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        match *self {
            Self::Attach { fast_path, .. } => fast_path.stands(look).await,
            // It is a value in a map that nobody else has open. The programs themselves are checked above.
            Self::SetNextHop { .. } => Ok(true),
            Self::Detach { .. } => Ok(true),
        }
    }
}

#[cfg(not(feature = "ebpf"))]
#[allow(clippy::unused_async, reason = "the other one waits")]
pub(super) async fn sweep(_: &mut Sweep<'_>) -> Result<(), Failure> {
    Ok(())
}

/// Takes programs off that a killed daemon attached to clsact.
#[cfg(feature = "ebpf")]
pub(super) async fn sweep(sweep: &mut Sweep<'_>) -> Result<(), Failure> {
    let netlink = sweep.netlink.clone();
    for (link, filter) in fastpath::left_behind(&netlink).await? {
        let what = format!("take the program {} off {}", filter.name, link.name);
        let taken = async { Ok(fastpath::take_away(&netlink, &link, &filter).await?) };
        sweep.remove(what, taken).await;
    }
    Ok(())
}
