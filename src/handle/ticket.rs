//! A place in a queue: the first phase of an acquire in two.

use std::fmt;
use std::time::Duration;

use crate::error::Result;
use crate::service::{Lease, QueuePlace, collect};
#[cfg(feature = "blocking")]
use crate::take::Take;
use crate::types::Key;

/// What came of an `enqueue`. A server answers one of these two, so a match may be complete.
#[derive(Debug)]
#[must_use = "dropping it gives the lock or the place back at once"]
pub enum Enqueued<G> {
    /// It was free: held.
    Acquired(G),
    /// A server says that it is held; this is a place in the queue.
    Queued(Ticket<G>),
}

/// A place in the queue of a lock or semaphore.
///
/// It belongs to a connection, which it keeps to itself: if that is lost, so is the place, and [`wait`](Self::wait) says so. Its
/// turn may come before anybody waits for it: the lease then runs, unrenewed, until [`wait`](Self::wait) collects it, so do not
/// let more than a TTL pass. Dropping it gives the place up, and the grant if it has come.
#[must_use = "a ticket that is dropped gives its place up at once"]
pub struct Ticket<G> {
    place: QueuePlace,
    guard: fn(Lease) -> G,
}

impl<G> Ticket<G> {
    pub(crate) fn new(place: QueuePlace, guard: fn(Lease) -> G) -> Self {
        Self { place, guard }
    }

    /// What is waited for.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.place.key()
    }

    /// Waits for its turn, for up to `timeout`. The place is given up if it does not come in time.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) if its turn did not come in time,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the shard was not connected when the time was over,
    /// [`LeaseExpired`](crate::ErrorKind::LeaseExpired) if it came so long ago that the lease ran out,
    /// [`Disconnected`](crate::ErrorKind::Disconnected) if the connection that had the place was lost. Nothing is held after an
    /// error.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives up the place, and gives back what was granted meanwhile.
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
