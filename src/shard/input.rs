//! What a shard is told.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::acquire::{Acquire, Patience};
use super::ask::Ask;
use super::held::{Acquired, FromHolder, WayBack};
use super::ids::{LaneId, LeaseId, TicketId};
use super::question::Question;
use super::request::Pending;
use crate::channel;
use crate::error::Result;
use crate::lease::release::ReleaseTold;
use crate::net::dial::LaneEvent;
use crate::types::Key;
#[cfg(feature = "server")]
use crate::types::Token;

/// What a shard is told.
pub(crate) enum Input {
    /// A caller wants a lock or slot.
    Acquire(Box<Acquire>, Patience),
    /// The holder of a ticket wants what is granted there, until then.
    Collect(TicketId, Instant, Ask<Acquired>),
    /// A ticket was dropped: its place is given up.
    GiveUp(TicketId),
    /// A caller asks the server something that touches no lease.
    Ask(Box<Question>),
    /// The first endpoint of a standby shard is to serve again. The answer: for how long no server is asked for anything.
    Failback(Ask<Duration>),
    /// Whether the first endpoint can be reached.
    FirstIsThere(Result<()>, Ask<Duration>),
    /// A lease is given back. Without `told`: by a guard that was dropped.
    Release { id: LeaseId, told: Option<ReleaseTold> },
    /// Something happened on a connection.
    Lane(LaneId, LaneEvent<Pending>),
    /// Something is due.
    Tick,
    /// Give everything back and end.
    Shutdown(Shutdown),
    /// Ask the server now whether it holds the lease of a token: a test has taken it away there.
    #[cfg(feature = "server")]
    CheckLease(Token),
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

    /// The same, for what callers hold.
    pub(crate) fn way_back(&self) -> WayBack {
        Arc::new(Box::new(self.clone()))
    }

    /// Tells the shard. Returns whether it is there to be told.
    pub(crate) fn send(&self, input: Input) -> bool {
        self.0.send(input).is_ok()
    }

    /// Whether the shard is gone.
    #[cfg(feature = "server")]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
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

impl FromHolder for Mailbox {
    fn release(&self, id: LeaseId, told: Option<ReleaseTold>) {
        self.send(Input::Release { id, told });
    }

    fn collect(&self, id: TicketId, until: Instant, ask: Ask<Acquired>) {
        self.send(Input::Collect(id, until, ask));
    }

    fn give_up(&self, id: TicketId) {
        self.send(Input::GiveUp(id));
    }
}
