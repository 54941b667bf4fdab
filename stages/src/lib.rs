//! clatd's pipeline as data: what is observed (facts), what is done about it (a plan of operations, each with its
//! undo), how a plan is carried out and taken back, and the journal of it. One module per stage. No I/O: the system
//! is read through [`world::World`] and changed through [`apply::System`].

pub mod apply;
pub mod claims;
pub mod counters;
pub mod facts;
#[cfg(any(test, feature = "testing"))]
pub mod fixed_world;
pub mod health;
pub mod journal;
pub mod metrics;
pub mod net;
pub mod op;
mod outcome;
pub mod path;
pub mod pipeline;
pub mod plan;
pub mod settings;
mod shared;
pub mod stage;
pub mod status;
pub mod world;

pub mod address;
pub mod conncheck;
pub mod device;
pub mod dhcp6;
pub mod discovery;
pub mod doctor;
pub mod fast_path;
pub mod firewall;
pub mod nd;
pub mod proxynd;
pub mod ra;
pub mod reservations;
pub mod route;
pub mod script;
pub mod sysctl;
pub mod translator;
mod uplink;
pub mod validity;
pub mod vrf;
