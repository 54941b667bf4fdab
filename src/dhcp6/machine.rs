//! What distinguishes this machine from others, for the DUID and for addresses that are the same after a restart.

use std::path::Path;

use clatd_stages::dhcp6::{Duid, iaid};

use crate::trusted;

/// A value that stays the same on this machine: `/etc/machine-id`, else the hardware address of `device`, else a
/// value for this boot. It is for hashing only.
pub fn machine_identity(device: &str) -> Vec<u8> {
    let read = |path: &str| {
        trusted::read_foreign(Path::new(path))
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let is_id = |id: &String| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_address = |address: &String| address.bytes().any(|byte| !matches!(byte, b'0' | b':'));
    read("/etc/machine-id")
        .filter(is_id)
        .or_else(|| read(&format!("/sys/class/net/{device}/address")).filter(is_address))
        .or_else(boot_id)
        .unwrap_or_default()
        .into_bytes()
}

/// Who we are on this uplink.
pub(super) fn client(device: &str) -> (Duid, u32) {
    (Duid::from_machine(&machine_identity(device)), iaid(device))
}

/// Another one with every start of the computer.
pub(super) fn boot_id() -> Option<String> {
    let id = trusted::read_foreign(Path::new("/proc/sys/kernel/random/boot_id")).ok()?;
    Some(id.trim().to_owned())
}
