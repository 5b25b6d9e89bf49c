//! A place in a queue, for threads.

use std::fmt;
use std::time::Duration;

use super::guard::Held;
use super::process::Ours;
use super::runtime::block_on;
use crate::error::Result;
use crate::handle::guard::Guard;
use crate::handle::ticket;
use crate::types::Key;

/// What came of an `enqueue`; `G` is the guard of the async client. A server answers one of these two, so a match may be complete.
#[derive(Debug)]
#[must_use = "dropping it gives the lock or the place back at once"]
pub enum Enqueued<G> {
    /// It was free: held.
    Acquired(Held<G>),
    /// A server says that it is held; this is a place in the queue.
    Queued(Ticket<G>),
}

/// A place in the queue of a lock or semaphore; see [`crate::Ticket`].
#[must_use = "a ticket that is dropped gives its place up at once"]
pub struct Ticket<G>(Ours<ticket::Ticket<G>>);

impl<G: Guard> Enqueued<G> {
    pub(super) fn new(enqueued: ticket::Enqueued<G>) -> Self {
        match enqueued {
            ticket::Enqueued::Acquired(guard) => Self::Acquired(Held::new(guard)),
            ticket::Enqueued::Queued(ticket) => Self::Queued(Ticket(Ours::new(ticket))),
        }
    }
}

impl<G: Guard> Ticket<G> {
    /// What is waited for.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.0.key()
    }

    /// Waits for its turn, for up to `timeout`. The place is given up if it does not come in time.
    ///
    /// # Errors
    ///
    /// As [`crate::Ticket::wait`], and [`Misuse`](crate::ErrorKind::Misuse) where a thread must not wait (the place is
    /// given up then, too).
    pub fn wait(self, timeout: Duration) -> Result<Held<G>> {
        block_on(|| self.0.into_inner().wait(timeout))?.map(Held::new)
    }
}

impl<G> fmt::Debug for Ticket<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
