//! Requests under way: what each is for, and who gets its answer. [`RequestKind::rules`] says what becomes of each kind.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Span;

use super::acquire::Acquire;
use super::ids::{LaneId, LeaseId, TicketId, WaitKey};
use super::progress::WaitsFor;
use super::question::Question;
use super::repeat::Repeat;
use super::rules::{Abandoned, RequestKind, Rules};
use super::waits::Waiter;
use crate::clock::after;
use crate::lease::cell::LeaseCell;
use crate::lease::release::ReleaseTold;
use crate::net::lane::Caller;
use crate::protocol::StableRef;
use crate::shard::registry::Claim;
use crate::types::{Grant, Key, Kind, Target, Token, Ttl};

/// A request under way, and what its answer is for.
pub(crate) enum Pending {
    /// `l` with timeout 0.
    Try(Box<Acquire>),
    /// `l` with timeout 0, for callers that have no server wait.
    Probe(Box<Probe>),
    /// `l` with timeout 0 under the name of the connection to which it was written before: it may have been granted then.
    Repeat(Box<Repeat>),
    /// `l` with a timeout: blocks its connection.
    Wait(Box<ServerWait>),
    /// `e`.
    Enqueue(Box<Acquire>),
    /// `w` at the place of a ticket, until then.
    Collect(TicketId, Instant),
    /// `e` under the name of a session, to take back the place of a ticket that was lost with its connection.
    Rejoin(TicketId, StableRef),
    /// `w` with timeout 0, to give up the place of a session, and what was granted there. How often that was asked for.
    GiveUp(Target, Key, u32),
    /// `w` with timeout 0 behind an `e` that was granted at once: ends the server's book-keeping of it.
    Settle(Kind, Key),
    /// `n` for a grant of whose TTL too little is sure to be left: sent before a caller gets it.
    Confirm {
        acquire: Box<Acquire>,
        grant: Arc<Grant>,
        owner: LaneId,
    },
    /// `n` for a lease.
    Renew(Renewal),
    /// `r`.
    Release(PendingRelease),
    /// `stats`, to see whether the member that serves still leads.
    Look,
    /// Something that touches no lease.
    Ask(Box<Question>),
}

/// A wait on the server. What it is granted goes to the first caller of its key.
#[derive(Debug)]
pub(crate) struct ServerWait {
    pub(crate) target: Target,
    pub(crate) key: Key,
    /// The TTL that was asked for.
    pub(crate) ttl: Option<Ttl>,
    pub(crate) until: Instant,
    /// How often it was asked anew, because another member of the cluster leads.
    pub(crate) redirects: u32,
    /// The session in which it was sent to a server already.
    pub(crate) session: Option<StableRef>,
}

impl ServerWait {
    /// What it waits for.
    pub(crate) fn wait_key(&self) -> WaitKey {
        (self.target, self.key.clone())
    }
}

/// A try of a key for callers that have no server wait.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) key: WaitKey,
    /// The TTL that was asked for.
    pub(crate) ttl: Option<Ttl>,
}

/// What waits for a connection, or for what a connection brings.
pub(crate) enum Wait {
    /// A caller that wants a grant, until then.
    Caller(Box<Acquire>, Instant),
    /// A caller that wants a ticket.
    Ticket(Box<Acquire>),
    /// A place that was lost with its connection: it is taken back in its session, or given up.
    Rejoin(TicketId, StableRef),
    /// A wait on the server that was lost with its connection: it is asked again in its session.
    Resume(Box<ServerWait>),
}

impl Wait {
    /// The session under whose name it has to be sent, if it was sent before.
    pub(crate) fn session(&self) -> Option<&StableRef> {
        match self {
            Self::Caller(..) => None,
            Self::Ticket(acquire) => acquire.session.as_deref(),
            Self::Rejoin(_, session) => Some(session),
            Self::Resume(wait) => wait.session.as_ref(),
        }
    }
}

impl Caller for Wait {
    fn is_gone(&self) -> bool {
        match self {
            Self::Caller(acquire, _) => acquire.ask.is_gone(),
            // What was sent in a session must be given up there, even if its caller is gone.
            Self::Ticket(acquire) => acquire.session.is_none() && acquire.ask.is_gone(),
            Self::Rejoin(..) | Self::Resume(_) => false,
        }
    }
}

impl Waiter for Wait {
    fn waits_for(&self, what: WaitsFor) {
        if let Self::Caller(acquire, _) | Self::Ticket(acquire) = self {
            acquire.waits_for(what);
        }
    }
}

/// A renewal under way.
pub(crate) struct Renewal {
    pub(crate) id: LeaseId,
    pub(crate) span: Span,
}

/// A lease on its way back to the server. It is repeated over reconnects until it is answered or its TTL is over.
pub(crate) struct PendingRelease {
    pub(crate) target: Target,
    pub(crate) given_back: GivenBack,
    /// The registry's entry, where there still is one.
    pub(crate) id: Option<LeaseId>,
    /// The connection that the server counts it to.
    pub(crate) owner: LaneId,
    /// When the server has forgotten it by itself.
    pub(crate) until: Instant,
    /// It was sent before and the answer was lost: "not held" then means that it arrived.
    pub(crate) repeated: bool,
    pub(crate) told: Option<ReleaseTold>,
}

/// What a release gives back.
pub(crate) enum GivenBack {
    Lease(Arc<LeaseCell>),
    /// What no caller got.
    Grant(Box<(Key, Token)>),
}

impl PendingRelease {
    /// Creates the release of what the registry keeps.
    pub(crate) fn of(
        claim: Claim,
        id: Option<LeaseId>,
        repeated: bool,
        told: Option<ReleaseTold>,
        now: Instant,
    ) -> Self {
        Self {
            target: claim.target,
            id,
            owner: claim.owner,
            until: after(now, claim.cell.ttl.as_duration()),
            given_back: GivenBack::Lease(claim.cell),
            repeated,
            told,
        }
    }

    pub(crate) fn key(&self) -> &Key {
        match &self.given_back {
            GivenBack::Lease(cell) => &cell.key,
            GivenBack::Grant(grant) => &grant.0,
        }
    }

    pub(crate) fn token(&self) -> &Token {
        match &self.given_back {
            GivenBack::Lease(cell) => &cell.token,
            GivenBack::Grant(grant) => &grant.1,
        }
    }
}

impl Pending {
    pub(crate) fn kind(&self) -> RequestKind {
        match self {
            Self::Try(_) => RequestKind::Try,
            Self::Probe(_) => RequestKind::Probe,
            Self::Repeat(_) => RequestKind::Repeat,
            Self::Wait(_) => RequestKind::Wait,
            Self::Enqueue(_) => RequestKind::Enqueue,
            Self::Collect(..) => RequestKind::Collect,
            Self::Rejoin(..) => RequestKind::Rejoin,
            Self::GiveUp(..) => RequestKind::GiveUp,
            Self::Settle(..) => RequestKind::Settle,
            Self::Confirm { .. } => RequestKind::Confirm,
            Self::Renew(_) => RequestKind::Renew,
            Self::Release(_) => RequestKind::Release,
            Self::Look => RequestKind::Look,
            Self::Ask(_) => RequestKind::Ask,
        }
    }

    pub(crate) fn rules(&self) -> Rules {
        self.kind().rules()
    }

    /// The acquire whose caller it serves.
    fn acquire(&self) -> Option<&Acquire> {
        match self {
            Self::Try(acquire) | Self::Enqueue(acquire) | Self::Confirm { acquire, .. } => Some(acquire),
            _ => None,
        }
    }

    /// Whether it was sent in a session before.
    fn is_in_session(&self) -> bool {
        self.acquire().is_some_and(|acquire| acquire.session.is_some())
    }

    fn caller_is_gone(&self) -> bool {
        match self {
            Self::Ask(question) => question.is_gone(),
            other => other.acquire().is_some_and(|acquire| acquire.ask.is_gone()),
        }
    }
}

impl Caller for Pending {
    /// Whether it may be forgotten, as long as it was not sent.
    fn is_gone(&self) -> bool {
        match self.rules().abandoned {
            Abandoned::Skip => self.caller_is_gone(),
            Abandoned::SkipUnlessInSession => !self.is_in_session() && self.caller_is_gone(),
            Abandoned::GoesOn => false,
        }
    }
}
