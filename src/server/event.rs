//! Events on a server, for tests that check a client against them.

use tokio::time::Instant;

use crate::types::{Fence, Key, Kind, Token};

/// An event on a server. Events are in order. Their times come from the clock of the process, so they can be compared
/// with times that a client in the same process measured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The time of the event.
    pub at: Instant,
    /// The kind of event.
    pub kind: EventKind,
    /// The namespace of the key. If the key is unknown, and if locks and semaphores share one namespace in this
    /// release, this is [`Kind::Lock`]: see [`RenewalRefused`](EventKind::RenewalRefused).
    pub namespace: Kind,
    /// The key. Servers accept some keys that are not valid as a [`Key`]; in these, U+FFFD replaces each invalid part.
    pub key: Key,
    /// The number of holders that the key can have at once: 1 for a lock and for an unknown key.
    pub limit: u64,
    /// The grant that the event is about, if any; for a [`RenewalRefused`](EventKind::RenewalRefused), the token that
    /// the client sent.
    pub token: Option<Token>,
    /// The fence of that grant, if the release makes fences.
    pub fence: Option<Fence>,
    /// The queue position that was taken, left or granted, if any. Queue positions are numbered in the order in which
    /// they were taken.
    pub place: Option<u64>,
    /// The end of the grant's lease if it is not renewed. `None` if the event does not start or restart a lease.
    pub ends: Option<Instant>,
    /// The number of the connection that the event is about.
    pub connection: u64,
}

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// A waiter took a queue position.
    Queued,
    /// A waiter left its queue position without a grant: its wait timed out, its connection or its orphan TTL ended,
    /// the server began to shut down, or a new leader forgot the position.
    Left,
    /// A lease was granted.
    Granted,
    /// A lease was renewed.
    Renewed,
    /// The holder released its lease.
    Released,
    /// The server released a lease because its connection ended.
    Disconnected,
    /// A lease expired.
    Expired,
    /// The leader saw a connection end, and keeps its lease or queue position for the orphan TTL. If the connection
    /// presented a ref, the next connection with the same ref can reclaim it.
    Orphaned,
    /// A lease or queue position of a session moved to another connection with the same ref.
    Reclaimed,
    /// A new leader did not know the lease, as the test [requested](super::Cluster::forgets_tokens).
    Forgotten,
    /// A test ended the lease: [`TestServer::lose`](crate::testing::TestServer::lose).
    Revoked,
    /// A `w` collected the grant of a ticket, which was made at once or in the queue: its lease starts again. Cluster
    /// builds record no such event, because they do not restart the lease.
    Collected,
    /// The server refused a renewal because its token belongs to no lease. The event has no fence. If the server does
    /// not know the key, the limit is 1 whatever it was before, and in releases before 1.14 the namespace is that of
    /// locks. Renewals that clients send as a heartbeat, with a token of 32 zeros, are not recorded.
    RenewalRefused,
}
