//! Neighbour discovery for addresses that are on no device: the messages (RFC 4861) and duplicate address detection
//! (RFC 4862 section 5.4, RFC 7527), as bytes and events. `src/probe` moves them over the link.

mod defence;
mod detector;
mod message;

pub use defence::{Defence, MOST_MOVES, Moves, Reaction};
pub use detector::{Actions, Conflict, ConflictSign, Detector, Input, Next, Parameters, claim};
pub use message::{Advertisement, LinkAddress, NdError, NdMessage, Nonce, Solicitation, solicited_node};

#[cfg(test)]
mod tests;
