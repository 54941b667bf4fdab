//! Devices under their present names. An operation names its device. Where that was renamed since, its undo finds it under
//! the new name, and leaves another device alone that has the old one now. So what an operation did is recorded with the
//! index of its device.

use std::borrow::Cow;
use std::collections::BTreeMap;

use clatd_stages::journal::{Left, Outcome};
use clatd_stages::op::Op;

use super::netlink::{Netlink, NetlinkError};
use super::ops::nature;
use super::sysctl::{device_of, of_device};

/// An undo with the present names of its devices; `None` = its device is gone, and with it what was done to it.
pub(super) async fn renamed<'a>(
    netlink: &Netlink,
    op: &'a Op,
    outcome: &Outcome,
) -> Result<Option<Cow<'a, Op>>, NetlinkError> {
    if let (Op::ReleaseSysctl { .. }, Left::Hold { devices, .. }) = (op, &outcome.left)
        && !devices.is_empty()
    {
        return Ok(Some(Cow::Owned(giving_back_by_index(netlink, op, devices).await?)));
    }
    let before = match op {
        Op::ReleaseSysctl { key, .. } => device_of(key),
        op => nature(op).device,
    };
    let (Some(before), Some(index)) = (before, outcome.device) else {
        return Ok(Some(Cow::Borrowed(op)));
    };
    Ok(match netlink.name(index).await? {
        // A route of somebody else's goes back on a device that was unplugged and plugged in again, too.
        None if matches!(op, Op::AddRoute { .. }) => Some(Cow::Borrowed(op)),
        None => None,
        Some(now) if now == before => Some(Cow::Borrowed(op)),
        Some(now) => Some(Cow::Owned(on(op, &now))),
    })
}

/// A release that resets sysctls of many devices, with the present names of those that are given back.
async fn giving_back_by_index(netlink: &Netlink, op: &Op, indexes: &BTreeMap<String, u32>) -> Result<Op, NetlinkError> {
    let mut op = op.clone();
    if let Op::ReleaseSysctl { give_back, .. } = &mut op {
        for (key, value) in std::mem::take(give_back) {
            let known = device_of(&key).and_then(|device| indexes.get(device));
            let now = match known {
                None => Some(key),
                Some(index) => netlink.name(*index).await?.map(|now| of_device(&key, &now)),
            };
            give_back.extend(now.map(|key| (key, value)));
        }
    }
    Ok(op)
}

/// The same undo on a device of another name.
fn on(op: &Op, name: &str) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::ReleaseSysctl { key, .. } => *key = of_device(key, name),
        Op::RemoveAddress { device, .. } | Op::RemoveProxyNeighbour { device, .. } => name.clone_into(device),
        Op::AddRoute { route } | Op::RemoveRoute { route } => route.device = Some(name.to_owned()),
        Op::DetachFastPath { uplink, .. } => name.clone_into(uplink),
        // No other undo has a device whose index is recorded.
        _ => {}
    }
    op
}
