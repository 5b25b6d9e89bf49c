//! What happened on a server, for tests that judge a client by it.

use tokio::time::Instant;

use crate::types::{Fence, Key, Kind, Token};

/// Something that happened, in order. The clock is that of the process, so it can be compared with what a client in the
/// same process saw.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// When.
    pub at: Instant,
    /// What.
    pub kind: EventKind,
    /// The namespace of the key. Releases in which locks and semaphores share one do not know that of a key that is not there: see
    /// [`RenewalRefused`](EventKind::RenewalRefused).
    pub namespace: Kind,
    /// The key. Servers take some that are not valid as a [`Key`]: in these, U+FFFD stands for what is not.
    pub key: Key,
    /// How many may hold the key at once: 1 for a lock, and for a key that is not there.
    pub limit: u64,
    /// The grant that it is about, where there is one; for a [`RenewalRefused`](EventKind::RenewalRefused) what the client sent.
    pub token: Option<Token>,
    /// The fence of that grant, where the release makes fences.
    pub fence: Option<Fence>,
    /// The place in a queue that it is about, where there is one: what was taken, left, or granted. Places are numbered in
    /// the order in which they were taken.
    pub place: Option<u64>,
    /// When the lease of the grant ends unless it is renewed. `None` where a lease neither begins nor begins anew.
    pub ends: Option<Instant>,
    /// The number of the connection that it is about.
    pub connection: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// A place in the queue was taken.
    Queued,
    /// A place in the queue was given up: its time was over, or its connection ended.
    Left,
    /// Granted.
    Granted,
    /// Renewed.
    Renewed,
    /// Released by its holder.
    Released,
    /// Released because its connection ended.
    Disconnected,
    /// Its lease ran out.
    Expired,
    /// Kept for the next connection under the same ref, a lease or a place in the queue: the leader has seen its connection
    /// end.
    Orphaned,
    /// What a session had went to another connection under its ref.
    Reclaimed,
    /// A new leader did not know of the lease, as it was [told](super::Cluster::forgets_tokens) not to.
    Forgotten,
    /// A test took the lease away: [`TestServer::lose`](crate::testing::TestServer::lose).
    Revoked,
    /// What a ticket was granted, at once or in the queue, was collected by its `w`: the lease begins anew. Clusters record none, as a
    /// lease runs on there.
    Collected,
    /// A renewal of a token that holds nothing was refused. It tells no fence. If the server does not know the key, the limit is 1
    /// whatever it may have been, and in releases before 1.14 the namespace is that of locks. Renewals that clients send as signs
    /// of life, of a token of 32 zeros, are not recorded.
    RenewalRefused,
}
