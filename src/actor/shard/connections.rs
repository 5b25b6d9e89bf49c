//! Connections that come and go, and what becomes of what was on them.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{Span, field};

use super::Shard;
use crate::actor::lanes::{Role, Work};
use crate::actor::message::{Pending, Releasing};
use crate::error::{Error, ErrorKind};
use crate::health::ConnectionState;
use crate::lease::cell::LostReason;
use crate::lease::registry::LaneId;
use crate::net::connect::Abilities;
use crate::net::dial::{Dial, LaneEvent};
use crate::net::lane::{Caller, LaneEnd};

impl Shard {
    pub(super) fn dial(&self, known: Option<Abilities>) -> Dial {
        Dial {
            connect: self.config.reach(&self.endpoint, self.config.keepalive),
            known,
            keepalive: self.config.keepalive,
            reply_timeout: self.config.reply_timeout,
            max_in_flight: self.config.max_in_flight,
            hears_signals: false,
            metrics: self.lane_metrics.clone(),
        }
    }

    pub(super) fn open_main(&mut self, pause: Duration) {
        // What the server can do is asked anew: it may be another release that comes back.
        let dial = self.dial(None);
        let work = Work::Idle(Instant::now());
        self.main = self.lanes.open(Role::Pipelined, work, pause, dial, self.myself.clone());
    }

    pub(super) fn lane_event(&mut self, id: LaneId, event: LaneEvent<Pending>) {
        if let Some(role) = self.lanes.role(id) {
            match &event {
                LaneEvent::Up(_) => self.metrics.connected(role),
                LaneEvent::Failed(error) => self.metrics.connect_failed(role, error),
                LaneEvent::Ended(LaneEnd { cause: Some(cause), .. }) => self.metrics.disconnected(role, cause),
                LaneEvent::Ended(_) | LaneEvent::Report(_) => {}
            }
        }
        match event {
            LaneEvent::Up(abilities) if id == self.main => self.main_up(abilities),
            LaneEvent::Up(_) if self.is_aside(id) => self.aside_up(id),
            LaneEvent::Up(_) => self.exclusive_up(id),
            LaneEvent::Failed(error) if id == self.main => self.main_failed(error),
            LaneEvent::Failed(error) if self.is_aside(id) => self.aside_failed(id, &error),
            LaneEvent::Failed(error) => self.exclusive_failed(id, error),
            LaneEvent::Report(report) => {
                let replies = report.received.replies;
                self.lanes.answered(id, replies.len() + report.skipped.len());
                for reply in replies {
                    self.reply(id, reply);
                }
                for pending in report.skipped {
                    if let Pending::Wait(..) | Pending::Enqueue(_) = pending {
                        self.wait_ended(id);
                    }
                }
                self.start_waits();
            }
            LaneEvent::Ended(end) => {
                let cause = end.cause.map(|cause| cause.at(self.endpoint.as_text()));
                self.lane_ended(id, cause, end.leftovers.unknown, end.leftovers.unwritten);
            }
        }
    }

    fn main_up(&mut self, abilities: Abilities) {
        let away = self.away.take().unwrap_or_else(Span::none);
        away.record("attempts", self.attempts.made());
        away.in_scope(|| {
            tracing::info!(shard = self.index, endpoint = %self.endpoint, attempts = self.attempts.made(), "connected");
        });
        if std::mem::replace(&mut self.was_connected, true) {
            self.metrics.reconnected();
        }
        self.lanes.is_up(self.main);
        self.main_is_up = true;
        self.known = Some(abilities);
        self.attempts = self.config.reconnect.start();
        self.last_error = None;
        self.hopeless = false;
        self.set_health(ConnectionState::Connected);
        // First what is held, then what is owed, then what is wanted.
        let overdue = self.registry.overdue();
        self.renew_all(overdue);
        self.send_owed();
        for pending in std::mem::take(&mut self.parked) {
            if !pending.is_gone() {
                self.send(pending);
            }
        }
        self.start_waits();
    }

    fn main_failed(&mut self, error: Error) {
        self.lanes.remove(self.main);
        self.hopeless = error.is_fatal();
        self.main_away(error);
    }

    /// The pipelined connection is not there: try again after a pause.
    fn main_away(&mut self, error: Error) {
        self.main_is_up = false;
        let pause = self.attempts.failed();
        let (shard, endpoint) = (self.index, &self.endpoint);
        let away = self
            .away
            .get_or_insert_with(|| tracing::info_span!("reconnect", shard, %endpoint, attempts = field::Empty));
        away.in_scope(|| {
            let attempt = self.attempts.made();
            tracing::warn!(shard, %endpoint, attempt, retry_in = ?pause, %error, "not connected");
        });
        self.last_error = Some(error.clone());
        self.set_health(ConnectionState::Reconnecting {
            attempt: self.attempts.made(),
            last_error: error,
        });
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

    fn lane_ended(&mut self, id: LaneId, cause: Option<Error>, unknown: Vec<Pending>, unwritten: Vec<Pending>) {
        let Some(lane) = self.lanes.remove(id) else { return };
        let was_main = id == self.main;
        let cause = cause.unwrap_or_else(|| Error::new(ErrorKind::Disconnected, "the connection was closed"));
        if was_main {
            self.main_is_up = false;
        }
        // First the holders: their leases go with the connection.
        let why = if lane.draining {
            LostReason::ServerDraining
        } else {
            LostReason::Disconnected
        };
        let lost = self.registry.owner_gone(id, self.config.survives_disconnect, why);
        if !lost.is_empty() {
            tracing::warn!(shard = self.index, endpoint = %self.endpoint, leases = lost.len(), %cause, "leases lost");
        }
        // In case the server still holds them; their guards have nothing more to give back.
        for claim in lost {
            self.owe(Releasing::of(&claim, None, true, None));
        }
        let mut wait_begun = match lane.work {
            Work::Opening(subject, place, wait) => {
                self.waits.put_back(subject, place, wait);
                None
            }
            Work::Waiting(subject, place) => Some((subject, place)),
            Work::Ticket(subject, place, ticket) => {
                self.tickets.forget(ticket);
                Some((subject, place))
            }
            Work::Idle(_) | Work::Ending => None,
        };
        for pending in unwritten {
            match (pending, wait_begun.take()) {
                // Not one byte of it was sent: it may begin anew.
                (wait @ (Pending::Wait(..) | Pending::Enqueue(_)), Some((subject, place))) => {
                    self.waits.put_back(subject, place, wait);
                }
                // These mean something on this connection only.
                (bound @ (Pending::Collect { .. } | Pending::GiveUp(..) | Pending::Settle(..)), begun) => {
                    wait_begun = begun;
                    self.refuse(bound, cause.clone());
                }
                (other, begun) => {
                    wait_begun = begun;
                    self.unsent(other);
                }
            }
        }
        if let Some((subject, _)) = wait_begun {
            self.waits.finished(&subject);
        }
        self.settle_unknown(unknown, &cause);
        if was_main {
            self.main_away(cause);
        } else if self.main_is_up {
            self.send_owed();
        }
        self.start_waits();
    }

    /// The connection ended after these were sent, and nobody knows what the server made of them.
    fn settle_unknown(&mut self, unknown: Vec<Pending>, cause: &Error) {
        for pending in unknown {
            match pending {
                // Never sent again: that could take two grants.
                Pending::Try(acquire)
                | Pending::Wait(acquire, _)
                | Pending::Enqueue(acquire)
                | Pending::Collect { acquire, .. } => acquire.ask.tell(Err(cause.clone())),
                Pending::GiveUp(..) | Pending::Settle(..) => {}
                Pending::Stats(ask) => ask.tell(Err(cause.clone())),
                // A renewal may be repeated at will.
                Pending::Renew(renewal) => self.renewal_unanswered(&renewal),
                confirm @ Pending::Confirm { .. } => self.unsent(confirm),
                Pending::Release(mut releasing) => {
                    releasing.repeated = true;
                    self.owed.push(releasing);
                }
            }
        }
    }
}
