//! System calls on machines for which there is no filter.

use super::Needs;
use crate::util::AnyError;

pub(super) fn refuse(_needs: &Needs) -> Result<(), AnyError> {
    tracing::debug!("there is no filter of system calls for this kind of machine");
    Ok(())
}

pub(super) fn allow_packets_only() -> Result<(), AnyError> {
    Ok(())
}

#[cfg(feature = "ebpf")]
pub(super) fn refuse_files() -> Result<(), AnyError> {
    Ok(())
}
