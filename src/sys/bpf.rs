//! The numbers of the programs that are attached to a device by TCX. To read them takes CAP_NET_ADMIN. aya's own query
//! also opens each program, which takes CAP_SYS_ADMIN, and a hardened clatd does not have that.

use std::io;

/// Where a program is attached: `enum bpf_attach_type` of linux/bpf.h.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum Tcx {
    Ingress = 46,
    Egress = 47,
}

/// `BPF_PROG_QUERY` of `enum bpf_cmd`.
const PROG_QUERY: libc::c_int = 16;
/// More than anybody attaches to one device (the kernel allows 64).
const MOST: usize = 64;

/// The part `query` of `union bpf_attr`.
#[derive(Debug, Default)]
#[repr(C)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The numbers of the programs of the device with this index, in their order.
pub(crate) fn programs(index: u32, at: Tcx) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MOST];
    let mut query = Query {
        target_ifindex: index,
        attach_type: at as u32,
        prog_ids: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        ..Query::default()
    };
    // SAFETY: bpf(2) reads and writes the structure, whose size it is told, and writes at most `count` numbers to
    // `prog_ids`, which has room for so many. Both live until it returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let count = usize::try_from(query.count).unwrap_or(MOST).min(MOST);
    Ok(ids[..count].to_vec())
}
