//! Capabilities (capabilities(7)): all but a few are given up, for good.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::unistd::geteuid;

use super::Needs;
use crate::kernel::engine::STEPS;
use crate::util::AnyError;

/// What every clatd needs: devices, addresses, routes, rules and packet filters; raw sockets.
const ALWAYS: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];
/// What loads programs into the kernel.
const BPF: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_PERFMON];
/// What a script that root runs takes for granted: other people's files, and `su`.
const SCRIPTS: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
];
/// What runs a script as another user, and ends it.
const OTHER_USER: [Capability; 3] = [Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_KILL];

/// Keeps what is needed of what there is.
pub(super) fn keep(needs: &Needs) -> Result<(), AnyError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = wanted(needs)
        .into_iter()
        .filter(|wanted| permitted.contains(wanted))
        .collect();
    bound(&kept)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    if geteuid().is_root() {
        // Programs that root runs get what is permitted here without being told.
        return Ok(());
    }
    // The programs that another user runs (nft, ip6tables) get nothing by themselves.
    caps::set(None, CapSet::Inheritable, &kept)?;
    for capability in ALWAYS.into_iter().filter(|one| kept.contains(one)) {
        caps::raise(None, CapSet::Ambient, capability)?;
    }
    Ok(())
}

/// Gives up all of them, in the calling thread.
pub(super) fn give_up_all() -> Result<(), AnyError> {
    caps::clear(None, CapSet::Effective)?;
    caps::clear(None, CapSet::Permitted)?;
    Ok(())
}

fn wanted(needs: &Needs) -> Vec<Capability> {
    let mut wanted = ALWAYS.to_vec();
    if !threads_may_be_raised() {
        wanted.push(Capability::CAP_SYS_NICE);
    }
    if needs.bpf {
        wanted.extend(BPF);
    }
    if needs.low_ports {
        wanted.push(Capability::CAP_NET_BIND_SERVICE);
    }
    if needs.control_group {
        wanted.push(Capability::CAP_CHOWN);
    }
    if needs.scripts {
        wanted.extend(SCRIPTS);
    }
    if needs.script_user {
        wanted.extend(OTHER_USER);
    }
    wanted
}

/// Takes the rest out of the bounding set, so that no program can bring them back. Only who has CAP_SETPCAP can, and
/// without it `no new privileges` keeps programs from them.
fn bound(kept: &CapsHashSet) -> Result<(), AnyError> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        return Ok(());
    }
    let mut rest: Vec<Capability> = caps::all().difference(kept).copied().collect();
    rest.sort_unstable_by_key(Capability::index);
    for capability in rest {
        // An older kernel does not know all of them.
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    Ok(())
}

/// Lets threads be put ahead of others without a capability: up to a limit, which is set here where that is allowed.
fn threads_may_be_raised() -> bool {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NICE) else {
        return false;
    };
    // setrlimit(2): the ceiling of the niceness is 20 less the limit.
    let wanted = 20 + STEPS.unsigned_abs() as rlim_t;
    soft >= wanted || setrlimit(Resource::RLIMIT_NICE, wanted, hard.max(wanted)).is_ok()
}
