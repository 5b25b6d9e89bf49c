//! What the state of a server counts: keys, connections, leases and places.

use super::name::Name;
use crate::types::Kind;

/// A key in its namespace.
pub(super) type QualifiedKey = (Kind, Name);

/// Names a connection, or what is left of one: see [`in_term`].
pub(super) type ConnectionId = u64;

/// Names a lease, in the order in which leases were granted.
pub(super) type GrantId = u64;

/// Names a place in a queue, in the order in which places were taken.
pub(super) type Place = u64;

/// A connection that is left behind by a leader may go on, and do so again in a later term: what it had then is another
/// client, whose name says when that was in the upper bits.
const NUMBER_BITS: u32 = 40;

/// The client that a connection was in that term.
pub(super) fn in_term(connection: ConnectionId, term: u64) -> ConnectionId {
    term << NUMBER_BITS | connection
}

/// The number of a client's connection.
pub(super) fn number(client: ConnectionId) -> u64 {
    client & ((1 << NUMBER_BITS) - 1)
}
