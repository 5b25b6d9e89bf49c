//! One connection, and what it is doing.

use std::collections::HashSet;

use tokio::time::Instant;

use super::effect::Role;
use super::ids::{Arrival, TicketId, WaitKey};
use super::request::Wait;
use super::waits::{Bound, Occupant};
use crate::protocol::StableRef;
use crate::types::{Key, Kind, Target, Token};

/// How many connections of a role there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneCount {
    /// Those being established included.
    pub(crate) all: usize,
    pub(crate) up: usize,
}

/// What a connection is doing.
pub(super) enum Work {
    /// Nothing, since then.
    Idle(Instant),
    /// It is being established: for this, or for what is next when it is there.
    Opening(Option<Box<Bound<Wait>>>),
    /// It waits on the server for a grant.
    Waiting(WaitKey),
    /// It was sent a request about a ticket's place that is answered at once.
    Asking(WaitKey, Arrival),
    /// It has a place in a queue, which belongs to a ticket.
    Ticket(WaitKey, Arrival, TicketId),
    /// It is for what is asked again under its name.
    Repeating,
    /// It is over, and its end is on its way.
    Ending,
}

/// What a connection may be used for, as far as waits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is not for waits.
    NotForWaits,
    /// It is being established, for what is next.
    Opening,
    /// It is in use.
    InUse,
    /// It is idle and owns nothing.
    Clean,
    /// It is idle and owns leases.
    Owning,
}

/// One connection.
pub(super) struct Connection {
    pub(super) role: Role,
    pub(super) work: Work,
    /// When the server ends the wait in flight by itself.
    pub(super) waits_until: Option<Instant>,
    /// Its server said that it is shutting down.
    pub(super) draining: bool,
    /// Which of the shard's endpoints it leads to.
    pub(super) endpoint: usize,
    /// The name of its session, by which another member of the cluster would know it again.
    pub(super) session: Option<StableRef>,
    /// The name that it presented as a pipelined connection, if its server remembers such: what it may have been granted unheard is
    /// found under that.
    pub(super) name: Option<StableRef>,
    /// What it waits for, or did last, in its session.
    pub(super) target: Option<Target>,
    /// All that it has waited for, in its session.
    asked_for: HashSet<(Kind, Key)>,
    /// What was found under its name, and has a caller or is given back already.
    pub(super) found: Vec<Token>,
    /// Nothing more is sent over it.
    pub(super) retired: bool,
    /// It ends when all is answered.
    pub(super) finishing: bool,
    /// It was closed to give up its wait: what it still brings does not count.
    pub(super) cut: bool,
    /// It has brought an answer.
    pub(super) has_answered: bool,
    /// How many leases the server counts to it.
    pub(super) owns: usize,
    pub(super) up_since: Option<Instant>,
    /// Sent and not answered yet.
    pub(super) in_flight: usize,
}

impl Connection {
    /// A connection that is about to be established.
    pub(super) fn new(role: Role, work: Work, endpoint: usize, session: Option<StableRef>) -> Self {
        Self {
            role,
            work,
            waits_until: None,
            draining: false,
            endpoint,
            session,
            name: None,
            target: None,
            asked_for: HashSet::new(),
            found: Vec::new(),
            retired: false,
            finishing: false,
            cut: false,
            has_answered: false,
            owns: 0,
            up_since: None,
            in_flight: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up_since.is_some()
    }

    pub(super) fn up_since(&self) -> Option<Instant> {
        self.up_since
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }

    pub(super) fn has_answered(&self) -> bool {
        self.has_answered
    }

    pub(super) fn is_idle(&self) -> bool {
        let may_be_used = self.is_up() && !self.retired && !self.cut && self.role != Role::Pipelined;
        may_be_used && self.in_flight == 0 && matches!(self.work, Work::Idle(_))
    }

    pub(super) fn standing(&self) -> Standing {
        match self.work {
            _ if self.role != Role::Exclusive => Standing::NotForWaits,
            Work::Opening(None) => Standing::Opening,
            _ if !self.is_idle() => Standing::InUse,
            _ if self.owns == 0 => Standing::Clean,
            _ => Standing::Owning,
        }
    }

    /// Whether its wait may be given up by closing it, and is not over by itself before `soon`. Not where leases would go with
    /// it.
    pub(super) fn is_closable(&self, soon: Instant) -> bool {
        self.owns == 0 && !self.cut && !self.retired && self.waits_until.is_some_and(|until| until > soon)
    }

    /// A wait begins on it.
    pub(super) fn begin(&mut self, work: Work, key: &WaitKey, until: Option<Instant>) {
        if self.session.is_some() {
            self.target = Some(key.0);
            self.asked_for.insert((key.0.kind(), key.1.clone()));
        }
        self.work = work;
        self.waits_until = until;
    }

    /// Whether its session, if it has one, may have had this key: asked for it again, the server might say that it has it already.
    pub(super) fn may_have_had(&self, key: &WaitKey) -> bool {
        self.session.is_some() && self.asked_for.contains(&(key.0.kind(), key.1.clone()))
    }

    /// Its wait has a place in the queue, which belongs to a ticket.
    pub(super) fn hold_ticket(&mut self, id: TicketId, now: Instant) {
        self.work = match std::mem::replace(&mut self.work, Work::Idle(now)) {
            Work::Asking(key, arrival) => Work::Ticket(key, arrival, id),
            other => other,
        };
    }

    /// The ticket of its place is used: what is sent next ends its wait.
    pub(super) fn leave_ticket(&mut self, now: Instant) {
        self.work = match std::mem::replace(&mut self.work, Work::Idle(now)) {
            Work::Ticket(key, arrival, _) => Work::Asking(key, arrival),
            other => other,
        };
    }

    /// What it waits for is over as far as this connection goes. Returns what that was, where it stood, and what it was counted as.
    pub(super) fn stop_waiting(&mut self, now: Instant) -> Option<(WaitKey, Option<Arrival>, Occupant)> {
        self.waits_until = None;
        match std::mem::replace(&mut self.work, Work::Idle(now)) {
            Work::Waiting(key) => Some((key, None, Occupant::Wait)),
            Work::Asking(key, arrival) | Work::Ticket(key, arrival, _) => Some((key, Some(arrival), Occupant::Ticket)),
            other => {
                self.work = other;
                None
            }
        }
    }
}
