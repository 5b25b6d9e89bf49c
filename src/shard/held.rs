//! What callers hold: leases and queue positions.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::ask::Ask;
use super::ids::{LeaseId, TicketId};
use super::progress::Refusal;
use crate::lease::cell::LeaseCell;
use crate::lease::release::{ReleaseAnswer, ReleaseReply};
use crate::types::{Key, Target};

/// The outcome of an acquire, as its caller gets it.
pub(crate) enum Acquired {
    /// The caller holds the lease.
    Lease(HeldLease),
    /// A server says that the key is held.
    Busy(Refusal),
    /// The key is held, and the caller has a queue position.
    Queued(HeldPosition),
}

/// The way from a lease or a queue position back to its shard. Sending never blocks and never panics. If the shard is
/// gone, the message is dropped, and dropping `reply` wakes the task that awaits it.
pub(crate) trait FromHolder: Send + Sync {
    /// Releases a lease. `reply` is `None` if the guard was dropped.
    fn release(&self, id: LeaseId, reply: Option<ReleaseReply>);
    /// Limits the renewals of a lease to this time from now on.
    fn renew_for(&self, id: LeaseId, hold: Duration);
    /// Waits, until this instant, for the grant at a queue position.
    fn collect(&self, id: TicketId, until: Instant, ask: Ask<Acquired>);
    /// Gives up a queue position.
    fn give_up(&self, id: TicketId);
}

/// A shard's way back, shared by everything that its callers hold. It is one pointer wide, because there may be very
/// many leases.
pub(crate) type WayBack = Arc<Box<dyn FromHolder>>;

/// A queue position that a caller holds. Dropping it gives the position up.
pub(crate) struct HeldPosition {
    id: TicketId,
    pub(crate) target: Target,
    pub(crate) key: Key,
    /// The server's refusal that came with the position.
    pub(crate) refusal: Refusal,
    shard: WayBack,
    used: bool,
}

impl HeldPosition {
    #[cfg(any(test, feature = "server"))]
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

    /// Waits at this position. The answer comes through `ask`; its receiver sees a closed channel if the shard is gone.
    pub(crate) fn collect(mut self, until: Instant, ask: Ask<Acquired>) {
        self.used = true;
        self.shard.collect(self.id, until, ask);
    }
}

#[cfg(feature = "blocking")]
impl crate::take::Take for HeldPosition {
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
impl Drop for HeldPosition {
    fn drop(&mut self) {
        if !self.used {
            self.shard.give_up(self.id);
        }
    }
}

/// A lease that a caller holds. Dropping it releases the lease.
pub(crate) struct HeldLease {
    pub(crate) cell: Arc<LeaseCell>,
    id: LeaseId,
    shard: WayBack,
    stage: Stage,
}

enum Stage {
    Held,
    /// The release was sent. The waker, if it is known, belongs to the task that awaits the outcome.
    Released(Option<Waker>),
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

    /// Limits the renewals of the lease to this time from now on.
    pub(crate) fn renew_for(&self, hold: Duration) {
        self.shard.renew_for(self.id, hold);
    }

    /// Stops renewing this lease when `other` is lost. This lease then ends when its TTL is over, or when it is
    /// released. `tell` runs first.
    pub(crate) fn end_with(&self, other: &Self, tell: impl Fn() + Send + Sync + 'static) {
        let (shard, id) = (Arc::clone(&self.shard), self.id);
        other.cell.when_lost(Box::new(move || {
            tell();
            shard.renew_for(id, Duration::ZERO);
        }));
    }

    /// Sends the release, unless it was sent already. After this, [`release`](Self::release) returns the outcome as
    /// usual. The task that awaits the outcome should be the one that `waker` wakes.
    pub(crate) fn begin_release(&mut self, waker: Option<&Waker>) {
        if let Stage::Held = self.stage {
            self.stage = Stage::Released(waker.cloned());
            let reply = ReleaseReply::new(&self.cell, waker.cloned());
            self.shard.release(self.id, Some(reply));
        }
    }

    /// Sends the release, unless it was sent already, and returns its answer. The release is under way when this
    /// function returns.
    pub(crate) fn release(mut self) -> ReleaseAnswer {
        self.begin_release(None);
        let waker = match &mut self.stage {
            Stage::Released(waker) => waker.take(),
            Stage::Held => None,
        };
        ReleaseAnswer::new(&self.cell, waker)
    }
}

#[cfg(feature = "blocking")]
impl crate::take::Take for HeldLease {
    fn take(&mut self) -> Self {
        let mut taken = Self::new(Arc::clone(&self.cell), self.id, Arc::clone(&self.shard));
        taken.stage = std::mem::replace(&mut self.stage, Stage::Released(None));
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
