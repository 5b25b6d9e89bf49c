//! Identifiers of a shard's connections, leases and queue positions.

use crate::types::{Key, Target};

/// Identifies a connection of one shard. Later connections have greater identifiers.
pub(crate) type LaneId = u64;

/// Identifies a ticket of one shard.
pub(crate) type TicketId = u64;

/// The key of a wait: a lock, or a semaphore with this limit.
pub(crate) type WaitKey = (Target, Key);

/// A wait's position in this client's order of arrival.
pub(crate) type Arrival = u64;

/// Identifies a lease of one shard. An identifier is never reused for another lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}
