//! The one question to nf_tables that no program answers without side effects.

use std::io;

use super::socket::{Connection, NetlinkError};
use super::wire;

/// `NFNL_SUBSYS_NFTABLES` in the high byte, `NFT_MSG_GETTABLE` in the low one.
const GET_TABLE: u16 = 10 << 8 | 1;
const NFTA_TABLE_NAME: u16 = 1;

/// Whether an nf_tables table exists. `ip6tables-save` prints a filter table whether there is one or not, and some
/// versions of `ip6tables` make one when asked to list it.
pub(crate) async fn table_exists(v6: bool, name: &str) -> Result<bool, NetlinkError> {
    // struct nfgenmsg: family, version 0, resource id 0.
    let mut payload = vec![wire::family(v6), 0, 0, 0];
    let mut name = name.as_bytes().to_vec();
    name.push(0);
    wire::push(&mut payload, NFTA_TABLE_NAME, &name);
    let ask = move || {
        let mut connection =
            Connection::open(netlink_sys::protocols::NETLINK_NETFILTER).map_err(NetlinkError::Socket)?;
        connection.request(GET_TABLE, 0, &payload)
    };
    match tokio::task::spawn_blocking(ask)
        .await
        .map_err(|error| NetlinkError::Socket(io::Error::other(error)))?
    {
        Ok(_) => Ok(true),
        // ENOENT: no such table. EOPNOTSUPP, EINVAL: a kernel without nf_tables, or without it for this family.
        Err(error) if matches!(error.errno(), libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL) => Ok(false),
        Err(NetlinkError::Socket(error)) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(false),
        Err(error) => Err(error),
    }
}
