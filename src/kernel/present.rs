//! Devices under their present names. An operation names its device. Where that was renamed since, its undo finds it under
//! the new name, and leaves another device alone that has the old one now. So what an operation did is recorded with the
//! index of its device.

use std::borrow::Cow;

use clatd_stages::journal::Outcome;
use clatd_stages::op::Op;
use serde_json::{Value, json};

use super::netlink::{Netlink, NetlinkError};
use super::ops::nature;
use super::sysctl::{device_of, of_device};

const INDEX: &str = "ifindex";
/// Of several devices, by the names that they had.
const INDEXES: &str = "ifindexes";

/// What an operation left, with the index of its device.
pub(super) fn with_index(mut outcome: Outcome, index: Option<u32>) -> Outcome {
    if let Some(index) = index {
        if outcome.is_null() {
            outcome = json!({});
        }
        outcome[INDEX] = json!(index);
    }
    outcome
}

/// The same with the indexes of several devices.
pub(super) fn with_indexes<'a>(mut outcome: Outcome, devices: impl IntoIterator<Item = (&'a str, u32)>) -> Outcome {
    let indexes: serde_json::Map<String, Value> = devices
        .into_iter()
        .map(|(name, index)| (name.to_owned(), json!(index)))
        .collect();
    if !indexes.is_empty() {
        outcome[INDEXES] = Value::Object(indexes);
    }
    outcome
}

/// The index of the device that an operation changed. Journals of older versions have none.
pub(super) fn index(outcome: Option<&Outcome>) -> Option<u32> {
    number(outcome?.get(INDEX)?)
}

/// An index as an outcome has it.
pub(super) fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|index| u32::try_from(index).ok())
}

/// An undo with the present names of its devices; `None` = its device is gone, and with it what was done to it.
pub(super) async fn renamed<'a>(
    netlink: &Netlink,
    op: &'a Op,
    outcome: &Outcome,
) -> Result<Option<Cow<'a, Op>>, NetlinkError> {
    if let (Op::ReleaseSysctl { .. }, Some(Value::Object(indexes))) = (op, outcome.get(INDEXES)) {
        return Ok(Some(Cow::Owned(giving_back_by_index(netlink, op, indexes).await?)));
    }
    let before = match op {
        Op::ReleaseSysctl { key, .. } => device_of(key),
        op => nature(op).device,
    };
    let (Some(before), Some(index)) = (before, index(Some(outcome))) else {
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
async fn giving_back_by_index(
    netlink: &Netlink,
    op: &Op,
    indexes: &serde_json::Map<String, Value>,
) -> Result<Op, NetlinkError> {
    let mut op = op.clone();
    if let Op::ReleaseSysctl { give_back, .. } = &mut op {
        for (key, value) in std::mem::take(give_back) {
            let known = device_of(&key).and_then(|device| number(indexes.get(device)?));
            let now = match known {
                None => Some(key),
                Some(index) => netlink.name(index).await?.map(|now| of_device(&key, &now)),
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
