//! Shared by the tests of plans and of the life of an instance.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "test support")]

pub mod cases;
pub mod changing_world;
pub mod model;
