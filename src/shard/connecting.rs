//! Handles connections that come up, fail to open, or are lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Span, field};

use super::ShardMachine;
use super::connections::{Opened, Work};
use super::effect::{Role, Turn};
use super::ids::LaneId;
use super::request::Pending;
use super::serving::was_of_use;
use crate::clock::after;
use crate::error::{Error, ErrorKind};
use crate::human::human;
use crate::net::connect::{Purpose, Shown};
use crate::net::dial::LaneEvent;
use crate::net::failover::Switch;
use crate::net::health::ConnectionState;
use crate::net::reconnect::Retry;

impl ShardMachine {
    pub(super) fn lane_event(&mut self, id: LaneId, event: LaneEvent<Pending>, turn: &mut Turn<'_>) {
        // Ignores events of a connection that the shard has given up meanwhile.
        let Some(role) = self.connections.get(id).map(|connection| connection.role) else {
            return;
        };
        match event {
            LaneEvent::Up(shown) => {
                self.metrics.connected(role);
                self.knows_ping = shown.abilities.ping;
                match role {
                    Role::Pipelined => self.pipelined_up(id, shown, turn),
                    Role::Exclusive => self.exclusive_up(id, shown.abilities, turn),
                    Role::Disposable => {
                        self.connections.up(id, turn.now);
                        self.send_parked_disposable(turn);
                    }
                }
            }
            LaneEvent::Failed(error) => {
                self.metrics.connect_failed(role, &error);
                match role {
                    Role::Pipelined => self.pipelined_failed(id, error, turn),
                    Role::Exclusive => self.exclusive_failed(id, error, turn),
                    Role::Disposable => {
                        self.connections.remove(id);
                        self.disposable_failed(&error, turn);
                    }
                }
            }
            LaneEvent::Report(report) => {
                let replies = report.received.replies;
                if !replies.is_empty() {
                    self.heard_over(id, turn.now);
                }
                if self.connections.answered(id, replies.len(), report.skipped.len()) && role == Role::Exclusive {
                    self.wait_pace.succeeded(self.serving.reconnect.pauses());
                }
                for reply in replies {
                    self.reply(id, reply, turn);
                }
                // The repeats are sent only after all replies are handled, because two replies may bring the same
                // grant.
                self.send_repeats(id, turn);
                if role == Role::Disposable {
                    // The connection may now be idle, so it must be closed later.
                    self.schedule_housekeeping(turn);
                }
                for pending in report.skipped {
                    if let Pending::Enqueue(_) = pending {
                        self.wait_ended(id, turn);
                    }
                }
                if let Some(leader) = report.received.not_leader {
                    self.handle_not_leader_report(id, leader.as_deref(), turn);
                }
            }
            LaneEvent::Ended(end) => {
                if let Some(cause) = &end.cause {
                    self.metrics.disconnected(role, cause);
                }
                self.lane_ended(id, *end, turn);
            }
        }
    }

    // Pipelined connections. While none is up, one attempt is under way, and `Reconnect` chooses its endpoint and its
    // time. Once one is up, the additional ones are opened.

    /// Begins to connect to the current endpoint of the failover.
    pub(super) fn open_first(&mut self, pause: Duration, turn: &mut Turn<'_>) {
        for id in self.connections.in_slots() {
            self.connections.close(id, turn);
        }
        self.open_pipelined(pause, turn);
    }

    fn open_further(&mut self, pause: Duration, turn: &mut Turn<'_>) {
        while self.connections.is_serving() && self.connections.has_vacancy() && !self.is_closing() {
            self.open_pipelined(pause, turn);
        }
    }

    fn open_pipelined(&mut self, pause: Duration, turn: &mut Turn<'_>) {
        let purpose = match self.serving.is_cluster() {
            true => Purpose::Leading(self.stable_ref.clone().unwrap_or_else(|| self.refs.next())),
            // An additional connection goes to the server that already serves.
            false if self.connections.is_serving() => Purpose::Requests,
            false => Purpose::Pipelined,
        };
        let give_up_at = match self.connections.is_serving() {
            true => None,
            false => self.serving.give_up_at(after(turn.now, pause)),
        };
        let opened = Opened {
            role: Role::Pipelined,
            work: Work::Idle(turn.now),
            pause,
            give_up_at,
            endpoint: self.serving.at(),
            purpose,
        };
        let id = self.connections.open(opened, turn);
        self.connections.fill_slot(id);
    }

    pub(super) fn open_disposable(&mut self, turn: &mut Turn<'_>) {
        let opened = Opened {
            role: Role::Disposable,
            work: Work::Idle(turn.now),
            pause: Duration::ZERO,
            give_up_at: None,
            endpoint: self.serving.at(),
            purpose: Purpose::Requests,
        };
        self.connections.open(opened, turn);
    }

    fn pipelined_up(&mut self, id: LaneId, shown: Shown, turn: &mut Turn<'_>) {
        let is_first = !self.connections.is_serving();
        self.connections.up(id, turn.now);
        if shown.abilities.sessions != Some(true) {
            if let Some(mut connection) = self.connections.get_mut(id) {
                connection.name = None;
            }
        }
        self.further_attempts = self.serving.reconnect.pauses();
        if let Some(cluster) = shown.cluster {
            self.note_cluster(cluster);
        }
        if is_first {
            self.fences.connected(shown.fences);
            self.found_server(turn);
        }
        // Held leases come first, then releases, then new requests.
        self.renew_overdue(turn);
        self.send_pending_releases(turn);
        self.send_parked(turn);
        self.open_further(Duration::ZERO, turn);
    }

    fn found_server(&mut self, turn: &mut Turn<'_>) {
        let found = self.serving.reconnect.connected();
        let attempts = found.attempts;
        let away = self.away.take().unwrap_or_else(Span::none);
        away.record("dflockd.attempts", attempts);
        away.record("server.address", self.endpoint().address_text());
        away.record("server.port", self.endpoint().port());
        away.in_scope(|| {
            tracing::info!(shard = self.index, endpoint = %self.endpoint(), attempts, "connected");
        });
        if found.is_reconnect {
            self.metrics.reconnected();
        }
        if let Some(switch) = found.switch {
            self.switched(switch, turn);
        }
        self.set_health(ConnectionState::Connected, turn);
    }

    fn pipelined_failed(&mut self, id: LaneId, error: Error, turn: &mut Turn<'_>) {
        let has_slot = self.connections.has_slot(id);
        self.connections.remove(id);
        if !has_slot {
            return;
        }
        let does_not_lead = error.kind() == ErrorKind::NotLeader && self.serving.is_cluster();
        if does_not_lead {
            self.metrics.redirected();
        }
        if self.connections.is_serving() {
            if does_not_lead {
                return self.depose(&error, turn);
            }
            let pause = self.further_attempts.failed();
            tracing::debug!(
                shard = self.index,
                endpoint = %self.endpoint(),
                retry_in = %human(pause),
                error = %error.chain(),
                "a further pipelined connection could not be opened"
            );
            return self.open_further(pause, turn);
        }
        let guarded_until = self.serving.guarded_until();
        let retry = self.serving.reconnect.attempt_failed(&error, turn.now, guarded_until);
        self.away(error, retry, turn);
    }

    /// Handles the loss of a pipelined connection that served.
    pub(super) fn serving_lost(
        &mut self,
        cause: Error,
        up_since: Option<Instant>,
        was_silent: bool,
        turn: &mut Turn<'_>,
    ) {
        let of_use = was_of_use(up_since, was_silent, turn.now);
        if self.connections.is_serving() {
            let pause = match of_use {
                true => Duration::ZERO,
                false => self.further_attempts.failed(),
            };
            tracing::warn!(
                shard = self.index,
                endpoint = cause.endpoint().unwrap_or_default(),
                retry_in = %human(pause),
                cause = %cause.chain(),
                "one of several connections lost"
            );
            return self.open_further(pause, turn);
        }
        if of_use {
            self.serving.reconnect.proved();
        }
        self.serving.heard(turn.now);
        let guarded_until = self.serving.guarded_until();
        let retry = self.serving.reconnect.lost(&cause, of_use, turn.now, guarded_until);
        self.away(cause, retry, turn);
    }

    /// Schedules the next attempt, since no pipelined connection is up: after the pause of `retry`, but not while
    /// requests are held back.
    pub(super) fn away(&mut self, error: Error, retry: Retry, turn: &mut Turn<'_>) {
        let pause = retry.pause.max(self.serving.held_back_for(turn.now));
        let (shard, attempt) = (self.index, retry.attempt);
        let away = self.away.get_or_insert_with(|| {
            tracing::info_span!(
                "dflockd.reconnect",
                dflockd.shard = shard,
                server.address = field::Empty,
                server.port = field::Empty,
                dflockd.attempts = field::Empty
            )
        });
        away.in_scope(|| {
            let endpoint = error.endpoint().unwrap_or_default();
            tracing::warn!(shard, endpoint, attempt, retry_in = %human(pause), error = %error.chain(), "not connected");
        });
        if let Some(state) = retry.state {
            self.set_health(state, turn);
        }
        if let Some(refusal) = self.refusal() {
            self.refuse_parked(turn);
            self.fail_waiting_repeats(&refusal, turn);
            for wait in self.waits.drain(turn.now) {
                match self.refusal() {
                    Some(error) => self.refuse_wait(wait, error, turn),
                    None => self.queue(wait, None, turn.now),
                }
            }
        }
        self.open_first(pause, turn);
    }

    /// Handles a change of the serving endpoint.
    fn switched(&mut self, switch: Switch, turn: &mut Turn<'_>) {
        let Switch { from, why } = switch;
        let from = Arc::clone(self.endpoint_at(from).shared_text());
        let (shard, to) = (self.index, self.endpoint().shared_text());
        tracing::info!(shard, %from, %to, reason = why.as_str(), "another server took over");
        self.metrics.failed_over(why);
        if self.serving.is_standby() {
            self.drop_leases_of_previous_primary(turn);
        }
        let here = self.serving.at();
        for bound in self.connections.stop_opening_elsewhere(here, turn) {
            self.put_back(bound, turn.now);
        }
        self.replace_disposable(turn);
        self.connections
            .hang_up_elsewhere(here, self.serving.is_cluster(), turn);
        self.wait_pace.restart(self.serving.reconnect.pauses(), turn.now);
    }

    /// Reopens the disposable connection at the new endpoint, so that waiting requests do not depend on the previous
    /// endpoint.
    fn replace_disposable(&mut self, turn: &mut Turn<'_>) {
        let here = self.serving.at();
        let elsewhere = self.connections.disposable().filter(|id| {
            let connection = self.connections.get(*id);
            connection.is_some_and(|connection| connection.endpoint != here)
        });
        let Some(id) = elsewhere else { return };
        self.connections.forget_disposable();
        // A connection that is still opening carries no requests.
        if self.connections.get(id).is_some_and(|connection| !connection.is_up()) {
            self.connections.close(id, turn);
        }
        if self.wants_disposable() {
            self.open_disposable(turn);
        }
    }

    /// Retires the pipelined connections: requests under way are still answered, but no more are sent.
    pub(super) fn retire_pipelined(&mut self, turn: &mut Turn<'_>) {
        for id in self.connections.in_slots() {
            match self.connections.get(id).is_some_and(|connection| connection.is_up()) {
                true => self.connections.retire(id, turn),
                false => drop(self.connections.close(id, turn)),
            }
        }
        self.schedule_housekeeping(turn);
    }

    /// Notes that the server answered over a connection while no pipelined connection is up. Such a server still grants
    /// and renews leases, so the takeover delay counts from now.
    fn heard_over(&mut self, id: LaneId, now: Instant) {
        if !self.connections.is_serving() && !self.is_stale_connection(id) {
            self.serving.heard(now);
        }
    }
}
