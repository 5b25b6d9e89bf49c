//! The actors: one per shard that runs the shard's machine and its connections, and a router above them that keeps them alive.

mod restarts;
pub(crate) mod router;
pub(crate) mod shard;
pub(crate) mod topology;
