//! The actors: one per shard that owns its connections and leases, and a router above them that keeps them alive.

mod lanes;
pub(crate) mod message;
mod metrics;
pub(crate) mod progress;
pub(crate) mod router;
pub(crate) mod shard;
pub(crate) mod topology;
mod waits;
