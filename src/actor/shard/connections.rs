//! Connections that come and go, and what becomes of what was on them.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{Span, field};

use super::Shard;
use crate::actor::lanes::{Role, Work};
use crate::actor::message::{Pending, Releasing};
use crate::actor::waits::{Place, Subject};
use crate::clock::after;
use crate::error::{Error, ErrorKind};
use crate::health::ConnectionState;
use crate::lease::cell::LostReason;
use crate::lease::registry::{LaneId, Survival};
use crate::net::connect::{Purpose, Shown};
use crate::net::dial::{Dial, LaneEvent};
use crate::net::failover::Pace;
use crate::net::lane::{Caller, LaneEnd};
use crate::protocol::StableRef;

/// A pipelined connection that stood for so long was of use. One that ends sooner, or in silence, is no reason to begin anew with
/// the pauses between attempts, nor to ask the same server again first.
const OF_USE_AFTER: Duration = Duration::from_secs(1);

/// The part of a server's read timeout by which its leases are given up before it is over.
const READ_TIMEOUT_MARGIN: u32 = 20;

/// An exclusive connection carries one wait, and what follows from it.
const EXCLUSIVE_IN_FLIGHT: usize = 8;

impl Shard {
    pub(super) fn dial(&self, purpose: Purpose) -> Dial {
        let max_in_flight = match purpose {
            Purpose::Session(_) => EXCLUSIVE_IN_FLIGHT,
            _ => self.config.max_in_flight,
        };
        Dial {
            connect: self.config.reach(self.endpoint(), self.config.keepalive, purpose),
            keepalive: self.config.keepalive,
            reply_timeout: self.config.reply_timeout,
            max_in_flight,
            hears_signals: false,
            metrics: self.lane_metrics.clone(),
        }
    }

    /// Begins to establish a connection to the endpoint that serves, or is to.
    pub(super) fn open(&mut self, role: Role, work: Work, pause: Duration, dial: Dial) -> LaneId {
        let endpoint = self.failover.at();
        self.lanes.open(role, work, pause, endpoint, dial, self.myself.clone())
    }

    pub(super) fn open_main(&mut self, pause: Duration) {
        let purpose = match self.failover.is_cluster() {
            true => Purpose::Leading(StableRef::random()),
            false => Purpose::Requests,
        };
        let dial = self.dial(purpose);
        self.main = self.open(Role::Pipelined, Work::Idle(Instant::now()), pause, dial);
    }

    pub(super) fn lane_event(&mut self, id: LaneId, event: LaneEvent<Pending>) {
        // What a connection had to tell that was given up meanwhile is no news.
        let Some(role) = self.lanes.role(id) else { return };
        match &event {
            LaneEvent::Up(_) => self.metrics.connected(role),
            LaneEvent::Failed(error) => self.metrics.connect_failed(role, error),
            LaneEvent::Ended(end) => {
                if let Some(cause) = &end.cause {
                    self.metrics.disconnected(role, cause);
                }
            }
            LaneEvent::Report(_) => {}
        }
        match event {
            LaneEvent::Up(shown) if id == self.main => self.main_up(shown),
            LaneEvent::Up(_) if self.is_aside(id) => self.aside_up(id),
            LaneEvent::Up(shown) => self.exclusive_up(id, shown.abilities),
            LaneEvent::Failed(error) if id == self.main => self.main_failed(error),
            LaneEvent::Failed(error) if self.is_aside(id) => self.aside_failed(id, &error),
            LaneEvent::Failed(error) => self.exclusive_failed(id, error),
            LaneEvent::Report(report) => {
                let replies = report.received.replies;
                if !replies.is_empty() {
                    self.heard_over(id);
                }
                self.lanes.answered(id, replies.len() + report.skipped.len());
                if !replies.is_empty() && self.lanes.answers_first(id) && role == Role::Exclusive {
                    self.exclusive_attempts = self.config.reconnect.start();
                }
                for reply in replies {
                    self.reply(id, reply);
                }
                for pending in report.skipped {
                    if let Pending::Wait(..) | Pending::Enqueue(_) = pending {
                        self.wait_ended(id);
                    }
                }
                if let Some(leader) = report.received.not_leader {
                    self.leads_no_more(id, leader.as_deref());
                }
                self.start_waits();
            }
            LaneEvent::Ended(end) => self.lane_ended(id, *end),
        }
    }

    fn main_up(&mut self, shown: Shown) {
        let away = self.away.take().unwrap_or_else(Span::none);
        away.record("attempts", self.attempts.made());
        away.record("endpoint", tracing::field::display(self.endpoint()));
        away.in_scope(|| {
            let attempts = self.attempts.made();
            tracing::info!(shard = self.index, endpoint = %self.endpoint(), attempts, "connected");
        });
        if std::mem::replace(&mut self.was_connected, true) {
            self.metrics.reconnected();
        }
        self.lanes.is_up(self.main);
        self.main_is_up = true;
        self.main_since = Instant::now();
        self.last_error = None;
        self.hopeless_in_a_row = 0;
        self.hopeless = false;
        if let Some(cluster) = shown.cluster {
            self.saw_cluster(cluster);
        }
        if let Some(switch) = self.failover.connected() {
            self.switched(switch);
        }
        self.set_health(ConnectionState::Connected);
        // First what is held, then what is owed, then what is wanted.
        self.renew_overdue();
        self.send_owed();
        for pending in std::mem::take(&mut self.parked) {
            if !pending.is_gone() {
                self.send(pending);
            }
        }
        self.start_waits();
    }

    /// The pipelined connection is over. If it was of use, attempts to connect are counted anew.
    pub(super) fn main_was_of_use(&mut self, was_silent: bool) -> bool {
        let of_use = !was_silent && self.main_since.elapsed() >= OF_USE_AFTER;
        if of_use {
            self.attempts = self.config.reconnect.start();
            self.failover.proved();
        }
        of_use
    }

    fn main_failed(&mut self, error: Error) {
        self.lanes.remove(self.main);
        self.hopeless_in_a_row = match error.is_fatal() {
            true => self.hopeless_in_a_row + 1,
            false => 0,
        };
        self.hopeless = self.hopeless_in_a_row >= self.failover.len();
        let pace = match error.kind() {
            ErrorKind::NotLeader if self.failover.is_cluster() => {
                self.metrics.redirected();
                self.failover.redirected(error.leader())
            }
            _ => self.failover.failed(Instant::now(), self.guard.until()),
        };
        self.main_away(error, pace);
    }

    /// The pipelined connection is not there: try again, at once where another endpoint may serve.
    pub(super) fn main_away(&mut self, error: Error, pace: Pace) {
        self.main_is_up = false;
        let pause = match pace {
            Pace::AtOnce => {
                self.attempts.failed_here();
                Duration::ZERO
            }
            Pace::AfterAPause => self.attempts.failed(),
        };
        let pause = pause.max(self.hold_back.saturating_duration_since(Instant::now()));
        let (shard, attempt) = (self.index, self.attempts.made());
        let away = self.away.get_or_insert_with(|| {
            tracing::info_span!("reconnect", shard, endpoint = field::Empty, attempts = field::Empty)
        });
        away.in_scope(|| {
            let endpoint = error.endpoint().unwrap_or_default();
            tracing::warn!(shard, endpoint, attempt, retry_in = ?pause, %error, "not connected");
        });
        // While another endpoint may serve in a moment, the shard is not away.
        if pace == Pace::AfterAPause || self.hopeless {
            self.last_error = Some(error.clone());
        }
        if self.was_connected || self.last_error.is_some() {
            let last_error = error;
            self.set_health(ConnectionState::Reconnecting { attempt, last_error });
        }
        if self.refusal().is_some() {
            let waits = self.waits.drain();
            for pending in std::mem::take(&mut self.parked).into_iter().chain(waits) {
                if let Some(error) = self.refusal() {
                    self.refuse(pending, error);
                }
            }
        }
        self.open_main(pause);
    }

    fn lane_ended(&mut self, id: LaneId, end: LaneEnd<Pending>) {
        let Some(lane) = self.lanes.remove(id) else { return };
        let was_main = id == self.main;
        let LaneEnd {
            cause,
            leftovers,
            was_silent,
            heard,
        } = end;
        if cause.is_some() && lane.role == Role::Exclusive && !lane.has_answered && !lane.retired {
            // A server that accepts connections and then says nothing is not asked again and again without a pause.
            self.exclusive_not_before = Instant::now() + self.exclusive_attempts.failed();
        }
        let endpoint = self.failover.endpoint(lane.endpoint).as_text();
        let cause = cause
            .unwrap_or_else(|| Error::new(ErrorKind::Disconnected, "the connection was closed"))
            .at(endpoint);
        if was_main {
            self.main_is_up = false;
        }
        // First the holders: their leases go with the connection.
        if was_main && self.failover.is_cluster() {
            self.registry.suspect_all(self.survival(heard));
        } else if !lane.retired || !self.failover.is_cluster() {
            self.owner_gone(id, lane.draining, heard, &cause);
        }
        let mut ended = Ended {
            was_main,
            session: lane.session,
            wait: None,
        };
        match lane.work {
            Work::Opening(subject, place, wait) => self.waits.put_back(subject, place, wait),
            Work::Waiting(subject, place) => ended.wait = Some((subject, place)),
            Work::Ticket(subject, place, ticket) => match self.ticket_lost(ticket, ended.session.clone()) {
                Some(rejoin) => self.waits.put_back(subject, place, rejoin),
                None => ended.wait = Some((subject, place)),
            },
            Work::Idle(_) | Work::Ending => {}
        }
        for pending in leftovers.unwritten {
            self.was_unwritten(pending, &mut ended, &cause);
        }
        for pending in leftovers.unknown {
            self.is_unknown(pending, &mut ended, &cause);
        }
        if let Some((subject, _)) = ended.wait {
            self.waits.finished(&subject);
        }
        if was_main {
            self.main_lost(cause, was_silent);
        } else if self.main_is_up {
            self.renew_overdue();
            self.send_owed();
        }
        self.start_waits();
    }

    fn main_lost(&mut self, cause: Error, was_silent: bool) {
        let of_use = self.main_was_of_use(was_silent);
        self.guard.lost_contact(Instant::now());
        let pace = self.failover.lost(of_use);
        self.main_away(cause, pace);
    }

    /// How long leases outlive a connection to a server that was heard of then. If the leader of a cluster is gone, the next knows
    /// them; but if it is there, and only cannot be reached, it gives them up when it has read nothing for its read timeout.
    fn survival(&self, heard: Instant) -> Survival {
        if self.config.survives_disconnect {
            return Survival::WholeTtl;
        }
        if !self.failover.is_cluster() {
            return Survival::None;
        }
        let patience = self.config.server_read_timeout;
        Survival::Until(after(heard, patience - patience / READ_TIMEOUT_MARGIN))
    }

    /// A connection is gone, and with it what the server counts to it.
    fn owner_gone(&mut self, id: LaneId, was_draining: bool, heard: Instant, cause: &Error) {
        let why = match was_draining {
            true => LostReason::ServerDraining,
            false => LostReason::Disconnected,
        };
        let lost = self.registry.owner_gone(id, self.survival(heard), why);
        if !lost.is_empty() {
            let endpoint = cause.endpoint().unwrap_or_default();
            tracing::warn!(shard = self.index, endpoint, leases = lost.len(), %cause, "leases lost");
        }
        // In case the server still holds them; their guards have nothing more to give back.
        for claim in lost {
            self.owe(Releasing::of(&claim, None, true, None));
        }
    }

    /// Not one byte of it was sent before its connection ended.
    fn was_unwritten(&mut self, pending: Pending, ended: &mut Ended, cause: &Error) {
        match (pending, ended.wait.take()) {
            (wait @ (Pending::Wait(..) | Pending::Enqueue(_) | Pending::Rejoin(..)), Some((subject, place))) => {
                self.waits.put_back(subject, place, wait);
            }
            (other, wait) => {
                ended.wait = wait;
                match other {
                    // These mean something on their connection only, or in its session.
                    Pending::Collect { .. } | Pending::GiveUp(..) | Pending::Settle(..) | Pending::Renew(_) => {
                        self.is_unknown(other, ended, cause);
                    }
                    other => self.again(other),
                }
            }
        }
    }

    /// The connection ended after it was sent, and nobody knows what the server made of it.
    fn is_unknown(&mut self, pending: Pending, ended: &mut Ended, cause: &Error) {
        let pending = match ended.session.clone() {
            Some(session) if pending.is_a_wait() => {
                match (
                    self.asked_anew(pending, Some(session), cause.clone()),
                    ended.wait.take(),
                ) {
                    (Some(wait), Some((subject, place))) => self.waits.put_back(subject, place, wait),
                    (Some(wait), None) => self.queue(wait),
                    (None, begun) => ended.wait = begun,
                }
                return;
            }
            _ => pending,
        };
        match pending {
            // Never sent again: that could take two grants.
            Pending::Try(acquire)
            | Pending::Wait(acquire, _)
            | Pending::Enqueue(acquire)
            | Pending::Collect { acquire, .. } => acquire.ask.tell(Err(cause.clone())),
            Pending::Rejoin(ticket, _) => self.ticket_refused(ticket, cause.clone()),
            Pending::GiveUp(..) | Pending::Settle(..) => {}
            Pending::Stats(ask) => ask.tell(Err(cause.clone())),
            Pending::Barrier(ask, _) => ask.tell(Err(cause.clone())),
            // May be repeated at will; but if another connection has taken over, the lease is due there already.
            Pending::Renew(renewal) if ended.was_main => self.renewal_unanswered(&renewal),
            Pending::Renew(renewal) => renewal.is_unanswered(),
            confirm @ Pending::Confirm { .. } => self.again(confirm),
            Pending::Release(mut releasing) => {
                releasing.repeated = true;
                self.owed.push(releasing);
            }
        }
    }

    /// Sends over the pipelined connection what did not get through over another.
    pub(super) fn again(&mut self, pending: Pending) {
        match self.main_is_up {
            true => self.send(pending),
            false => self.unsent(pending),
        }
    }
}

/// A connection that ended, while what is left of it is taken care of.
struct Ended {
    /// It was the pipelined one, and no other has taken over.
    was_main: bool,
    session: Option<StableRef>,
    /// The wait that it carried, until that was taken care of.
    wait: Option<(Subject, Place)>,
}
