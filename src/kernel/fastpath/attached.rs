//! What is attached to a device, by either way.

use std::io;

use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};
use clatd_stages::fast_path::Attachment;

use super::super::netlink::{Hook, Netlink, NetlinkError};
use super::programs::{Program, Programs};
use super::query::{self, Tcx};

/// The index of lo, which each network namespace has, so that an error is about the kernel.
const LOOPBACK: u32 = 1;

/// It could not be read what is attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachedError {
    /// By TCX.
    #[error("listing the programs of a device")]
    Tcx(#[from] io::Error),
    /// Of our own.
    #[error("asking for the numbers of the programs")]
    Numbers(#[from] ProgramError),
    /// As filters.
    #[error("listing the filters of a device")]
    Filters(#[from] NetlinkError),
}

/// How programs are attached in this kernel: those before Linux 6.6 do not know how to list what is attached by TCX.
pub(super) fn how() -> Attachment {
    match query::programs(LOOPBACK, Tcx::Ingress) {
        Ok(_) => Attachment::Tcx,
        Err(_) => Attachment::Clsact,
    }
}

/// The numbers of the programs that are attached where this one would be; `device` is a name and an index.
pub(super) async fn to(
    netlink: &Netlink,
    device: (&str, u32),
    program: Program,
    attachment: Attachment,
) -> Result<Vec<u32>, AttachedError> {
    Ok(match attachment {
        Attachment::Tcx => {
            let at = match hook(program) {
                TcAttachType::Egress => Tcx::Egress,
                TcAttachType::Ingress | TcAttachType::Custom(_) => Tcx::Ingress,
            };
            query::programs(device.1, at)?
        }
        Attachment::Clsact => {
            let hook = match hook(program) {
                TcAttachType::Egress => Hook::Egress,
                TcAttachType::Ingress | TcAttachType::Custom(_) => Hook::Ingress,
            };
            let filters = netlink.filters(device.1, hook).await?;
            filters.iter().map(|filter| filter.program).collect()
        }
    })
}

/// Attaches a program, behind those of others, who see all packets first. It is detached when the result is dropped.
pub(super) fn attach(
    programs: &mut Programs,
    program: Program,
    device: &str,
    attachment: Attachment,
) -> Result<SchedClassifierLink, ProgramError> {
    let options = match attachment {
        Attachment::Tcx => TcAttachOptions::TcxOrder(LinkOrder::default()),
        Attachment::Clsact => TcAttachOptions::Netlink(NlOptions::default()),
    };
    let loaded = programs.program(program)?;
    let id = loaded.attach_with_options(device, hook(program), options)?;
    loaded.take_link(id)
}

fn hook(program: Program) -> TcAttachType {
    match program {
        Program::Out => TcAttachType::Egress,
        Program::Back | Program::In => TcAttachType::Ingress,
    }
}
