//! What the state of a server counts: keys, connections, leases and places.

use super::name::Name;
use crate::types::Kind;

/// A key in its namespace.
pub(super) type QualifiedKey = (Kind, Name);

/// Names a key as long as the server knows it. A key that was forgotten has another one when it is used again. In the order in which
/// keys came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyId {
    pub(super) serial: u64,
    pub(super) slot: usize,
}

/// Names a connection.
pub(super) type ConnectionId = u64;

/// Names a lease, in the order in which leases were granted.
pub(super) type GrantId = u64;

/// Names a place in a queue, in the order in which places were taken.
pub(super) type Place = u64;
