//! The targets of the fuzzers in `fuzz/`: each takes any bytes and panics if a guarantee is violated. They are
//! compiled only for fuzzers and tests: `cargo test` runs every target on its committed corpus. `docs/testing.md`
//! describes how to fuzz.

mod address;
mod answers;
mod asked;
mod escapes;
mod lane;
mod pem;
pub(crate) mod pieces;
pub(crate) mod socket;
mod stats;
mod url;

pub use self::address::address;
pub use self::answers::answers;
pub use self::lane::lane;
pub use self::pem::pem;
pub use self::stats::stats;
pub use self::url::url;
use crate::server::fuzzing as server;
use crate::shard::fuzzing as machine;

/// Compares the delivery of signals with a search through all subscriptions.
pub fn patterns(data: &[u8]) {
    server::patterns(data);
}

/// Runs connections of the embedded server and checks its state.
pub fn requests(data: &[u8]) {
    server::requests(data);
}

/// Runs a shard with any inputs that its driver may give it.
pub fn shard(data: &[u8]) {
    machine::shard(data);
}

#[cfg(test)]
mod tests;
