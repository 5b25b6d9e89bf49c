//! What a shard is told, and what its callers hold.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::ids::{LaneId, LeaseId, TicketId};
use super::progress::{Progress, Refusal, WaitsFor};
use super::question::Question;
use super::request::Pending;
use crate::channel;
use crate::error::Result;
use crate::lease::cell::LeaseCell;
use crate::lease::policy::RenewPolicy;
use crate::net::dial::LaneEvent;
use crate::protocol::StableRef;
use crate::types::{Key, Target, Ttl};

/// What a shard is told.
pub(crate) enum Input {
    /// A caller wants a lock or slot.
    Acquire(Acquire, Patience),
    /// The holder of a ticket wants what is granted there, until then.
    Collect(TicketId, Instant, Ask<Acquired>),
    /// A ticket was dropped: its place is given up.
    GiveUp(TicketId),
    /// A caller asks the server something that touches no lease.
    Ask(Question),
    /// The first endpoint of a standby shard is to serve again. The answer: for how long no server is asked for anything.
    Failback(Ask<Duration>),
    /// Whether the first endpoint can be reached.
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
    /// Panic: to test that this hurts no other shard.
    #[cfg(test)]
    Die,
}

/// The end of a shard.
pub(crate) struct Shutdown {
    /// When to end even if not everything was given back.
    pub(crate) until: Instant,
    /// Who is told what could not be given back.
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
    /// One try, before a wait: spared where another caller of this client waits already.
    TryThenWait,
    /// Until then; a server has said before that the key is held.
    Until(Instant, Refusal),
    /// A place in the queue is enough.
    Enqueue,
}

/// An acquire under way.
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
    /// Creates an acquire that was not asked of any server yet.
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

/// A caller that waits for an answer, and the room that the request takes up in the shard.
///
/// The room is given back when the answer was consumed, not when the caller goes away: that is what bounds memory.
#[derive(Debug)]
pub(crate) struct Ask<T> {
    pub(crate) told: oneshot::Sender<Result<T>>,
    pub(crate) _room: OwnedSemaphorePermit,
}

impl<T> Ask<T> {
    /// Answers. If the caller is gone the answer is dropped, and with it what it holds: a lease that is dropped is given back.
    pub(crate) fn tell(self, answer: Result<T>) {
        drop(self.told.send(answer));
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.told.is_closed()
    }
}

/// The way back to the shard, in the hands of callers. Sending never blocks and never panics; if the shard is gone, so are
/// its connections, and what is sent is dropped.
#[derive(Clone)]
pub(crate) struct Mailbox(mpsc::UnboundedSender<Input>);

impl Mailbox {
    /// Creates a mailbox and its receiving end.
    pub(crate) fn new() -> (Self, Inputs) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Inputs(receiver))
    }

    /// Tells the shard. Returns whether it is there to be told.
    pub(crate) fn send(&self, input: Input) -> bool {
        self.0.send(input).is_ok()
    }
}

/// The receiving end of a mailbox. Whenever it is dropped, the callers of all that was sent see that the shard is gone.
pub(crate) struct Inputs(mpsc::UnboundedReceiver<Input>);

impl Inputs {
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Input>> {
        self.0.poll_recv(cx)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        drop(channel::close(&mut self.0));
    }
}

/// A place in a queue, in the hands of a caller. Dropping it gives the place up.
pub(crate) struct Ticket {
    id: TicketId,
    pub(crate) target: Target,
    pub(crate) key: Key,
    /// What the server said when it gave the place.
    pub(crate) refusal: Refusal,
    shard: Mailbox,
    used: bool,
}

impl Ticket {
    pub(crate) fn new(id: TicketId, target: Target, key: Key, refusal: Refusal, shard: Mailbox) -> Self {
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
        self.shard.send(Input::Collect(self.id, until, ask));
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
            self.shard.send(Input::GiveUp(self.id));
        }
    }
}

/// A lease in the hands of a caller. Dropping it gives the lease back.
pub(crate) struct Lease {
    pub(crate) cell: Arc<LeaseCell>,
    id: LeaseId,
    shard: Mailbox,
    given_back: bool,
    /// Where the outcome of its release is told, until the holder asks for it.
    answer: Option<oneshot::Receiver<Result<()>>>,
}

impl Lease {
    pub(crate) fn new(cell: Arc<LeaseCell>, id: LeaseId, shard: Mailbox) -> Self {
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
        self.shard.send(Input::Release { id: self.id, told });
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
