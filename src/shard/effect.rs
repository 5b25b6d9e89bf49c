//! Effects: the actions that a shard asks its driver to perform.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ask::Ask;
use super::held::Acquired;
use super::ids::{LaneId, LeaseId, TicketId};
use super::input::ShutdownReport;
use super::progress::Refusal;
use super::question::Question;
use super::request::Pending;
use crate::error::Result;
use crate::lease::cell::LeaseCell;
use crate::lease::release::ReleaseReply;
use crate::net::connect::Purpose;
use crate::net::endpoint::Endpoint;
use crate::net::health::ShardHealth;
use crate::net::lane::Outgoing;
use crate::protocol::{Request, Response};
use crate::types::{Key, Target};

/// One action. The driver performs actions in order.
pub(crate) enum Effect {
    /// Begin to connect. The outcome comes back as [`Input::Lane`](super::Input::Lane).
    Open(LaneId, Box<Opening>),
    /// Send a request. If the connection has ended, the request counts as unwritten.
    Send(LaneId, Outgoing<Pending>),
    /// Send nothing more; the connection ends when every request is answered.
    Finish(LaneId),
    /// End the connection now. The report of its end returns the unanswered requests.
    HangUp(LaneId),
    /// End the connection now and forget its requests. Its end is not reported.
    Close(LaneId),
    /// Answer a caller.
    Answer(Answer),
    /// Publish the health.
    Publish(ShardHealth),
    /// Store this state for the shard that replaces this one if this one dies.
    HandOver(Handover),
    /// Probe whether the first endpoint can be reached. The outcome comes back as
    /// [`Input::FirstProbed`](super::Input::FirstProbed).
    ProbeFirst(Ask<Duration>),
    /// The shard has ended.
    End(Option<oneshot::Sender<ShutdownReport>>, ShutdownReport),
}

/// The parameters of a connection to open.
pub(crate) struct Opening {
    pub(crate) role: Role,
    /// The pause before the attempt.
    pub(crate) pause: Duration,
    /// When the attempt is given up, if that is before its connect timeout.
    pub(crate) give_up_at: Option<Instant>,
    /// The index of the endpoint.
    pub(crate) endpoint: usize,
    pub(crate) purpose: Purpose,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Requests that do not block.
    Pipelined,
    /// One blocking request at a time.
    Exclusive,
    /// Requests after which the server may close the connection. This connection owns no lease. It is opened when it is
    /// needed, and the shard sends over at most one such connection at a time.
    Disposable,
}

impl Role {
    /// All roles.
    pub(crate) const ALL: [Self; 3] = [Self::Pipelined, Self::Exclusive, Self::Disposable];

    /// Returns the role's name in metrics and spans.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pipelined => "pipelined",
            Self::Exclusive => "exclusive",
            Self::Disposable => "disposable",
        }
    }
}

/// The state that a shard needs if it replaces one that died. Other clients continue, so the new shard must respect
/// their leases for as long as the old one would have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Handover {
    /// The longest TTL that any lease may have had so far.
    pub(crate) longest_ttl: Duration,
    /// The shard sends no request to any server before this instant.
    pub(crate) hold_back: Option<Instant>,
}

/// A caller and its answer.
pub(crate) enum Answer {
    Acquire(Ask<Acquired>, Result<AcquireOutcome>),
    Release(ReleaseReply, Result<()>),
    Question(Box<Question>, Result<Response>, Arc<str>),
    Failback(Ask<Duration>, Result<Duration>),
}

/// The outcome of an acquire.
pub(crate) enum AcquireOutcome {
    Lease(LeaseId, Arc<LeaseCell>),
    Busy(Refusal),
    Queued(TicketId, Target, Key, Refusal),
}

/// The effects of a turn, in order.
#[derive(Default)]
pub(crate) struct Effects(Vec<Effect>);

impl Effects {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// Removes and returns all effects.
    pub(crate) fn drain(&mut self) -> std::vec::Drain<'_, Effect> {
        self.0.drain(..)
    }
}

/// The context of one call of [`ShardMachine::handle`](super::ShardMachine::handle): the time, and the effects so far.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    pub(super) effects: &'a mut Effects,
}

impl Turn<'_> {
    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn send(&mut self, lane: LaneId, request: Request, tag: Pending) {
        self.push(Effect::Send(lane, Outgoing { request, tag }));
    }

    pub(super) fn tell(&mut self, ask: Ask<Acquired>, outcome: Result<AcquireOutcome>) {
        self.push(Effect::Answer(Answer::Acquire(ask, outcome)));
    }

    /// Answers the caller of a question, and names the endpoint that answered.
    pub(super) fn answer(&mut self, question: Box<Question>, answer: Result<Response>, at: &Endpoint) {
        self.push(Effect::Answer(Answer::Question(
            question,
            answer,
            at.shared_text().clone(),
        )));
    }
}
