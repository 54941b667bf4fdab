//! Policy rules, and the rule of the IPv6 local table.

use clatd_stages::journal::Outcome;
use clatd_stages::net::{ROUTE_PROTOCOL, Rule};
use clatd_stages::world::WorldError;

use super::super::failure::{Failure, NOTHING, OpResult};
use super::super::{Kernel, local_rule, rules};
use super::sweep::LOCAL_RULE_BACK;
use super::{Look, Nature, Operation, Sweep, UNDOING};

pub(super) enum Change<'a> {
    Add(&'a Rule),
    Remove(&'a Rule),
    /// Only journals of older versions have it.
    HoldLocal,
    ReleaseLocal,
}

impl<'a> Operation<'a> for Change<'a> {
    fn nature(&self) -> Nature {
        match self {
            Self::Add(_) => Nature {
                untold: false,
                atomic: true,
                swept: true,
                outlives_device: false,
            },
            Self::HoldLocal => Nature {
                untold: false,
                atomic: false,
                swept: true,
                outlives_device: false,
            },
            Self::Remove(_) => UNDOING,
            Self::ReleaseLocal => Nature {
                atomic: false,
                ..UNDOING
            },
        }
    }

    fn device(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::Add(_) | Self::Remove(_) | Self::HoldLocal | Self::ReleaseLocal => None,
        }
    }

    async fn carry_out(&self, kernel: &mut Kernel, outcome: Option<&Outcome>) -> OpResult {
        let netlink = &kernel.netlink;
        match self {
            Self::Add(rule) => rules::add(netlink, rule, outcome).await,
            Self::Remove(rule) => rules::remove(netlink, rule, outcome).await,
            // Operations of journals are only undone.
            Self::HoldLocal => Ok(NOTHING),
            Self::ReleaseLocal => local_rule::restore(netlink).await,
        }
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        match self {
            Self::Add(rule) => Ok(rules::stands(rule, look.rules(rule.v6).await?)),
            Self::HoldLocal | Self::Remove(_) | Self::ReleaseLocal => Ok(true),
        }
    }
}

/// Removes rules with our protocol number, and puts back the rule that older versions moved.
pub(super) async fn sweep(sweep: &mut Sweep<'_>) -> Result<(), Failure> {
    let netlink = sweep.netlink.clone();
    if local_rule::is_moved(&netlink).await? {
        let restored = async { local_rule::restore(&netlink).await.map(drop) };
        sweep.remove(LOCAL_RULE_BACK.into(), restored).await;
    }
    for v6 in [false, true] {
        let rules = netlink.rules(v6).await?;
        for found in rules.iter().filter(|found| found.rule.protocol == ROUTE_PROTOCOL) {
            let removed = async { Ok(netlink.delete_rule(found).await?) };
            sweep.remove(format!("remove rule {}", found.rule), removed).await;
        }
    }
    Ok(())
}
