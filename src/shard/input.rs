//! Inputs of a shard, and the mailbox that carries them.

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
use crate::lease::release::ReleaseReply;
use crate::net::dial::LaneEvent;
use crate::types::{Key, Token};

/// An input of a shard.
pub(crate) enum Input {
    /// A caller acquires a lock or a slot.
    Acquire(Box<Acquire>, Patience),
    /// The holder of a ticket waits, until this instant, for the grant at its queue position.
    Collect(TicketId, Instant, Ask<Acquired>),
    /// A ticket was dropped: the shard gives up its queue position.
    GiveUp(TicketId),
    /// A caller sends a request that touches no lease.
    Ask(Box<Question>),
    /// Go back to the first endpoint of a standby shard. The answer is the time for which the shard then sends no
    /// requests.
    Failback(Ask<Duration>),
    /// The outcome of the probe of the first endpoint.
    FirstProbed(Result<()>, Ask<Duration>),
    /// The holder releases a lease. `reply` is `None` if the guard was dropped.
    Release { id: LeaseId, reply: Option<ReleaseReply> },
    /// Limit the renewals of a lease to this time from now on.
    RenewFor { id: LeaseId, hold: Duration },
    /// An event of a connection.
    Lane(LaneId, LaneEvent<Pending>),
    /// The instant that [`ShardMachine::next_due`](super::ShardMachine::next_due) returned has come.
    Tick,
    /// Release everything and end.
    Shutdown(Shutdown),
    /// Ask the server now whether the lease with this token is held, because a test has removed the lease from the
    /// server.
    #[cfg_attr(not(feature = "server"), expect(dead_code))]
    CheckLease(Token),
    /// Panic. Tests use it to show that the panic affects no other shard.
    #[cfg(test)]
    Die,
}

/// A request to shut a shard down.
pub(crate) struct Shutdown {
    /// When the shard ends at the latest, even if some leases are not released.
    pub(crate) until: Instant,
    /// Receives the report.
    pub(crate) reply: Option<oneshot::Sender<ShutdownReport>>,
}

/// The outcome of [`Client::shutdown`](crate::Client::shutdown).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The number of leases whose release a server confirmed.
    pub released: usize,
    /// The keys of leases whose release no server confirmed. These leases end when their TTL is over.
    pub unreleased: Vec<Key>,
}

/// The sending side of a shard's mailbox, held by callers. Sending never blocks and never panics. If the shard is gone,
/// its connections are gone too, and the input is dropped.
#[derive(Clone)]
pub(crate) struct Mailbox(mpsc::UnboundedSender<Input>);

impl Mailbox {
    /// Creates a mailbox and its receiving end.
    pub(crate) fn new() -> (Self, Inputs) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Inputs(receiver))
    }

    /// Returns this mailbox in the form that leases and tickets keep.
    pub(crate) fn way_back(&self) -> WayBack {
        Arc::new(Box::new(self.clone()))
    }

    /// Sends an input. Returns whether the shard still exists.
    pub(crate) fn send(&self, input: Input) -> bool {
        self.0.send(input).is_ok()
    }

    /// Returns whether the shard is gone.
    #[cfg(feature = "server")]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// The receiving end of a mailbox. When it is dropped, the callers of all undelivered inputs see that the shard is
/// gone.
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
    fn release(&self, id: LeaseId, reply: Option<ReleaseReply>) {
        self.send(Input::Release { id, reply });
    }

    fn renew_for(&self, id: LeaseId, hold: Duration) {
        self.send(Input::RenewFor { id, hold });
    }

    fn collect(&self, id: TicketId, until: Instant, ask: Ask<Acquired>) {
        self.send(Input::Collect(id, until, ask));
    }

    fn give_up(&self, id: TicketId) {
        self.send(Input::GiveUp(id));
    }
}
