//! What the actors are told, and what travels through the lanes.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tracing::Span;

use super::progress::{Progress, Refusal, WaitsFor};
use super::shard::TicketId;
use crate::clock::after;
use crate::error::Result;
use crate::lease::cell::LeaseCell;
use crate::lease::registry::{Claim, LaneId, LeaseId, RenewPolicy};
use crate::net::dial::LaneEvent;
use crate::net::lane::Caller;
use crate::protocol::StableRef;
use crate::stats::Stats;
use crate::types::{Grant, Key, Kind, Target, Token, Ttl};

/// What a shard's actor is told.
pub(crate) enum ShardMessage {
    /// A lock or slot is wanted.
    Acquire(Acquire, Patience),
    /// The grant at the place of a ticket is wanted, until then.
    Collect(TicketId, Instant, Ask<Acquired>),
    /// A ticket was dropped: its place is given up.
    GiveUp(TicketId),
    /// The state of the server is wanted.
    Stats(Ask<Stats>),
    /// Everything that was committed before is to be visible.
    Barrier(Ask<()>),
    /// The first endpoint is to serve again. The answer: how long nobody will.
    Failback(Ask<Duration>),
    /// Whether the first endpoint is there.
    FirstIsThere(Result<()>, Ask<Duration>),
    /// A lease is given back. Without `told`: by a guard that was dropped.
    Release {
        id: LeaseId,
        told: Option<oneshot::Sender<Result<()>>>,
    },
    /// Something happened on a connection.
    Lane(LaneId, LaneEvent<Pending>),
    /// Something is due.
    Tick,
    /// Give everything back and end.
    Shutdown(Shutdown),
    /// Panic: to test that this hurts nobody else.
    #[cfg(test)]
    Die,
}

/// The end of a shard.
pub(crate) struct Shutdown {
    /// When to end even if not everything was given back.
    pub(crate) until: Instant,
    /// Who wants to know what could not be given back.
    pub(crate) told: Option<oneshot::Sender<ShutdownReport>>,
}

/// What [`Client::shutdown`](crate::Client::shutdown) did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// How many leases the servers took back.
    pub released: usize,
    /// The keys of leases of which no server confirmed that it took them back: they end with their TTL.
    pub unreleased: Vec<Key>,
}

/// Whether an acquire may wait on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// One try.
    Try,
    /// One try, before a wait: spared where a caller of this client waits already.
    TryThenWait,
    /// Until then; a server has said before that the key is held.
    Until(Instant, Refusal),
    /// A place in the queue is enough.
    Enqueue,
}

/// An acquire on its way.
pub(crate) struct Acquire {
    pub(crate) target: Target,
    pub(crate) key: Key,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) policy: RenewPolicy,
    /// How often it was asked anew, because another member of the cluster leads.
    pub(crate) redirects: u32,
    /// The session in which it waits at a server already, or did: asked anew under that name, it keeps its place.
    pub(crate) session: Option<Box<StableRef>>,
    /// What its caller can see of it.
    pub(crate) progress: Option<Progress>,
    pub(crate) ask: Ask<Acquired>,
}

impl Acquire {
    /// A new one.
    pub(crate) fn new(target: Target, key: Key, ttl: Option<Ttl>, policy: RenewPolicy, ask: Ask<Acquired>) -> Self {
        Self {
            target,
            key,
            ttl,
            policy,
            redirects: 0,
            session: None,
            progress: None,
            ask,
        }
    }

    /// Notes what it waits for from now on, if its caller wants to know.
    pub(crate) fn waits_for(&self, what: WaitsFor) {
        if let Some(progress) = &self.progress {
            progress.waits_for(what);
        }
    }
}

/// What came of an acquire.
pub(crate) enum Acquired {
    /// It is held.
    Lease(Lease),
    /// A server says that it is held.
    Busy(Refusal),
    /// It is held, and this is a place in its queue.
    Queued(Ticket),
}

/// A place in a queue, in the hands of a caller. Dropping it gives the place up.
pub(crate) struct Ticket {
    id: TicketId,
    pub(crate) target: Target,
    pub(crate) key: Key,
    /// What the server said when it gave the place.
    pub(crate) refusal: Refusal,
    shard: ActorRef<ShardMessage>,
    used: bool,
}

impl Ticket {
    pub(crate) fn new(id: TicketId, target: Target, key: Key, refusal: Refusal, shard: ActorRef<ShardMessage>) -> Self {
        Self {
            id,
            target,
            key,
            refusal,
            shard,
            used: false,
        }
    }

    /// Waits at its place; the answer comes through `ask`, whose receiver sees a closed channel if the actor is gone.
    pub(crate) fn collect(mut self, until: Instant, ask: Ask<Acquired>) {
        self.used = true;
        drop(self.shard.send_message(ShardMessage::Collect(self.id, until, ask)));
    }
}

#[cfg(feature = "blocking")]
impl crate::take::Take for Ticket {
    fn take(&mut self) -> Self {
        let mut taken = Self::new(self.id, self.target, self.key.clone(), self.refusal, self.shard.clone());
        taken.used = std::mem::replace(&mut self.used, true);
        taken
    }
}

/// Only sends a message: works anywhere, never blocks, never panics.
impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.used {
            drop(self.shard.send_message(ShardMessage::GiveUp(self.id)));
        }
    }
}

/// Somebody who waits for an answer, and the room that the request takes up in the shard.
///
/// The room is given back when the answer was consumed, not when the caller goes away: that is what bounds memory.
#[derive(Debug)]
pub(crate) struct Ask<T> {
    pub(crate) told: oneshot::Sender<Result<T>>,
    pub(crate) _room: OwnedSemaphorePermit,
}

impl<T> Ask<T> {
    /// Answers. If nobody waits any more the answer is dropped, and with it whatever it holds: a lease that is dropped
    /// is given back.
    pub(crate) fn tell(self, answer: Result<T>) {
        drop(self.told.send(answer));
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.told.is_closed()
    }
}

/// A lease in the hands of a caller. Dropping it gives the lease back.
pub(crate) struct Lease {
    pub(crate) cell: Arc<LeaseCell>,
    id: LeaseId,
    shard: ActorRef<ShardMessage>,
    given_back: bool,
    /// Where it is told how that went, until somebody asks.
    answer: Option<oneshot::Receiver<Result<()>>>,
}

impl Lease {
    pub(crate) fn new(cell: Arc<LeaseCell>, id: LeaseId, shard: ActorRef<ShardMessage>) -> Self {
        Self {
            cell,
            id,
            shard,
            given_back: false,
            answer: None,
        }
    }

    /// Sends it on its way back. Whoever has it in hand may still [ask](Self::give_back) how that went.
    pub(crate) fn begin_to_give_back(&mut self) {
        if !self.given_back {
            self.answer = Some(self.send_back());
        }
    }

    /// Gives it back; the answer tells how that went. It is on its way when this returns, whatever becomes of the
    /// answer's receiver.
    pub(crate) fn give_back(mut self) -> oneshot::Receiver<Result<()>> {
        match self.answer.take() {
            Some(answer) => answer,
            None => self.send_back(),
        }
    }

    fn send_back(&mut self) -> oneshot::Receiver<Result<()>> {
        let (told, answer) = oneshot::channel();
        self.send(Some(told));
        answer
    }

    fn send(&mut self, told: Option<oneshot::Sender<Result<()>>>) {
        self.given_back = true;
        // If the actor is gone, so are its connections, and with them the lease.
        drop(self.shard.send_message(ShardMessage::Release { id: self.id, told }));
    }
}

#[cfg(feature = "blocking")]
impl crate::take::Take for Lease {
    fn take(&mut self) -> Self {
        let mut taken = Self::new(Arc::clone(&self.cell), self.id, self.shard.clone());
        taken.given_back = std::mem::replace(&mut self.given_back, true);
        taken.answer = self.answer.take();
        taken
    }
}

/// Only sends a message: works anywhere, never blocks, never panics.
impl Drop for Lease {
    fn drop(&mut self) {
        if !self.given_back {
            self.send(None);
        }
    }
}

/// Whose a request in a lane is, and what its answer is for.
pub(crate) enum Pending {
    /// A try.
    Try(Acquire),
    /// A wait that blocks its lane.
    Wait(Acquire, Instant),
    /// A place in a queue is wanted.
    Enqueue(Acquire),
    /// The wait at the place of a ticket, which may have been granted since `enqueued_at`.
    Collect {
        acquire: Acquire,
        until: Instant,
        enqueued_at: Instant,
    },
    /// The place of a ticket that was lost with its connection is taken again, under the name of its session.
    Rejoin(TicketId, StableRef),
    /// The place of a ticket is given up, and the grant that may have come meanwhile. How often it was taken again for that.
    GiveUp(Target, Key, u32),
    /// A grant that came at once with its `e` is collected a second time: only to be done with it.
    Settle(Kind, Key),
    /// A grant that is not sure to have enough of its TTL left is renewed before anybody gets it.
    Confirm {
        acquire: Acquire,
        grant: Box<Grant>,
        owner: LaneId,
    },
    /// A renewal.
    Renew(Renewal),
    /// A release.
    Release(Releasing),
    /// `stats`.
    Stats(Ask<Stats>),
    /// `barrier`, and how often it was asked anew, because another member of the cluster leads.
    Barrier(Ask<()>, u32),
}

/// A renewal on its way.
pub(crate) struct Renewal {
    pub(crate) id: LeaseId,
    pub(crate) span: Span,
}

impl Renewal {
    /// Nobody will hear what became of it.
    pub(crate) fn is_unanswered(&self) {
        self.span.record("outcome", "unanswered");
    }
}

/// A lease on its way back to the server. It is repeated over reconnects until it is answered or its TTL is over.
pub(crate) struct Releasing {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    pub(crate) token: Token,
    /// The registry's entry, where there still is one.
    pub(crate) id: Option<LeaseId>,
    /// The connection that the server counts it to.
    pub(crate) owner: LaneId,
    /// When the server has forgotten it by itself.
    pub(crate) until: Instant,
    /// It was sent before and the answer was lost: "not held" then means that it arrived.
    pub(crate) repeated: bool,
    pub(crate) told: Option<oneshot::Sender<Result<()>>>,
}

impl Releasing {
    /// The release of what the registry keeps.
    pub(crate) fn of(
        claim: &Claim,
        id: Option<LeaseId>,
        repeated: bool,
        told: Option<oneshot::Sender<Result<()>>>,
    ) -> Self {
        let cell = &claim.cell;
        Self {
            kind: cell.kind,
            key: cell.key.clone(),
            token: cell.token,
            id,
            owner: claim.owner,
            until: after(Instant::now(), cell.ttl.as_duration()),
            repeated,
            told,
        }
    }
}

impl Pending {
    /// Whether it is about a place in a queue that its connection, or its session, has on the server.
    pub(crate) fn is_a_wait(&self) -> bool {
        matches!(
            self,
            Self::Wait(..) | Self::Enqueue(_) | Self::Collect { .. } | Self::Rejoin(..) | Self::GiveUp(..)
        )
    }

    /// Notes what a wait waits for from now on.
    pub(crate) fn waits_for(&self, what: WaitsFor) {
        if let Self::Wait(acquire, _) | Self::Enqueue(acquire) = self {
            acquire.waits_for(what);
        }
    }

    /// The session under whose name it has to be sent, if it was sent before.
    pub(crate) fn session(&self) -> Option<&StableRef> {
        match self {
            Self::Wait(acquire, _) | Self::Enqueue(acquire) => acquire.session.as_deref(),
            Self::Rejoin(_, session) => Some(session),
            _ => None,
        }
    }

    /// Whose request may be forgotten if nobody waits for it, as long as it was not sent. All others must go on: they
    /// keep or give back what is held.
    fn caller_is_gone(&self) -> bool {
        match self {
            // What waits at a server already, in a session, must be given up there, even if nobody waits for it any more.
            Self::Wait(acquire, _) | Self::Enqueue(acquire) if acquire.session.is_some() => false,
            Self::Try(acquire) | Self::Wait(acquire, _) | Self::Enqueue(acquire) => acquire.ask.is_gone(),
            Self::Stats(ask) => ask.is_gone(),
            Self::Barrier(ask, _) => ask.is_gone(),
            // And so must a place that was taken.
            Self::Collect { .. } | Self::Rejoin(..) | Self::GiveUp(..) | Self::Settle(..) => false,
            Self::Confirm { .. } | Self::Renew(_) | Self::Release(_) => false,
        }
    }
}

impl Caller for Pending {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Try(acquire) | Self::Wait(acquire, _) | Self::Enqueue(acquire) | Self::Collect { acquire, .. } => {
                acquire.ask.told.poll_closed(cx)
            }
            Self::Stats(ask) => ask.told.poll_closed(cx),
            Self::Barrier(ask, _) => ask.told.poll_closed(cx),
            Self::Rejoin(..) | Self::GiveUp(..) | Self::Settle(..) => Poll::Pending,
            Self::Confirm { .. } | Self::Renew(_) | Self::Release(_) => Poll::Pending,
        }
    }

    fn is_gone(&self) -> bool {
        self.caller_is_gone()
    }
}
