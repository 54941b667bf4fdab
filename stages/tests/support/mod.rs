//! Shared by the tests of plans; those of the daemon take it from here, too.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "test support")]

pub mod cases;
pub mod json;
pub mod model;
