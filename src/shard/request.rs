//! Requests under way, and the callers and leases that they serve. [`RequestKind::rules`] says how each kind is
//! retried.

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
use crate::lease::release::ReleaseReply;
use crate::net::lane::Caller;
use crate::protocol::StableRef;
use crate::shard::registry::Claim;
use crate::types::{Grant, Key, Kind, Target, Token, Ttl};

/// A request under way, with the data that is needed to handle its answer.
pub(crate) enum Pending {
    /// `l` with timeout 0.
    Try(Box<Acquire>),
    /// `l` with timeout 0, for callers that have no wait on the server.
    Probe(Box<Probe>),
    /// `l` with timeout 0, sent again under the name of the connection to which it was first written, because it may
    /// have been granted there.
    Repeat(Box<Repeat>),
    /// `l` with a timeout. It blocks its connection.
    Wait(Box<ServerWait>),
    /// `e`.
    Enqueue(Box<Acquire>),
    /// `w` at a ticket's queue position, until this instant.
    Collect(TicketId, Instant),
    /// `e` under a session's name, to reclaim the queue position of a ticket whose connection was lost.
    Rejoin(TicketId, StableRef),
    /// `w` with timeout 0, to give up a queue position and any grant there. The number counts these requests on the
    /// same connection, this one included.
    GiveUp(Target, Key, u32),
    /// `w` with timeout 0 after an `e` that was granted at once. It makes the server forget the enqueued grant.
    Settle(Kind, Key),
    /// `n` for a grant that may have used up half of its TTL or more. It is sent before a caller gets the grant.
    Confirm {
        acquire: Box<Acquire>,
        grant: Arc<Grant>,
        owner: LaneId,
    },
    /// `n` for a lease.
    Renew(Renewal),
    /// `r`.
    Release(PendingRelease),
    /// `stats`, to find out whether the serving member still leads.
    Look,
    /// A request that touches no lease.
    Ask(Box<Question>),
}

/// A wait on the server. Its grant goes to the first caller of its key.
#[derive(Debug)]
pub(crate) struct ServerWait {
    pub(crate) target: Target,
    pub(crate) key: Key,
    /// The TTL that the request asked for.
    pub(crate) ttl: Option<Ttl>,
    pub(crate) until: Instant,
    /// The number of repeated requests that count toward `max_redirects`.
    pub(crate) redirects: u32,
    /// The session under which the wait was already sent to a server.
    pub(crate) session: Option<StableRef>,
}

impl ServerWait {
    /// Returns the key and the kind of lease that the wait is for.
    pub(crate) fn wait_key(&self) -> WaitKey {
        (self.target, self.key.clone())
    }
}

/// A try of a key for callers that have no wait on the server.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) key: WaitKey,
    /// The TTL that the request asked for.
    pub(crate) ttl: Option<Ttl>,
}

/// An entry of the waits. It waits for a connection, or for a grant from a wait on the server.
pub(crate) enum Wait {
    /// A caller that waits for a grant, until this instant.
    Caller(Box<Acquire>, Instant),
    /// A caller that waits for a ticket.
    Ticket(Box<Acquire>),
    /// A queue position whose connection was lost. It is reclaimed in its session, or given up.
    Rejoin(TicketId, StableRef),
    /// A wait on the server whose connection was lost. It is sent again in its session.
    Resume(Box<ServerWait>),
}

impl Wait {
    /// Returns the session under which the wait must be sent, if it was sent before.
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
            // A request that was sent in a session must be given up there, even if its caller is gone.
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

/// A release under way. It is sent again after each reconnect, until it is answered or the TTL is over.
pub(crate) struct PendingRelease {
    pub(crate) target: Target,
    pub(crate) subject: ReleaseSubject,
    /// The registry's entry, if it still exists.
    pub(crate) id: Option<LeaseId>,
    /// The connection to which the server attributes the lease.
    pub(crate) owner: LaneId,
    /// When the server drops the lease by itself.
    pub(crate) until: Instant,
    /// Whether "not held" counts as released, because the release was sent before and its answer was lost, or because
    /// the lease may have ended before the release was sent.
    pub(crate) repeated: bool,
    pub(crate) reply: Option<ReleaseReply>,
}

/// The lease or grant that a release ends.
pub(crate) enum ReleaseSubject {
    Lease(Arc<LeaseCell>),
    /// A grant that no caller received.
    Grant(Box<(Key, Token)>),
}

impl PendingRelease {
    /// Creates the release of a lease from the registry.
    pub(crate) fn of(
        claim: Claim,
        id: Option<LeaseId>,
        repeated: bool,
        reply: Option<ReleaseReply>,
        now: Instant,
    ) -> Self {
        Self {
            target: claim.target,
            id,
            owner: claim.owner,
            until: after(now, claim.cell.ttl.as_duration()),
            subject: ReleaseSubject::Lease(claim.cell),
            repeated,
            reply,
        }
    }

    pub(crate) fn key(&self) -> &Key {
        match &self.subject {
            ReleaseSubject::Lease(cell) => &cell.key,
            ReleaseSubject::Grant(grant) => &grant.0,
        }
    }

    pub(crate) fn token(&self) -> &Token {
        match &self.subject {
            ReleaseSubject::Lease(cell) => &cell.token,
            ReleaseSubject::Grant(grant) => &grant.1,
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

    /// Returns the acquire that this request serves.
    fn acquire(&self) -> Option<&Acquire> {
        match self {
            Self::Try(acquire) | Self::Enqueue(acquire) | Self::Confirm { acquire, .. } => Some(acquire),
            _ => None,
        }
    }

    /// Whether the request was sent in a session before.
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
    /// Whether the request may be dropped while it is unsent.
    fn is_gone(&self) -> bool {
        match self.rules().abandoned {
            Abandoned::Skip => self.caller_is_gone(),
            Abandoned::SkipUnlessInSession => !self.is_in_session() && self.caller_is_gone(),
            Abandoned::GoesOn => false,
        }
    }
}
