//! Shared by the tests of the life of an instance and of many.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "test support")]

#[path = "../../stages/tests/support/cases.rs"]
pub mod cases;
pub mod changing_world;
pub mod living;
#[path = "../../stages/tests/support/model.rs"]
pub mod model;
