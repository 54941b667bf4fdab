//! Traffic control, as far as it attaches programs: the queueing discipline clsact and its filters.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use super::wire::{self, Attributes};
use super::{KernelMessage, NLM_F_CREATE, NLM_F_EXCL, Netlink, NetlinkError, with};

/// Length of `struct tcmsg`.
const HEADER: usize = 20;
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
/// The program itself decides what becomes of a packet (`TCA_BPF_FLAG_ACT_DIRECT`).
const DIRECT: u32 = 1;
/// The filter sees packets of all protocols.
const ANY: u32 = (libc::ETH_P_ALL as u16).to_be() as u32;
const IPV6: u32 = (libc::ETH_P_IPV6 as u16).to_be() as u32;
/// In front of all filters that come without a priority: the kernel chooses larger ones for them.
pub(crate) const IN_FRONT: u32 = 0x7fff;

/// Where a filter looks at packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// As they come in.
    Ingress,
    /// As they leave.
    Egress,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl Hook {
    fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// A filter that runs a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    handle: u32,
    /// Priority and protocol.
    info: u32,
    /// Its name. Whoever attached it chose that.
    pub(crate) name: String,
    /// The kernel's number of the program.
    pub(crate) program: u32,
}

impl Netlink {
    /// Makes the queueing discipline clsact. Returns false if it exists already.
    pub(crate) async fn add_clsact(&self, index: u32) -> Result<bool, NetlinkError> {
        let mut payload = header(index, CLSACT_HANDLE, CLSACT, 0);
        wire::push(&mut payload, TCA_KIND, b"clsact\0");
        match self
            .request(libc::RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, payload)
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == libc::EEXIST => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes clsact, unless it has filters.
    pub(crate) async fn delete_clsact_if_empty(&self, index: u32) -> Result<(), NetlinkError> {
        for hook in [Hook::Ingress, Hook::Egress] {
            if !self.filter_messages(index, hook).await?.is_empty() {
                return Ok(());
            }
        }
        let payload = header(index, CLSACT_HANDLE, CLSACT, 0);
        match self.request(libc::RTM_DELQDISC, 0, payload).await {
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENODEV | libc::EINVAL) => Ok(()),
            other => other.map(drop),
        }
    }

    /// The priority that a filter must have to see packets first, also if others come later without a priority of their own.
    /// None = another filter has priority 1, the first.
    pub(crate) async fn priority_in_front(&self, index: u32, hook: Hook) -> Result<Option<u32>, NetlinkError> {
        let messages = self.filter_messages(index, hook).await?;
        let first = messages.iter().filter_map(priority).min();
        let priority = first.map_or(IN_FRONT, |first| IN_FRONT.min(first - 1));
        Ok((priority > 0).then_some(priority))
    }

    /// Whether the filter that runs this program sees packets before all others. None = there is none.
    pub(crate) async fn is_in_front(&self, index: u32, hook: Hook, program: u32) -> Result<Option<bool>, NetlinkError> {
        let messages = self.filter_messages(index, hook).await?;
        let ours = messages
            .iter()
            .find(|message| parse(message).is_some_and(|filter| filter.program == program));
        let in_front = |ours| messages.iter().filter_map(priority).all(|other| other >= ours);
        Ok(ours.and_then(priority).map(in_front))
    }

    /// Makes a filter that runs this program.
    pub(crate) async fn add_filter(
        &self,
        index: u32,
        hook: Hook,
        priority: u32,
        name: &str,
        program: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        let mut options = Vec::new();
        wire::push(&mut options, TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
        wire::push(&mut options, TCA_BPF_NAME, &[name.as_bytes(), b"\0"].concat());
        wire::push(&mut options, TCA_BPF_FLAGS, &DIRECT.to_ne_bytes());
        let mut payload = header(index, 0, hook.parent(), priority << 16 | ANY);
        wire::push(&mut payload, TCA_KIND, b"bpf\0");
        wire::push(&mut payload, TCA_OPTIONS, &options);
        let made = self.request(libc::RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, payload);
        made.await.map(drop)
    }

    /// The kind of a filter of others that sees IPv6 packets as they come in or leave. Those named `ours` are not of others.
    pub(crate) async fn filter_of_others(
        &self,
        index: u32,
        hook: Hook,
        ours: &str,
    ) -> Result<Option<String>, NetlinkError> {
        let messages = self.filter_messages(index, hook).await?;
        Ok(messages.iter().find_map(|message| of_others(message, ours)))
    }

    /// The filters that run a program.
    pub(crate) async fn filters(&self, index: u32, hook: Hook) -> Result<Vec<Filter>, NetlinkError> {
        Ok(self
            .filter_messages(index, hook)
            .await?
            .iter()
            .filter_map(parse)
            .collect())
    }

    /// The kernel's numbers of the programs that run as filters as packets leave, and as they come in.
    pub(crate) async fn programs(&self, index: u32) -> Result<[Vec<u32>; 2], NetlinkError> {
        with(Arc::clone(&self.waiting), move |connection| {
            let mut on = |hook: Hook| {
                let payload = header(index, 0, hook.parent(), 0);
                let messages = some_or_none(connection.dump(libc::RTM_GETTFILTER, &payload))?;
                let filters = messages.iter().filter_map(parse);
                Ok::<_, NetlinkError>(filters.map(|filter| filter.program).collect())
            };
            Ok([on(Hook::Egress)?, on(Hook::Ingress)?])
        })
        .await
    }

    /// Removes a filter. It is no error if it is gone.
    pub(crate) async fn delete_filter(&self, index: u32, hook: Hook, filter: &Filter) -> Result<(), NetlinkError> {
        let payload = header(index, filter.handle, hook.parent(), filter.info);
        match self.request(libc::RTM_DELTFILTER, 0, payload).await {
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENODEV) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn filter_messages(&self, index: u32, hook: Hook) -> Result<Vec<KernelMessage>, NetlinkError> {
        let payload = header(index, 0, hook.parent(), 0);
        some_or_none(self.dump(libc::RTM_GETTFILTER, payload).await)
    }
}

/// Where there is no clsact, or no device, there are no filters.
fn some_or_none(dumped: Result<Vec<KernelMessage>, NetlinkError>) -> Result<Vec<KernelMessage>, NetlinkError> {
    match dumped {
        Err(error) if matches!(error.errno(), libc::EINVAL | libc::ENOENT | libc::ENODEV) => Ok(Vec::new()),
        other => other,
    }
}

/// `struct tcmsg`.
fn header(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut payload = vec![0; 4];
    for word in [index, handle, parent, info] {
        payload.extend_from_slice(&word.to_ne_bytes());
    }
    payload
}

/// The priority of a filter in chain 0, which all packets pass. Packets come to the other chains only if a filter sends
/// them there.
fn priority(message: &KernelMessage) -> Option<u32> {
    if message.kind != libc::RTM_NEWTFILTER {
        return None;
    }
    let mut attributes = Attributes(message.payload.get(HEADER..)?);
    let chain = attributes.find(|attribute| attribute.kind == TCA_CHAIN);
    let in_chain_0 = chain.is_none_or(|chain| chain.u32() == Some(0));
    let priority = wire::u32_at(&message.payload, 16)? >> 16;
    (in_chain_0 && priority > 0).then_some(priority)
}

/// The kind of a filter that sees IPv6 packets, unless it has this name.
fn of_others(message: &KernelMessage, ours: &str) -> Option<String> {
    let handle = wire::u32_at(&message.payload, 8)?;
    let protocol = wire::u32_at(&message.payload, 16)? & 0xffff;
    priority(message)?;
    if handle == 0 || ![ANY, IPV6].contains(&protocol) {
        return None;
    }
    if parse(message).is_some_and(|filter| filter.name == ours) {
        return None;
    }
    let mut attributes = Attributes(message.payload.get(HEADER..)?);
    let kind = attributes.find(|attribute| attribute.kind == TCA_KIND);
    Some(kind.map(|kind| kind.text()).unwrap_or_default())
}

/// The kernel reports each priority once without a handle, and then each of its filters.
fn parse(message: &KernelMessage) -> Option<Filter> {
    if message.kind != libc::RTM_NEWTFILTER {
        return None;
    }
    let mut filter = Filter {
        handle: wire::u32_at(&message.payload, 8)?,
        info: wire::u32_at(&message.payload, 16)?,
        name: String::new(),
        program: 0,
    };
    let mut attributes = Attributes(message.payload.get(HEADER..)?);
    for option in attributes.find(|attribute| attribute.kind == TCA_OPTIONS)?.nested() {
        match option.kind {
            TCA_BPF_NAME => filter.name = option.text(),
            TCA_BPF_ID => filter.program = option.u32()?,
            _ => {}
        }
    }
    (filter.program != 0).then_some(filter)
}
