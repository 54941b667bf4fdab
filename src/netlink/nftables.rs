//! The one question to nf_tables that no program answers without side effects, and the events of its changes.

use clatd_stages::net::ALIAS_PREFIX;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::events::{NetlinkEvent, messages};
use super::socket::{Connection, NetlinkError, none_if_unknown, on_blocking_thread};
use super::wire::{self, Attributes};

/// `NFNL_SUBSYS_NFTABLES` in the high byte, `NFT_MSG_GETTABLE` in the low one.
const GET_TABLE: u16 = 10 << 8 | 1;
const NFTA_TABLE_NAME: u16 = 1;

/// Whether an nf_tables table exists. `ip6tables-save` prints a filter table even if there is none, and some versions
/// of `ip6tables` create one when they list it.
pub(crate) async fn table_exists(v6: bool, name: &str) -> Result<bool, NetlinkError> {
    // struct nfgenmsg: family, version 0, resource id 0.
    let mut payload = vec![wire::family(v6), 0, 0, 0];
    let mut name = name.as_bytes().to_vec();
    name.push(0);
    wire::push(&mut payload, NFTA_TABLE_NAME, &name);
    let ask = move || {
        let mut connection = Connection::open(NETLINK_NETFILTER).map_err(NetlinkError::Socket)?;
        connection.request(GET_TABLE, 0, &payload)
    };
    // A kernel may be without nf_tables, or without it for this family.
    match none_if_unknown(on_blocking_thread(ask).await) {
        Ok(found) => Ok(found.is_some()),
        Err(error) if error.errno() == libc::ENOENT => Ok(false),
        Err(error) => Err(error),
    }
}

/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;
const SUBSYSTEM: u16 = 10;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_USERDATA: u16 = 7;
/// The comment in a rule's user data, as nft writes it.
const UDATA_COMMENT: u8 = 0;
const NFPROTO_IPV6: u8 = 10;

/// What kind of change an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NftChange {
    /// A rule was added or replaced.
    RuleAdded,
    /// A rule was deleted.
    RuleGone,
    /// Tables, chains, sets or maps came or went.
    Structure,
    /// Elements of a set or map were added or removed.
    Elements,
    /// Nothing that filters: the end of a transaction, counters, flow tables.
    Nothing,
}

/// An event of nf_tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NftEvent {
    /// What kind of change.
    pub(crate) change: NftChange,
    /// Whether its table is of family ip6.
    pub(crate) v6: bool,
    /// The family as nft calls it.
    pub(crate) family: &'static str,
    /// The table.
    pub(crate) table: String,
    /// For a rule its chain, for set elements their set.
    pub(crate) name: String,
    /// The comment of a rule.
    pub(crate) comment: String,
    /// The handle of a rule.
    pub(crate) handle: u64,
}

impl NftEvent {
    /// Whether it is about a rule of ours.
    pub(crate) fn is_ours(&self) -> bool {
        self.comment.starts_with(ALIAS_PREFIX)
    }
}

/// The events in a datagram.
pub(crate) fn nft_events(datagram: &[u8]) -> impl Iterator<Item = NftEvent> {
    messages(datagram).filter_map(parse)
}

fn parse(event: NetlinkEvent<'_>) -> Option<NftEvent> {
    let [subsystem, message] = [event.kind >> 8, event.kind & 0xff];
    // NFT_MSG_... of linux/netfilter/nf_tables.h; the odd ones are questions.
    let change = match message {
        _ if subsystem != SUBSYSTEM => return None,
        0 | 2 | 3 | 5 | 9 | 11 => NftChange::Structure,
        6 => NftChange::RuleAdded,
        8 => NftChange::RuleGone,
        12 | 14 => NftChange::Elements,
        _ => NftChange::Nothing,
    };
    let family = *event.payload.first()?;
    let attributes = Attributes(event.payload.get(HEADER..)?);
    let find = |kind| attributes.clone().find(|attribute| attribute.kind == kind);
    let text = |kind| find(kind).map(|attribute| attribute.text()).unwrap_or_default();
    let of_rule = matches!(change, NftChange::RuleAdded | NftChange::RuleGone);
    let handle = find(NFTA_RULE_HANDLE).filter(|_| of_rule);
    let comment = find(NFTA_RULE_USERDATA).filter(|_| of_rule);
    Some(NftEvent {
        change,
        v6: family == NFPROTO_IPV6,
        family: match family {
            1 => "inet",
            2 => "ip",
            3 => "arp",
            5 => "netdev",
            7 => "bridge",
            NFPROTO_IPV6 => "ip6",
            _ => "",
        },
        // In all of these messages the first two attributes are NFTA_..._TABLE and the name of the chain or set.
        table: text(1),
        name: text(2),
        comment: comment.and_then(|data| comment_in(data.value)).unwrap_or_default(),
        handle: handle
            .and_then(|attribute| attribute.value.try_into().ok())
            .map_or(0, u64::from_be_bytes),
    })
}

/// The comment in user data: type, length and value, one after another.
fn comment_in(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        data = rest.get(usize::from(*length)..)?;
    }
    None
}
