//! The CLAT device: made, brought up, deleted.

use clatd_stages::journal::Outcome;
use clatd_stages::op::NewTun;
use clatd_stages::world::WorldError;

use super::super::Kernel;
use super::super::failure::{Failure, NOTHING, OpResult};
use super::super::translators::Position;
use super::super::tun;
use super::{Look, Nature, Operation, Sweep, UNDOING, link};

pub(super) enum Change<'a> {
    CreateTun(&'a NewTun),
    DeleteTun { device: &'a str, alias: &'a str },
    SetUp { device: &'a str, mtu: u32 },
}

impl<'a> Operation<'a> for Change<'a> {
    fn nature(&self) -> Nature {
        match self {
            Self::CreateTun(tun) => Nature {
                untold: false,
                atomic: true,
                // Others go with the daemon.
                swept: tun.persistent,
                outlives_device: false,
            },
            Self::SetUp { .. } => Nature {
                untold: false,
                atomic: false,
                swept: false,
                outlives_device: false,
            },
            Self::DeleteTun { .. } => Nature {
                atomic: false,
                ..UNDOING
            },
        }
    }

    fn device(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::CreateTun(_) | Self::DeleteTun { .. } | Self::SetUp { .. } => None,
        }
    }

    async fn carry_out(&self, kernel: &mut Kernel, outcome: Option<&Outcome>) -> OpResult {
        match *self {
            Self::CreateTun(new) => {
                let (tun, outcome) = tun::create(&kernel.netlink, new).await?;
                kernel.tuns.extend(tun.map(|tun| (new.device.clone(), tun)));
                Ok(outcome)
            }
            Self::DeleteTun { device, alias } => {
                // A translator that could not be stopped keeps the device open.
                kernel.stop_translator(device, Position::Device).await;
                kernel.tuns.remove(device);
                tun::delete(&kernel.netlink, device, alias, outcome).await
            }
            Self::SetUp { device, mtu } => {
                let link = link(&kernel.netlink, device).await?;
                kernel.netlink.set_link_up(link.index, mtu).await?;
                Ok(NOTHING)
            }
        }
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        Ok(match *self {
            Self::CreateTun(new) => look
                .link(&new.device)
                .await?
                .is_some_and(|link| link.alias.as_ref() == Some(&new.alias)),
            Self::SetUp { device, mtu } => look.link(device).await?.is_none_or(|link| link.up && link.mtu == mtu),
            Self::DeleteTun { .. } => true,
        })
    }
}

/// Deletes our devices, unless a running program has them open.
pub(super) async fn sweep(sweep: &mut Sweep<'_>) -> Result<(), Failure> {
    let netlink = sweep.netlink.clone();
    let links = netlink.links().await?;
    for link in links.iter().filter(|link| link.is_clat()) {
        let what = format!("delete TUN device {}", link.name);
        if tun::in_use(&netlink, link.index).await? {
            sweep.note(what, Err(Failure::new(tun::IN_USE)));
            continue;
        }
        let deleted = async { Ok(netlink.delete_link(link.index).await?) };
        sweep.remove(what, deleted).await;
    }
    Ok(())
}
