//! What the fuzzers of `fuzz/` run: each target takes any bytes, and panics where a promise is broken. It is compiled for fuzzers and for
//! tests only: `cargo test` runs every target on its committed corpus. `docs/testing.md` says how to fuzz.

mod address;
mod answers;
mod asked;
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

/// Subscriptions and deliveries of signals, compared with a search through all of them.
pub fn patterns(data: &[u8]) {
    server::patterns(data);
}

/// Connections of the embedded server, and its books.
pub fn requests(data: &[u8]) {
    server::requests(data);
}

/// A shard, told anything that its driver may tell it.
pub fn shard(data: &[u8]) {
    machine::shard(data);
}

#[cfg(test)]
mod tests;
