//! What can be asked of a client, and what it answers.

use std::fmt;
use std::time::Duration;

use crate::guard::Lease;
use crate::lease::registry::RenewPolicy;
use crate::stats::Stats;
use crate::ticket::QueuePlace;
use crate::types::{Key, Target, Ttl};

/// An operation. The handles ([`Lock`](crate::Lock) and the others) make these.
#[derive(Debug)]
#[non_exhaustive]
pub enum Request {
    /// Acquires a lock or a slot. Answered with [`Response::Granted`] or [`Response::Busy`].
    Acquire(AcquireRequest),
    /// Acquires it if it is free, and takes a place in its queue if not; does not wait. Answered with
    /// [`Response::Granted`] or [`Response::Queued`].
    Enqueue(AcquireRequest),
    /// Waits at a place that `Enqueue` gave, once. Answered with [`Response::Granted`].
    Collect {
        /// The place.
        place: QueuePlace,
        /// For how long to wait.
        wait: Duration,
    },
    /// Gives a lease back. It is on its way as soon as the service was called. Answered with [`Response::Released`].
    Release(Lease),
    /// The state of a shard's server. Answered with [`Response::Stats`].
    Stats {
        /// The shard's index.
        shard: usize,
    },
}

/// A lock or a slot that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcquireRequest {
    pub(crate) target: Target,
    pub(crate) key: Key,
    pub(crate) wait: Duration,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) policy: RenewPolicy,
}

impl AcquireRequest {
    /// Asks for it without waiting, with the server's default TTL.
    #[must_use]
    pub fn new(target: Target, key: Key) -> Self {
        Self {
            target,
            key,
            wait: Duration::ZERO,
            ttl: None,
            policy: RenewPolicy::default(),
        }
    }

    /// Waits for it, for up to `wait`. Without a wait a lock that is held is answered with [`Response::Busy`], with one
    /// it is an error of kind [`Timeout`](crate::ErrorKind::Timeout) when the time is over.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long the lease lasts unless it is renewed.
    #[must_use]
    pub fn lease_ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// What came of a request.
///
/// A response that carries a lease must reach somebody who keeps it: dropping it gives the lease back.
#[non_exhaustive]
pub enum Response {
    /// It is held until the lease is released, dropped or lost.
    Granted(Lease),
    /// Somebody else holds it, and the request did not want to wait.
    Busy,
    /// Somebody else holds it; this is a place in its queue.
    Queued(QueuePlace),
    /// It was given back, and the server has said so.
    Released,
    /// The state of a server.
    Stats(Stats),
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted(lease) => f.debug_tuple("Granted").field(lease).finish(),
            Self::Busy => f.write_str("Busy"),
            Self::Queued(place) => f.debug_tuple("Queued").field(place).finish(),
            Self::Released => f.write_str("Released"),
            Self::Stats(stats) => f.debug_tuple("Stats").field(stats).finish(),
        }
    }
}
