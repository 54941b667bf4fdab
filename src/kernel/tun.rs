//! The CLAT's TUN device.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clatd_stages::journal::{Left, Outcome};
use clatd_stages::net::Link;
use clatd_stages::op::NewTun;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::failure::{Failure, NOTHING, OpResult};
use super::netlink::Netlink;

/// The queues of a TUN device that this process holds open. The device goes when the last one is closed.
#[derive(Clone)]
pub(crate) struct Tun {
    /// One or more queues.
    pub(crate) queues: Vec<Arc<SyncDevice>>,
    /// Each packet has a virtio-net header in front, and may be a super-packet.
    pub(crate) offload: bool,
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tun")
            .field("queues", &self.queues.len())
            .field("offload", &self.offload)
            .finish()
    }
}

/// Makes the device and marks it as ours. Returns its queues (none if it is persistent) and the data for its undo. If
/// it fails, nothing is left: the device goes with its queues.
pub(crate) async fn create(netlink: &Netlink, new: &NewTun) -> Result<(Option<Tun>, Outcome), Failure> {
    let NewTun {
        ref device,
        ref alias,
        persistent,
        queues,
    } = *new;
    // TUNSETIFF would silently open another program's persistent device of this name.
    if let Some(link) = netlink.link(device).await? {
        let failure = Failure::new(format!(
            "a device of this name exists already, with index {}",
            link.index
        ));
        return Err(failure.hint(if link.is_clat() {
            "another clatd runs or was killed: see `clatd cleanup`".to_owned()
        } else {
            format!("choose another clat-dev, or delete it with `ip link delete {device}`")
        }));
    }
    let name = device.clone();
    let tun = tokio::task::spawn_blocking(move || open(&name, persistent, queues))
        .await?
        .map_err(|error| explain(error, device))?;
    let index = netlink
        .link(device)
        .await?
        .ok_or_else(|| Failure::new("the device disappeared right after clatd made it"))?
        .index;
    netlink.set_link_alias(index, alias).await?;
    if persistent {
        // Made persistent last, so that an unmarked device never outlives the daemon.
        for queue in &tun.queues {
            queue.persist()?;
        }
        return Ok((None, Left::Device(index).into()));
    }
    Ok((Some(tun), Left::Device(index).into()))
}

/// Why a device of ours stays.
pub(crate) const IN_USE: &str =
    "a running program has it open: most probably another clatd, or its TAYGA; stop that first";
/// How long a killed program may keep its device open.
const LINGERING: Duration = Duration::from_secs(2);
/// How often the device is looked at meanwhile.
const POLL: Duration = Duration::from_millis(20);

/// Deletes the device if it is ours. The caller has closed its queues. The record of the step identifies ours by its
/// index. Without a record, because the daemon was killed before it wrote one, a device with our alias is ours unless
/// a running program has it open.
pub(crate) async fn delete(netlink: &Netlink, device: &str, alias: &str, outcome: Option<&Outcome>) -> OpResult {
    let made = match outcome.map(|outcome| &outcome.left) {
        Some(Left::Device(index)) => Some(*index),
        Some(_) | None => None,
    };
    let links = netlink.links().await?;
    // Somebody may have renamed it, or another clatd made one of its name.
    let is_it = |link: &&Link| match made {
        Some(index) => link.index == index,
        None => link.name == device,
    };
    let ours = links
        .iter()
        .filter(|link| link.alias.as_deref() == Some(alias))
        .find(is_it);
    let Some(link) = ours else {
        return Ok(NOTHING);
    };
    if made.is_none() && in_use(netlink, link.index).await? {
        return Err(Failure::new(IN_USE));
    }
    match netlink.delete_link(link.index).await {
        Err(error) if error.errno() == libc::ENODEV => Ok(NOTHING),
        other => Ok(other.map(|()| NOTHING)?),
    }
}

/// Whether a running program has the TUN device open. Only then it has a carrier.
pub(crate) async fn in_use(netlink: &Netlink, index: u32) -> Result<bool, Failure> {
    let begun = Instant::now();
    loop {
        let links = netlink.links().await?;
        if !links.iter().any(|link| link.index == index && link.carrier) {
            return Ok(false);
        }
        if begun.elapsed() >= LINGERING {
            return Ok(true);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn open(name: &str, persistent: bool, queues: u32) -> io::Result<Tun> {
    if persistent {
        // The program that opens it next expects neither queues nor headers.
        return Ok(Tun {
            queues: vec![Arc::new(build(name, false, false)?)],
            offload: false,
        });
    }
    let wanted = match queues {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        queues => queues as usize,
    };
    let (first, offload) = match build(name, true, wanted > 1) {
        Ok(first) => (first, true),
        Err(error) if refused(&error) && wanted > 1 => match build(name, true, false) {
            Ok(first) => {
                tracing::info!(device = name, %error, "this kernel grants the TUN device one queue only");
                (first, true)
            }
            Err(error) if refused(&error) => (without_offload(name, &error)?, false),
            Err(error) => return Err(error),
        },
        Err(error) if refused(&error) => (without_offload(name, &error)?, false),
        Err(error) => return Err(error),
    };
    let mut queues = vec![Arc::new(first)];
    while queues.len() < wanted {
        match queues[0].try_clone() {
            Ok(queue) => queues.push(Arc::new(queue)),
            Err(error) => {
                tracing::info!(device = name, queues = queues.len(), wanted, %error, "the TUN device gets fewer queues");
                break;
            }
        }
    }
    Ok(Tun { queues, offload })
}

fn without_offload(name: &str, error: &io::Error) -> io::Result<SyncDevice> {
    tracing::info!(device = name, %error, "this kernel grants the TUN device no offloads; large transfers will be slower");
    build(name, false, false)
}

fn build(name: &str, offload: bool, multi_queue: bool) -> io::Result<SyncDevice> {
    let configure = |builder: &mut tun_rs::DeviceBuilderGuard<'_>| {
        builder.offload(offload).multi_queue(multi_queue);
    };
    DeviceBuilder::new()
        .name(name)
        .enable(false)
        .with(configure)
        .build_sync()
}

/// The kernel does not know the request. (Another error means that it refuses the request.)
fn refused(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::E2BIG | libc::ENOTTY)
    )
}

fn explain(error: io::Error, device: &str) -> Failure {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run clatd as root or with CAP_NET_ADMIN".to_owned(),
        Some(libc::EBUSY) => format!("another program has {device} open; choose another clat-dev"),
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => {
            "this kernel has no TUN driver, or /dev/net/tun is not there: `modprobe tun`, or give it to the container"
                .to_owned()
        }
        _ => return Failure::new(error),
    };
    Failure::new(error).hint(hint)
}
