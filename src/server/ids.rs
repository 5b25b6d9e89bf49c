//! Identifiers in the state of a server: of keys, connections, leases and queue positions.

use super::name::Name;
use crate::types::Kind;

/// A key in its namespace.
pub(super) type QualifiedKey = (Kind, Name);

/// Identifies a key while the server knows it. A key that was forgotten gets another identifier when it is used again.
/// Identifiers are ordered by the time at which the keys were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyId {
    pub(super) serial: u64,
    pub(super) slot: usize,
}

/// Identifies a connection.
pub(super) type ConnectionId = u64;

/// Identifies a lease, in the order of the grants.
pub(super) type GrantId = u64;

/// Identifies a queue position, in the order in which positions were taken.
pub(super) type Place = u64;
