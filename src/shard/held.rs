//! What callers hold: leases, and places in queues.

use std::sync::Arc;
use std::task::Waker;

use tokio::time::Instant;

use super::ask::Ask;
use super::ids::{LeaseId, TicketId};
use super::progress::Refusal;
use crate::lease::cell::LeaseCell;
use crate::lease::release::{ReleaseAnswer, ReleaseTold};
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

/// The way back to the shard, for what callers hold. Sending never blocks and never panics; if the shard is gone, what is sent is dropped,
/// and `told` wakes the task that it is for.
pub(crate) trait FromHolder: Send + Sync {
    /// Gives a lease back. Without `told`: its guard was dropped.
    fn release(&self, id: LeaseId, told: Option<ReleaseTold>);
    /// Wants what is granted at a place, until then.
    fn collect(&self, id: TicketId, until: Instant, ask: Ask<Acquired>);
    /// Gives a place up.
    fn give_up(&self, id: TicketId);
}

/// A shard's way back, which all that its callers hold shares. One pointer wide: there may be very many leases.
pub(crate) type WayBack = Arc<Box<dyn FromHolder>>;

/// A place in a queue, in the hands of a caller. Dropping it gives the place up.
pub(crate) struct HeldPlace {
    id: TicketId,
    pub(crate) target: Target,
    pub(crate) key: Key,
    /// What the server said when it gave the place.
    pub(crate) refusal: Refusal,
    shard: WayBack,
    used: bool,
}

impl HeldPlace {
    #[cfg(test)]
    pub(crate) fn id(&self) -> TicketId {
        self.id
    }

    pub(crate) fn new(id: TicketId, target: Target, key: Key, refusal: Refusal, shard: WayBack) -> Self {
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
    shard: WayBack,
    stage: Stage,
}

enum Stage {
    Held,
    /// Its release was sent: with the waker of the task that waits for the outcome, if that was known.
    GivenBack(Option<Waker>),
}

impl HeldLease {
    #[cfg(test)]
    pub(crate) fn id(&self) -> LeaseId {
        self.id
    }

    pub(crate) fn new(cell: Arc<LeaseCell>, id: LeaseId, shard: WayBack) -> Self {
        Self {
            cell,
            id,
            shard,
            stage: Stage::Held,
        }
    }

    /// Sends the release, unless that was done. Its outcome can still be [asked for](Self::release): best by the task that `waker` wakes.
    pub(crate) fn begin_release(&mut self, waker: Option<&Waker>) {
        if let Stage::Held = self.stage {
            self.stage = Stage::GivenBack(waker.cloned());
            let told = ReleaseTold::new(&self.cell, waker.cloned());
            self.shard.release(self.id, Some(told));
        }
    }

    /// Sends the release, unless that was begun. It is on its way when this returns; the answer tells how it went.
    pub(crate) fn release(mut self) -> ReleaseAnswer {
        self.begin_release(None);
        let waker = match &mut self.stage {
            Stage::GivenBack(waker) => waker.take(),
            Stage::Held => None,
        };
        ReleaseAnswer::new(&self.cell, waker)
    }
}

#[cfg(feature = "blocking")]
impl crate::take::Take for HeldLease {
    fn take(&mut self) -> Self {
        let mut taken = Self::new(Arc::clone(&self.cell), self.id, Arc::clone(&self.shard));
        taken.stage = std::mem::replace(&mut self.stage, Stage::GivenBack(None));
        taken
    }
}

/// Only sends a message: works anywhere, never blocks, never panics.
impl Drop for HeldLease {
    fn drop(&mut self) {
        if let Stage::Held = self.stage {
            self.shard.release(self.id, None);
        }
    }
}
