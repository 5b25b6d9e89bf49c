//! What the shard's connections, leases and places in queues are called.

use crate::types::{Key, Target};

/// Names a connection of one shard. A later connection has a greater name.
pub(crate) type LaneId = u64;

/// Names a ticket of one shard.
pub(crate) type TicketId = u64;

/// What a caller waits for: a key, as a lock or as a semaphore of that limit.
pub(crate) type WaitKey = (Target, Key);

/// A wait's position in the order of arrival within this client.
pub(crate) type Arrival = u64;

/// Names a lease of one shard. Never used again for another lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}
