//! What is attached to a device, by either way.

use std::io;
use std::sync::LazyLock;

use clatd_stages::fast_path::Attachment;

use super::super::netlink::{Hook, Netlink, NetlinkError};
use crate::sys::bpf::{self, Tcx};

/// The index of lo, which each network namespace has, so that an error is about the kernel.
const LOOPBACK: u32 = 1;

/// It could not be read what is attached, or what else sees packets.
#[derive(Debug, thiserror::Error)]
pub enum AttachedError {
    /// By TCX.
    #[error("listing the programs of a device")]
    Tcx(#[from] io::Error),
    /// As filters.
    #[error("listing the filters of a device")]
    Filters(#[from] NetlinkError),
    /// IPsec policies, which see packets, too.
    #[error("listing IPsec policies")]
    Policies(#[source] NetlinkError),
}

/// How programs are attached in this kernel: those before Linux 6.6 do not know how to list what is attached by TCX. It is
/// asked once, since the answer waits while anybody changes devices.
pub(super) fn how() -> Attachment {
    static HOW: LazyLock<Attachment> = LazyLock::new(|| match bpf::programs(LOOPBACK, Tcx::Ingress) {
        Ok(_) => Attachment::Tcx,
        Err(_) => Attachment::Clsact,
    });
    *HOW
}

/// The numbers of the programs that are attached to a CLAT device where [`super::Program::Out`] and
/// [`super::Program::Back`] would be.
pub(super) async fn to_own(
    netlink: &Netlink,
    device: u32,
    attachment: Attachment,
) -> Result<[Vec<u32>; 2], AttachedError> {
    Ok(match attachment {
        Attachment::Tcx => [by_tcx(device, Tcx::Egress).await?, by_tcx(device, Tcx::Ingress).await?],
        Attachment::Clsact => netlink.programs(device).await?,
    })
}

/// Where a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Attached.
    InPlace,
    /// A filter behind filters of others.
    Behind,
    /// Not attached.
    Gone,
}

/// Where [`super::Program::In`] is, which has this number, at an uplink.
pub(super) async fn to_uplink(
    netlink: &Netlink,
    device: u32,
    attachment: Attachment,
    program: u32,
) -> Result<Standing, AttachedError> {
    Ok(match attachment {
        Attachment::Tcx if by_tcx(device, Tcx::Ingress).await?.contains(&program) => Standing::InPlace,
        Attachment::Tcx => Standing::Gone,
        Attachment::Clsact => match netlink.is_in_front(device, Hook::Ingress, program).await? {
            Some(true) => Standing::InPlace,
            Some(false) => Standing::Behind,
            None => Standing::Gone,
        },
    })
}

/// The numbers of the programs at one place of a device, in their order. The answer waits while anybody changes devices.
pub(super) async fn by_tcx(device: u32, at: Tcx) -> io::Result<Vec<u32>> {
    let asked = tokio::task::spawn_blocking(move || bpf::programs(device, at));
    asked.await.map_err(io::Error::other)?
}
