//! The actors: one per shard, which runs the shard's machine and its connections, and a router that supervises and
//! restarts them.

mod restarts;
pub(crate) mod router;
pub(crate) mod shard;
pub(crate) mod topology;
