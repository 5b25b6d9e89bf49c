//! A queue position, for threads.

use std::fmt;
use std::time::Duration;

use super::guard::Held;
use super::process::Ours;
use super::runtime::block_on;
use crate::error::Result;
use crate::handle::guard::Guard;
use crate::handle::ticket;
use crate::types::Key;

/// The result of an `enqueue`; `G` is the guard of the async client. A server can give only these two answers, so this
/// enum is exhaustive.
#[derive(Debug)]
#[must_use = "dropping it releases the lock or gives up the queue position at once"]
pub enum Enqueued<G> {
    /// The lock or slot was free. The caller holds it now.
    Acquired(Held<G>),
    /// A server reported the key as held. The ticket is a position in its queue.
    Queued(Ticket<G>),
}

/// A position in the queue of a lock or semaphore; see [`crate::Ticket`].
#[must_use = "a ticket that is dropped gives up its queue position at once"]
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
    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.0.key()
    }

    /// Waits for the grant, for up to `timeout`. If it does not come in time, the client gives up the queue position.
    ///
    /// # Errors
    ///
    /// As [`crate::Ticket::wait`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block. The client
    /// gives up the queue position in this case, too.
    pub fn wait(self, timeout: Duration) -> Result<Held<G>> {
        block_on(|| self.0.into_inner().wait(timeout))?.map(Held::new)
    }
}

impl<G> fmt::Debug for Ticket<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
