//! What is to be known of each operation besides how it is done, in one place. How it is done is in the files of its
//! family, whether it still stands in `src/world/drift.rs`.

use clatd_stages::op::Op;

/// What is known of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nature<'a> {
    /// The kernel tells nobody when somebody undoes it: there are no events of proxy neighbour entries, of most sysctls,
    /// of files and of the fast path's programs. So it is looked at now and then.
    pub(crate) untold: bool,
    /// It changes all or, where it fails, nothing. The others make several changes, start something that runs, or count
    /// holders.
    pub(crate) atomic: bool,
    /// The device whose index is recorded with what was done to it. Holds on sysctls record it by themselves. Rules,
    /// packet filters and our own devices know devices by name only, or go with them.
    pub(crate) device: Option<&'a str>,
}

/// What is known of this one.
pub(crate) fn nature(op: &Op) -> Nature<'_> {
    const UNTOLD: bool = true;
    const TOLD: bool = false;
    const ATOMIC: bool = true;
    const PARTS: bool = false;
    let of = |untold, atomic, device| Nature { untold, atomic, device };
    match op {
        Op::CreateTun { .. } => of(TOLD, ATOMIC, None),
        Op::DeleteTun { .. } | Op::SetLinkUp { .. } => of(TOLD, PARTS, None),
        Op::AddAddress { device, .. } | Op::RemoveAddress { device, .. } => of(TOLD, ATOMIC, Some(device)),
        Op::SetDeviceSysctl { .. } | Op::HoldSysctl { .. } => of(UNTOLD, PARTS, None),
        Op::HoldOnDevices(_) => of(UNTOLD, ATOMIC, None),
        Op::ReleaseSysctl { .. } | Op::ReleaseOnDevices(_) => of(TOLD, PARTS, None),
        Op::AddProxyNeighbour { device, .. } => of(UNTOLD, ATOMIC, Some(device)),
        Op::RemoveProxyNeighbour { device, .. } => of(TOLD, ATOMIC, Some(device)),
        // The socket that joined the address is found by the name that the device had.
        Op::JoinAnycast { .. } | Op::LeaveAnycast { .. } => of(TOLD, ATOMIC, None),
        Op::AddRoute { route } | Op::RemoveRoute { route } => of(TOLD, ATOMIC, route.device.as_deref()),
        Op::AddRule { .. } | Op::RemoveRule { .. } => of(TOLD, ATOMIC, None),
        Op::HoldLocalRule {} | Op::ReleaseLocalRule {} => of(TOLD, PARTS, None),
        Op::InsertNftRule { .. }
        | Op::RemoveNftRule { .. }
        | Op::CreateNftTable { .. }
        | Op::DeleteNftTable { .. }
        | Op::InsertIp6tables { .. }
        | Op::DeleteIp6tables { .. } => of(TOLD, ATOMIC, None),
        Op::WriteFile { .. } => of(UNTOLD, ATOMIC, None),
        Op::RemoveFile { .. } | Op::Nothing { .. } => of(TOLD, ATOMIC, None),
        Op::RunScript { .. } | Op::StartTranslator { .. } | Op::StopTranslator { .. } | Op::SetNextHop { .. } => {
            of(TOLD, PARTS, None)
        }
        Op::AttachFastPath { fast_path } => of(UNTOLD, PARTS, Some(&fast_path.uplink)),
        Op::DetachFastPath { uplink, .. } => of(TOLD, PARTS, Some(uplink)),
    }
}
