//! What callers hold: leases, and places in queues.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ask::Ask;
use super::ids::{LeaseId, TicketId};
use super::progress::Refusal;
use crate::error::Result;
use crate::lease::cell::LeaseCell;
use crate::types::{Key, Target};

/// What came of an acquire.
pub(crate) enum Acquired {
    /// It is held.
    Lease(HeldLease),
    /// A server says that it is held.
    Busy(Refusal),
    /// It is held, and this is a place in its queue.
    Queued(HeldPlace),
}

/// The way back to the shard, for what callers hold. Sending never blocks and never panics; if the shard is gone, what is sent is dropped.
pub(crate) trait FromHolder: Send + Sync {
    /// Gives a lease back. Without `told`: its guard was dropped.
    fn release(&self, id: LeaseId, told: Option<oneshot::Sender<Result<()>>>);
    /// Wants what is granted at a place, until then.
    fn collect(&self, id: TicketId, until: Instant, ask: Ask<Acquired>);
    /// Gives a place up.
    fn give_up(&self, id: TicketId);
}

/// A place in a queue, in the hands of a caller. Dropping it gives the place up.
pub(crate) struct HeldPlace {
    id: TicketId,
    pub(crate) target: Target,
    pub(crate) key: Key,
    /// What the server said when it gave the place.
    pub(crate) refusal: Refusal,
    shard: Arc<dyn FromHolder>,
    used: bool,
}

impl HeldPlace {
    #[cfg(test)]
    pub(crate) fn id(&self) -> TicketId {
        self.id
    }

    pub(crate) fn new(id: TicketId, target: Target, key: Key, refusal: Refusal, shard: Arc<dyn FromHolder>) -> Self {
        Self {
            id,
            target,
            key,
            refusal,
            shard,
            used: false,
        }
    }

    /// Waits at its place; the answer comes through `ask`, whose receiver sees a closed channel if the shard is gone.
    pub(crate) fn collect(mut self, until: Instant, ask: Ask<Acquired>) {
        self.used = true;
        self.shard.collect(self.id, until, ask);
    }
}

#[cfg(feature = "blocking")]
impl crate::take::Take for HeldPlace {
    fn take(&mut self) -> Self {
        let mut taken = Self::new(
            self.id,
            self.target,
            self.key.clone(),
            self.refusal,
            Arc::clone(&self.shard),
        );
        taken.used = std::mem::replace(&mut self.used, true);
        taken
    }
}

/// Only sends a message: works anywhere, never blocks, never panics.
impl Drop for HeldPlace {
    fn drop(&mut self) {
        if !self.used {
            self.shard.give_up(self.id);
        }
    }
}

/// A lease in the hands of a caller. Dropping it gives the lease back.
pub(crate) struct HeldLease {
    pub(crate) cell: Arc<LeaseCell>,
    id: LeaseId,
    shard: Arc<dyn FromHolder>,
    given_back: bool,
    /// Where the outcome of its release is told, until the holder asks for it.
    answer: Option<oneshot::Receiver<Result<()>>>,
}

impl HeldLease {
    #[cfg(test)]
    pub(crate) fn id(&self) -> LeaseId {
        self.id
    }

    pub(crate) fn new(cell: Arc<LeaseCell>, id: LeaseId, shard: Arc<dyn FromHolder>) -> Self {
        Self {
            cell,
            id,
            shard,
            given_back: false,
            answer: None,
        }
    }

    /// Sends the release. Its outcome can still be [asked for](Self::release).
    pub(crate) fn begin_release(&mut self) {
        if !self.given_back {
            self.answer = Some(self.send_release());
        }
    }

    /// Sends the release, unless that was begun. It is on its way when this returns; the answer tells how it went.
    pub(crate) fn release(mut self) -> oneshot::Receiver<Result<()>> {
        match self.answer.take() {
            Some(answer) => answer,
            None => self.send_release(),
        }
    }

    fn send_release(&mut self) -> oneshot::Receiver<Result<()>> {
        let (told, answer) = oneshot::channel();
        self.send(Some(told));
        answer
    }

    fn send(&mut self, told: Option<oneshot::Sender<Result<()>>>) {
        self.given_back = true;
        self.shard.release(self.id, told);
    }
}

#[cfg(feature = "blocking")]
impl crate::take::Take for HeldLease {
    fn take(&mut self) -> Self {
        let mut taken = Self::new(Arc::clone(&self.cell), self.id, Arc::clone(&self.shard));
        taken.given_back = std::mem::replace(&mut self.given_back, true);
        taken.answer = self.answer.take();
        taken
    }
}

/// Only sends a message: works anywhere, never blocks, never panics.
impl Drop for HeldLease {
    fn drop(&mut self) {
        if !self.given_back {
            self.send(None);
        }
    }
}
