//! What a shard wants done.

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
use crate::lease::release::ReleaseTold;
use crate::net::connect::Purpose;
use crate::net::endpoint::Endpoint;
use crate::net::health::ShardHealth;
use crate::net::lane::Outgoing;
use crate::protocol::{Request, Response};
use crate::types::{Key, Target};

/// One thing to do. They are done in order.
pub(crate) enum Effect {
    /// Begin to connect. What happens comes back as [`Input::Lane`](super::Input::Lane).
    Open(LaneId, Box<Opening>),
    /// Send a request. If the connection has ended meanwhile, it belongs to what its end leaves unwritten.
    Send(LaneId, Outgoing<Pending>),
    /// Send nothing more; the connection ends when all is answered.
    Finish(LaneId),
    /// End the connection now. What was not answered comes back with its end.
    HangUp(LaneId),
    /// End the connection now, and forget what is on it: its end is no news.
    Close(LaneId),
    /// Tell a caller.
    Answer(Answer),
    /// Publish the health.
    Publish(ShardHealth),
    /// Keep this for the shard that takes this one's place if it dies.
    HandOver(Handover),
    /// Find out whether the first endpoint can be reached, and tell so by
    /// [`Input::FirstIsThere`](super::Input::FirstIsThere).
    ProbeFirst(Ask<Duration>),
    /// The shard is over.
    End(Option<oneshot::Sender<ShutdownReport>>, ShutdownReport),
}

/// How to connect.
pub(crate) struct Opening {
    pub(crate) role: Role,
    /// Before the attempt.
    pub(crate) pause: Duration,
    /// When the attempt is given up even if the connect timeout is not over.
    pub(crate) give_up_at: Option<Instant>,
    /// Which of the shard's endpoints.
    pub(crate) endpoint: usize,
    pub(crate) purpose: Purpose,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Everything that does not block.
    Pipelined,
    /// One blocking request at a time.
    Exclusive,
    /// Requests that may cost the connection, so that it must own nothing; there is one, while it is needed.
    Disposable,
}

impl Role {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Pipelined, Self::Exclusive, Self::Disposable];

    /// Its name as metrics and spans carry it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pipelined => "pipelined",
            Self::Exclusive => "exclusive",
            Self::Disposable => "aside",
        }
    }
}

/// What a shard leaves to the one that takes its place when it dies: other clients live on, and what they may hold must be
/// guarded as long as before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Handover {
    /// The longest lease that was seen.
    pub(crate) longest_ttl: Duration,
    /// No server is asked for anything before that.
    pub(crate) hold_back: Option<Instant>,
}

/// A caller, and what it is told.
pub(crate) enum Answer {
    Acquire(Ask<Acquired>, Result<AcquireOutcome>),
    Release(ReleaseTold, Result<()>),
    Question(Box<Question>, Result<Response>, Arc<str>),
    Failback(Ask<Duration>, Result<Duration>),
}

/// What came of an acquire.
pub(crate) enum AcquireOutcome {
    Lease(LeaseId, Arc<LeaseCell>),
    Busy(Refusal),
    Queued(TicketId, Target, Key, Refusal),
}

/// What is to be done, in order.
#[derive(Default)]
pub(crate) struct Effects(Vec<Effect>);

impl Effects {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// Takes all of them.
    pub(crate) fn drain(&mut self) -> std::vec::Drain<'_, Effect> {
        self.0.drain(..)
    }
}

/// One call of [`ShardMachine::handle`](super::ShardMachine::handle): the moment, and what it brings about.
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

    /// Tells a caller what its question brought, and from which endpoint.
    pub(super) fn answer(&mut self, question: Box<Question>, answer: Result<Response>, at: &Endpoint) {
        self.push(Effect::Answer(Answer::Question(
            question,
            answer,
            at.shared_text().clone(),
        )));
    }
}
