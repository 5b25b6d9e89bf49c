//! A queue position: the first phase of a two-phase acquire.

use std::fmt;
use std::time::Duration;

use crate::error::Result;
use crate::service::{Lease, QueuePlace, collect};
#[cfg(feature = "blocking")]
use crate::take::Take;
use crate::types::Key;

/// The result of an `enqueue`. A server can give only these two answers, so this enum is exhaustive.
#[derive(Debug)]
#[must_use = "dropping it releases the lock or gives up the queue position at once"]
pub enum Enqueued<G> {
    /// The lock or slot was free. The caller holds it now.
    Acquired(G),
    /// A server reported the key as held. The ticket is a position in its queue.
    Queued(Ticket<G>),
}

/// A position in the queue of a lock or semaphore.
///
/// A ticket occupies a connection of its own. If that connection is lost, the position is lost, and
/// [`wait`](Self::wait) returns an error. The server may grant the key before you call [`wait`](Self::wait). The client
/// does not renew that lease until [`wait`](Self::wait) collects it, so call `wait` within a TTL. Dropping the ticket
/// gives up the position, and releases the key if it was granted.
#[must_use = "a ticket that is dropped gives up its queue position at once"]
pub struct Ticket<G> {
    place: QueuePlace,
    guard: fn(Lease) -> G,
}

impl<G> Ticket<G> {
    pub(crate) fn new(place: QueuePlace, guard: fn(Lease) -> G) -> Self {
        Self { place, guard }
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.place.key()
    }

    /// Waits for the grant, for up to `timeout`. If it does not come in time, the client gives up the queue position.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) if the grant did not come in time,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the shard was not connected when the timeout ended,
    /// [`LeaseExpired`](crate::ErrorKind::LeaseExpired) if the grant came so early that its lease has already ended,
    /// [`Disconnected`](crate::ErrorKind::Disconnected) if the ticket's connection was lost. After an error, the caller
    /// holds nothing.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, the client gives up the queue position and releases a lease that is granted
    /// meanwhile.
    pub async fn wait(self, timeout: Duration) -> Result<G> {
        collect(self.place, timeout).await.map(self.guard)
    }
}

#[cfg(feature = "blocking")]
impl<G> Take for Ticket<G> {
    fn take(&mut self) -> Self {
        Self::new(self.place.take(), self.guard)
    }
}

impl<G> fmt::Debug for Ticket<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("key", self.key())
            .finish_non_exhaustive()
    }
}
