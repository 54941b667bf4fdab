//! Calls of the system that no safe library among our dependencies has. This folder alone has `unsafe` code: small
//! functions that are safe to call, whatever they are given.

#![allow(unsafe_code)]

#[cfg(feature = "ebpf")]
pub(crate) mod bpf;
pub(crate) mod child;
pub(crate) mod device;
pub(crate) mod memory;
pub(crate) mod packet;
pub(crate) mod socket;
