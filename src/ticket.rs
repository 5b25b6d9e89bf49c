//! A place in a queue: the first phase of an acquire in two.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::guard::Lease;
use crate::service::{Core, Request, Response, busy, execute};
use crate::shard::input::Ticket as ActorTicket;
#[cfg(feature = "blocking")]
use crate::take::Take;
use crate::types::{Key, Kind};

/// What came of an `enqueue`.
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
        let Self { place, guard } = self;
        let core = Arc::clone(&place.core);
        let key = place.key().clone();
        match execute(&core, Request::Collect { place, wait: timeout }).await? {
            Response::Granted(lease) => Ok(guard(lease)),
            Response::Busy => Err(busy(&key)),
            other => Err(other.out_of_place()),
        }
    }
}

#[cfg(feature = "blocking")]
impl<G> Take for Ticket<G> {
    fn take(&mut self) -> Self {
        let place = QueuePlace::new(self.place.held.take(), Arc::clone(&self.place.core));
        Self::new(place, self.guard)
    }
}

impl<G> fmt::Debug for Ticket<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.place, f)
    }
}

/// A place in a queue, as the service hands it out. [`Ticket`] is this, for users of the handles.
pub struct QueuePlace {
    held: ActorTicket,
    // Dropped after `held`, so that the place is given up before the client may end.
    core: Arc<Core>,
}

impl QueuePlace {
    pub(crate) fn new(held: ActorTicket, core: Arc<Core>) -> Self {
        Self { held, core }
    }

    /// What is waited for.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.held.key
    }

    /// Whether it is a lock or a slot of a semaphore.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.held.target.kind()
    }

    pub(crate) fn into_inner(self) -> ActorTicket {
        self.held
    }
}

impl fmt::Debug for QueuePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueuePlace").field(self.key()).finish()
    }
}
