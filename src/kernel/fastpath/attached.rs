//! What is attached to a device, by either way.

use std::io;

use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};
use clatd_stages::fast_path::Attachment;

use super::super::netlink::{Hook, Netlink, NetlinkError};
use super::programs::{Loaded, Program};
use crate::sys::bpf::{self, Tcx};

/// The index of lo, which each network namespace has, so that an error is about the kernel.
const LOOPBACK: u32 = 1;

/// It could not be read what is attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachedError {
    /// By TCX.
    #[error("listing the programs of a device")]
    Tcx(#[from] io::Error),
    /// As filters.
    #[error("listing the filters of a device")]
    Filters(#[from] NetlinkError),
}

/// How programs are attached in this kernel: those before Linux 6.6 do not know how to list what is attached by TCX.
pub(super) fn how() -> Attachment {
    match bpf::programs(LOOPBACK, Tcx::Ingress) {
        Ok(_) => Attachment::Tcx,
        Err(_) => Attachment::Clsact,
    }
}

/// The numbers of the programs that are attached to a device where this one would be.
pub(super) async fn to(
    netlink: &Netlink,
    device: u32,
    program: Program,
    attachment: Attachment,
) -> Result<Vec<u32>, AttachedError> {
    Ok(match attachment {
        Attachment::Tcx => {
            let at = match hook(program) {
                TcAttachType::Egress => Tcx::Egress,
                TcAttachType::Ingress | TcAttachType::Custom(_) => Tcx::Ingress,
            };
            bpf::programs(device, at)?
        }
        Attachment::Clsact => {
            let hook = match hook(program) {
                TcAttachType::Egress => Hook::Egress,
                TcAttachType::Ingress | TcAttachType::Custom(_) => Hook::Ingress,
            };
            let filters = netlink.filters(device, hook).await?;
            filters.iter().map(|filter| filter.program).collect()
        }
    })
}

/// Attaches a program, behind those of others, who see all packets first. It is detached when the result is dropped.
fn attach(
    loaded: &Loaded,
    program: Program,
    device: &str,
    attachment: Attachment,
) -> Result<SchedClassifierLink, ProgramError> {
    let options = match attachment {
        Attachment::Tcx => TcAttachOptions::TcxOrder(LinkOrder::default()),
        Attachment::Clsact => TcAttachOptions::Netlink(NlOptions::default()),
    };
    loaded.with(program, |loaded| {
        let id = loaded.attach_with_options(device, hook(program), options)?;
        loaded.take_link(id)
    })
}

/// What is attached for an instance.
pub(super) struct Links {
    /// To the CLAT device.
    pub(super) own: [SchedClassifierLink; 2],
    /// To the uplink, if it was wanted.
    pub(super) uplink: Option<SchedClassifierLink>,
}

/// The devices to attach to, by name.
pub(super) struct Place {
    pub(super) device: String,
    /// None = it has the program already.
    pub(super) uplink: Option<String>,
    pub(super) attachment: Attachment,
}

impl Place {
    /// Attaches all of them. This is slow: for each attachment by TCX the kernel waits until no packet uses the device's
    /// earlier list of programs, and nobody else can change devices meanwhile.
    pub(super) fn attach(&self, loaded: &Loaded) -> Result<Links, ProgramError> {
        let to = |program, device: &str| attach(loaded, program, device, self.attachment);
        let own = [to(Program::Out, &self.device)?, to(Program::Back, &self.device)?];
        let on_uplink = |uplink: &String| to(Program::In, uplink);
        let uplink = self.uplink.as_ref().map(on_uplink).transpose()?;
        Ok(Links { own, uplink })
    }
}

fn hook(program: Program) -> TcAttachType {
    match program {
        Program::Out => TcAttachType::Egress,
        Program::Back | Program::In => TcAttachType::Ingress,
    }
}
