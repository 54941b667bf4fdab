//! Shared by the tests of plans and of the life of an instance.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod cases;
pub mod changing_world;
pub mod model;
