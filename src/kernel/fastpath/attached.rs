//! What is attached to a device, by either way.

use std::io;
use std::sync::LazyLock;

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

/// How programs are attached in this kernel: those before Linux 6.6 do not know how to list what is attached by TCX. It is
/// asked once, since the answer waits while anybody changes devices.
pub(super) fn how() -> Attachment {
    static HOW: LazyLock<Attachment> = LazyLock::new(|| match bpf::programs(LOOPBACK, Tcx::Ingress) {
        Ok(_) => Attachment::Tcx,
        Err(_) => Attachment::Clsact,
    });
    *HOW
}

/// The numbers of the programs that are attached to a CLAT device where [`Program::Out`] and [`Program::Back`] would be.
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

/// The numbers of the programs that are attached to an uplink where [`Program::In`] would be.
pub(super) async fn to_uplink(
    netlink: &Netlink,
    device: u32,
    attachment: Attachment,
) -> Result<Vec<u32>, AttachedError> {
    Ok(match attachment {
        Attachment::Tcx => by_tcx(device, Tcx::Ingress).await?,
        Attachment::Clsact => {
            let filters = netlink.filters(device, Hook::Ingress).await?;
            filters.iter().map(|filter| filter.program).collect()
        }
    })
}

/// The answer waits while anybody changes devices.
async fn by_tcx(device: u32, at: Tcx) -> io::Result<Vec<u32>> {
    let asked = tokio::task::spawn_blocking(move || bpf::programs(device, at));
    asked.await.map_err(io::Error::other)?
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
    pub(super) own: Own,
    /// To the uplink, if it was wanted.
    pub(super) uplink: Option<SchedClassifierLink>,
}

/// What is attached to a CLAT device.
pub(super) struct Own {
    /// By which way.
    pub(super) attachment: Attachment,
    pub(super) links: [SchedClassifierLink; 2],
}

/// The devices to attach to, by name.
pub(super) struct Place {
    pub(super) device: String,
    /// Whether that has clsact.
    pub(super) has_clsact: bool,
    /// None = it has the program already.
    pub(super) uplink: Option<String>,
    /// The way for uplinks.
    pub(super) attachment: Attachment,
}

impl Place {
    /// Attaches all of them. For each attachment by TCX the kernel waits until no packet uses the device's earlier list of
    /// programs (15 ms), and nobody else can change devices meanwhile.
    ///
    /// A CLAT device with clsact takes filters, which cost no wait if clsact was made one such wait earlier: the uplink is
    /// the first. They do not outlive the daemon: the device is our own, and its filters go with it.
    pub(super) fn attach(&self, loaded: &Loaded) -> Result<Links, ProgramError> {
        let on_uplink = |uplink: &String| attach(loaded, Program::In, uplink, self.attachment);
        let uplink = self.uplink.as_ref().map(on_uplink).transpose()?;
        let own = self.attach_own(loaded)?;
        Ok(Links { own, uplink })
    }

    /// A kernel may have TCX, and not the modules of clsact or of its filters.
    fn attach_own(&self, loaded: &Loaded) -> Result<Own, ProgramError> {
        let by = |attachment| {
            let out = attach(loaded, Program::Out, &self.device, attachment)?;
            let back = attach(loaded, Program::Back, &self.device, attachment)?;
            let links = [out, back];
            Ok(Own { attachment, links })
        };
        match (self.has_clsact, self.attachment) {
            (true, Attachment::Tcx) => by(Attachment::Clsact).or_else(|_: ProgramError| by(Attachment::Tcx)),
            (true, Attachment::Clsact) => by(Attachment::Clsact),
            (false, attachment) => by(attachment),
        }
    }
}

fn hook(program: Program) -> TcAttachType {
    match program {
        Program::Out => TcAttachType::Egress,
        Program::Back | Program::In => TcAttachType::Ingress,
    }
}
