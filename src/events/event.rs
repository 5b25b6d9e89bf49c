//! What a client tells of itself.

use std::sync::Arc;

use crate::error::Error;
use crate::lease::cell::LostReason;
use crate::net::failover::FailoverReason;
use crate::types::{Fence, Key, Kind};

/// Something that happened to a client. [`Client::events`](crate::Client::events) is the stream of them.
///
/// A `shard` is the index of a shard, from 0 on, in the order in which they were given.
///
/// **Order.** Each task of the client tells what it does in the order in which it does it: a shard its connections and leases, a connection for
/// signals its gaps, an attempt to connect that the secret is refused. Holders come first: when a connection ends, or another server serves,
/// the [`LeaseLost`](Self::LeaseLost) of each lease that goes with it comes before [`Disconnected`](Self::Disconnected) or
/// [`ServingChanged`](Self::ServingChanged), and [`Connected`](Self::Connected) last. The [health](crate::Client::watch_health) of a shard has
/// changed when the event says so.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A shard is connected: requests can be sent.
    Connected {
        /// The shard.
        shard: usize,
        /// The server that serves it.
        endpoint: Arc<str>,
    },
    /// A shard is not connected any more. Attempts to connect begin.
    Disconnected {
        /// The shard.
        shard: usize,
        /// The server that served it.
        endpoint: Arc<str>,
        /// Why.
        cause: Error,
    },
    /// An attempt to connect failed. Attempts go on.
    Reconnecting {
        /// The shard.
        shard: usize,
        /// The server that is tried next.
        endpoint: Arc<str>,
        /// How many attempts have failed, at any of its servers, since a connection was last of use.
        attempt: u32,
        /// Why this one failed.
        error: Error,
    },
    /// Another of its [servers](crate::Shard) serves a shard.
    ServingChanged {
        /// The shard.
        shard: usize,
        /// The server that serves it now.
        endpoint: Arc<str>,
        /// Why the one before does not any more.
        reason: FailoverReason,
    },
    /// A server refuses the secret; or the client has no secret and the server requires one; or the server takes no secrets. Emitted at the
    /// first refusal, on a connection of any kind; and again only after that server has accepted the client in between.
    AuthRefused {
        /// The shard.
        shard: usize,
        /// The server, as far as it is known.
        endpoint: Arc<str>,
        /// What it said.
        error: Error,
    },
    /// A shard is closed, for ever.
    Closed {
        /// The shard.
        shard: usize,
        /// Why.
        cause: Error,
    },
    /// A lease was lost while it was held.
    LeaseLost(LeaseLost),
    /// A lease could not be renewed this time. It is tried again while there is time.
    RenewalFailed(RenewalFailed),
    /// All connections for waits are in use, and a further caller waits: see
    /// [`exclusive_connections`](crate::ClientBuilder::exclusive_connections). Emitted when that begins.
    WaitBoundReached {
        /// The shard.
        shard: usize,
        /// Which bound it was.
        bound: WaitBound,
    },
    /// A connection with subscriptions to signals was lost, so that signals may be missed until its consumer is told
    /// [`Restored`](crate::SignalEvent::Restored).
    SignalsGap {
        /// The shard.
        shard: usize,
        /// Why.
        cause: Error,
    },
    /// The stream was not read in time: so many events that came before the next one are missing in it.
    Missed {
        /// How many.
        count: u64,
    },
}

/// A lease that was lost while it was held: see [`ClientEvent::LeaseLost`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaseLost {
    /// The shard of its key.
    pub shard: usize,
    /// Its key.
    pub key: Key,
    /// Whether it is of a lock or of a semaphore.
    pub kind: Kind,
    /// Its fence, where the server is known to make them.
    pub fence: Option<Fence>,
    /// Why it was lost.
    pub reason: LostReason,
}

/// A lease that could not be renewed: see [`ClientEvent::RenewalFailed`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RenewalFailed {
    /// The shard of its key.
    pub shard: usize,
    /// Its key.
    pub key: Key,
    /// Whether it is of a lock or of a semaphore.
    pub kind: Kind,
    /// What the server answered, or why it could not.
    pub error: Error,
}

/// Why there is no connection for callers that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitBound {
    /// As many connections carry waits as [may](crate::ClientBuilder::exclusive_connections).
    ExclusiveConnections,
    /// The server takes no more connections.
    ServerConnections,
}
