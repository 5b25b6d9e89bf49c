//! Following the server that serves: connections that come, and are lost; leaders that change; servers in reserve.
//!
//! When the leader of a cluster changes:
//!
//! | | what is known | what becomes of it |
//! | --- | --- | --- |
//! | a lease | the cluster remembers it | suspect; renewed by its token at the new leader before anything else |
//! | a wait, a ticket's place, in a session | the cluster remembers the session | asked again under the session's name |
//! | a place that no caller wants any more, in a session | the cluster keeps it | taken back, and given up: see `sessions` |
//! | a request | the table in `request` | |

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Span, field};

use super::ShardMachine;
use super::acquire::Acquire;
use super::answers::not_leader;
use super::ask::Ask;
use super::connections::{Opened, Work};
use super::effect::{Answer, Effect, Role, Turn};
use super::ids::{LaneId, LeaseId};
use super::registry::Survival;
use super::request::{Fate, Pending, PendingRelease};
use super::serving::was_of_use;
use crate::clock::after;
use crate::ending::shut_down;
use crate::error::{Error, ErrorKind, Result};
use crate::human::human;
use crate::lease::cell::LostReason;
use crate::lease::lost_keys::LostKeys;
use crate::net::connect::{Purpose, Shown};
use crate::net::dial::LaneEvent;
use crate::net::failover::Switch;
use crate::net::health::ConnectionState;
use crate::net::reconnect::Retry;
use crate::protocol::{Call, Response};
use crate::stats::ClusterStats;
use crate::types::Grant;

/// For how long the member that serves need not have shown that it leads, while callers wait there.
const LOOK_AFTER: Duration = Duration::from_secs(10);

impl ShardMachine {
    pub(super) fn lane_event(&mut self, id: LaneId, event: LaneEvent<Pending>, turn: &mut Turn<'_>) {
        // What a connection had to tell that was given up meanwhile is no news.
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
                    self.exclusive_attempts = self.serving.reconnect.pauses();
                }
                for reply in replies {
                    self.reply(id, reply, turn);
                }
                if role == Role::Disposable {
                    // It may be idle from now on.
                    self.keep_house(turn);
                }
                for pending in report.skipped {
                    if let Pending::Enqueue(_) = pending {
                        self.wait_ended(id, turn);
                    }
                }
                if let Some(leader) = report.received.not_leader {
                    self.leads_no_more(id, leader.as_deref(), turn);
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

    // Pipelined connections. While none is up, one attempt is under way, and `Reconnect` says where to and when. Once there is
    // one, the further ones are opened beside it.

    /// Begins to connect to the server that serves, or is to.
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
            // A further connection leads to the server that is known.
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
        // First what is held, then what is given back, then what is wanted.
        self.renew_overdue(turn);
        self.send_pending_releases(turn);
        self.send_parked(turn);
        self.open_further(Duration::ZERO, turn);
    }

    fn found_server(&mut self, turn: &mut Turn<'_>) {
        let found = self.serving.reconnect.connected();
        let attempts = found.attempts;
        let away = self.away.take().unwrap_or_else(Span::none);
        away.record("attempts", attempts);
        away.record("endpoint", field::display(self.endpoint()));
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
            tracing::debug!(shard = self.index, endpoint = %self.endpoint(), retry_in = %human(pause), %error, "no further connection");
            return self.open_further(pause, turn);
        }
        let guarded_until = self.serving.guarded_until();
        let retry = self.serving.reconnect.attempt_failed(&error, turn.now, guarded_until);
        self.away(error, retry, turn);
    }

    /// A pipelined connection that served is over.
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
                %cause,
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

    /// No pipelined connection is up: try again, at once where another server may serve.
    fn away(&mut self, error: Error, retry: Retry, turn: &mut Turn<'_>) {
        let pause = retry.pause.max(self.serving.held_back_for(turn.now));
        let (shard, attempt) = (self.index, retry.attempt);
        let away = self.away.get_or_insert_with(|| {
            tracing::info_span!("reconnect", shard, endpoint = field::Empty, attempts = field::Empty)
        });
        away.in_scope(|| {
            let endpoint = error.endpoint().unwrap_or_default();
            tracing::warn!(shard, endpoint, attempt, retry_in = %human(pause), %error, "not connected");
        });
        if let Some(state) = retry.state {
            self.set_health(state, turn);
        }
        if self.refusal().is_some() {
            self.refuse_parked(turn);
            self.forsake_repeats(turn);
            for wait in self.waits.drain(turn.now) {
                match self.refusal() {
                    Some(error) => self.refuse_wait(wait, error, turn),
                    None => self.queue(wait, None, turn.now),
                }
            }
        }
        self.open_first(pause, turn);
    }

    /// Another endpoint than before serves.
    fn switched(&mut self, switch: Switch, turn: &mut Turn<'_>) {
        let Switch { from, why } = switch;
        let from = Arc::clone(self.endpoint_at(from).as_text());
        let (shard, to) = (self.index, self.endpoint().as_text());
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
        self.exclusive_attempts = self.serving.reconnect.pauses();
        self.exclusive_not_before = turn.now;
    }

    /// Another endpoint serves: what waits for the disposable connection does not wait for one that leads elsewhere.
    fn replace_disposable(&mut self, turn: &mut Turn<'_>) {
        let here = self.serving.at();
        let elsewhere = self.connections.disposable().filter(|id| {
            let connection = self.connections.get(*id);
            connection.is_some_and(|connection| connection.endpoint != here)
        });
        let Some(id) = elsewhere else { return };
        self.connections.forget_disposable();
        // One that is being established has nothing on its way.
        if self.connections.get(id).is_some_and(|connection| !connection.is_up()) {
            self.connections.close(id, turn);
        }
        if self.wants_disposable() {
            self.open_disposable(turn);
        }
    }

    // The leader of a cluster.

    /// A member refused a request because another one leads, or will before long.
    pub(super) fn not_led_here(&mut self, from: LaneId, pending: Pending, refusal: Error, turn: &mut Turn<'_>) {
        let is_news = self.is_news(from);
        let served = self.connections.has_slot(from);
        if self
            .connections
            .get(from)
            .is_some_and(|connection| connection.role == Role::Exclusive)
        {
            self.connections.retire(from, turn);
            self.repeats.left(from);
        }
        let refusal = self.at_lane(from, refusal);
        if is_news {
            self.depose(&refusal, turn);
        }
        match (pending.rules().not_led, pending) {
            (Fate::Retry, pending) => self.send(pending, turn),
            (Fate::RetryBounded, pending) => self.redirect(pending, refusal, turn),
            (Fate::StaysDue, Pending::Renew(renewal)) if served => self.renewal_unanswered(&renewal),
            // Due at the new leader with all others.
            (Fate::StaysDue, Pending::Renew(renewal)) => {
                renewal.span.record("outcome", "unanswered");
            }
            (Fate::Forget, Pending::Probe(probe)) => self.probe_unanswered(&probe.key, turn.now),
            (Fate::Forget, _) => self.wait_ended(from, turn),
            (Fate::RetryInSession, pending @ (Pending::Try(_) | Pending::Probe(_) | Pending::Repeat(_))) => {
                let name = self
                    .connections
                    .get(from)
                    .and_then(|connection| connection.name.clone());
                self.retry_try(pending, name, refusal, turn);
            }
            (Fate::RetryInSession | Fate::PutBack, wait) => self.retry_wait(from, wait, refusal, turn),
            (Fate::Repeat, Pending::Release(release)) => self.repeat_release(release, turn),
            (Fate::Fail | Fate::Repeat | Fate::StaysDue, pending) => self.fail(pending, refusal, turn),
        }
    }

    /// Sends a request to the leader, as often as redirects are followed.
    fn redirect(&mut self, mut pending: Pending, refusal: Error, turn: &mut Turn<'_>) {
        let goes_on = match &mut pending {
            Pending::Ask(question) => question.of_the_leader && self.count_redirect(&mut question.redirects),
            _ => false,
        };
        match goes_on {
            true => self.send(pending, turn),
            false => self.fail(pending, refusal, turn),
        }
    }

    /// Counts another redirect. Returns whether it is followed.
    pub(super) fn count_redirect(&self, times: &mut u32) -> bool {
        *times += 1;
        *times <= self.settings.max_redirects
    }

    /// A member says so without having been asked for anything in particular.
    fn leads_no_more(&mut self, from: LaneId, leader: Option<&str>, turn: &mut Turn<'_>) {
        self.metrics.redirected();
        if self.serving.is_cluster() && self.is_news(from) {
            self.depose(&not_leader(leader).at(self.endpoint().as_text()), turn);
        }
    }

    /// A member that has ceased to lead tells those nothing that wait there. So where nothing else has shown it, it is asked whether it
    /// leads: by `stats`, which no member writes to its log.
    pub(super) fn look_for_the_leader(&mut self, turn: &mut Turn<'_>) {
        let is_due = turn.now.saturating_duration_since(self.led_at) >= LOOK_AFTER;
        let may_wait_in_vain = self.serving.is_cluster() && self.waits.at_server() > 0;
        if is_due && may_wait_in_vain && self.connections.is_serving() && !self.is_closing() {
            self.led_at = turn.now;
            self.send(Pending::Look, turn);
        }
    }

    /// A member has said what it is.
    pub(super) fn looked(&mut self, response: Response, from: LaneId, turn: &mut Turn<'_>) {
        let cluster = Call::stats().finish(response).ok().and_then(|stats| stats.cluster);
        let here = self.serving.at();
        let serves = self.connections.is_serving()
            && self
                .connections
                .get(from)
                .is_some_and(|connection| connection.endpoint == here);
        let Some(cluster) = cluster.filter(|cluster| serves && cluster.leads() == Some(false)) else {
            return;
        };
        self.metrics.redirected();
        let refusal = not_leader(cluster.leader_addr.as_deref());
        let refusal = self.at_lane(from, refusal);
        self.depose(&refusal, turn);
    }

    /// The leader has said what it knows of its cluster. Warns if that is another than the one of the leader before.
    fn note_cluster(&mut self, cluster: Box<ClusterStats>) {
        let endpoint = Arc::clone(self.endpoint().as_text());
        if let Some(before) = self.clusters.see(&endpoint, cluster) {
            tracing::warn!(
                shard = self.index,
                %endpoint,
                %before,
                "two members of this shard are of different clusters: each grants what the other has granted"
            );
        }
    }

    /// Whether a connection stands for a session of the cluster.
    pub(super) fn is_in_a_session(&self, lane: LaneId) -> bool {
        let connection = self.connections.get(lane);
        self.serving.is_cluster() && connection.is_some_and(|connection| connection.session.is_some())
    }

    /// Whether what a leader ended on a connection goes on at the next: unless it was given up.
    pub(super) fn goes_on_in_its_session(&self, lane: LaneId) -> bool {
        let was_cut = self.connections.get(lane).is_some_and(|connection| connection.cut);
        self.is_in_a_session(lane) && !was_cut
    }

    /// Whether what a connection says of the leader is news: not if another has been found since it was opened.
    fn is_news(&self, from: LaneId) -> bool {
        let here = self.serving.at();
        let connection = self.connections.get(from);
        self.connections.oldest_serving().is_some_and(|oldest| from >= oldest)
            && connection.is_some_and(|connection| !connection.is_retired() && connection.endpoint == here)
    }

    /// The member that led does not any more. What is on its way there is still answered.
    pub(super) fn depose(&mut self, error: &Error, turn: &mut Turn<'_>) {
        let oldest = self
            .connections
            .oldest_serving()
            .and_then(|id| self.connections.get(id));
        if was_of_use(oldest.and_then(|connection| connection.up_since()), false, turn.now) {
            self.serving.reconnect.proved();
        }
        // The leader knows them, whichever it is and whatever becomes of the connections.
        self.leases.suspect_all(Survival::WholeTtl);
        self.retire_pipelined(turn);
        self.serving.heard(turn.now);
        let retry = self.serving.reconnect.deposed(error, error.leader());
        self.away(error.clone(), retry, turn);
    }

    /// What is sent goes out, what is on its way is answered; nothing more is sent over the pipelined connections.
    fn retire_pipelined(&mut self, turn: &mut Turn<'_>) {
        for id in self.connections.in_slots() {
            match self.connections.get(id).is_some_and(|connection| connection.is_up()) {
                true => self.connections.retire(id, turn),
                false => drop(self.connections.close(id, turn)),
            }
        }
        self.keep_house(turn);
    }

    // Servers that know nothing of each other, one of which serves.

    /// Another server has taken over, which knows of no lease of the one before. As a rule they were lost with its connection;
    /// this is about those that outlive one.
    fn drop_leases_of_previous_primary(&mut self, turn: &mut Turn<'_>) {
        let lost = self.leases.lose_all(LostReason::Disconnected, turn.now);
        if !lost.is_empty() {
            tracing::warn!(
                shard = self.index,
                endpoint = %self.endpoint(),
                leases = lost.count(),
                keys = %lost,
                "leases lost: another server took over"
            );
        }
        for release in self.releases.take_pending() {
            let error = Error::new(
                ErrorKind::LeaseLost,
                format!(
                    "the server that granted {:?} was lost before it was released",
                    release.key
                ),
            );
            let error = self.here(error);
            self.end_release(release, Err(error), turn);
        }
    }

    /// Something came over a connection. While no pipelined one is up, others may still stand: as long as its server is heard
    /// of over these, it grants and renews, and each of its leases is guarded from then on.
    fn heard_over(&mut self, id: LaneId, now: Instant) {
        if !self.connections.is_serving() && !self.is_stale_connection(id) {
            self.serving.heard(now);
        }
    }

    /// Whether a connection leads to a standby server that does not serve any more. What that one grants now is not renewed, and
    /// may be over before its holder is told.
    pub(super) fn is_stale_connection(&self, id: LaneId) -> bool {
        let here = self.serving.at();
        let connection = self.connections.get(id);
        self.serving.is_standby()
            && connection.is_none_or(|connection| connection.is_retired() || connection.endpoint != here)
    }

    /// A server that does not serve any more has granted it. It ends there with its connection or its TTL, or is given back if
    /// that server is the next to serve again.
    pub(super) fn reject_stale_grant(
        &mut self,
        acquire: Acquire,
        grant: Grant,
        owner: LaneId,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        self.give_back_orphan(&acquire, grant, owner, turn);
        let error = Error::new(
            ErrorKind::Disconnected,
            format!(
                "{:?} was granted by a server that does not serve the shard any more",
                acquire.key
            ),
        );
        let error = self.at_lane(from, error);
        turn.tell(acquire.ask, Err(error));
    }

    /// The first server is to serve again. First find out whether it can be reached: nothing is given up for nothing.
    pub(super) fn failback(&mut self, ask: Ask<Duration>, turn: &mut Turn<'_>) {
        match self.no_way_back(turn.now) {
            Some(answer) => turn.push(Effect::Answer(Answer::Failback(ask, answer))),
            None => turn.push(Effect::ProbeFirst(ask)),
        }
    }

    /// The answer, if there is nothing to go back from.
    fn no_way_back(&self, now: Instant) -> Option<Result<Duration>> {
        if !self.serving.is_standby() {
            let remedy = "only a shard that was given as Shard::standby has a server to go back to";
            return Some(Err(Error::invalid("shard index", self.index, remedy)));
        }
        if self.is_closing() {
            return Some(Err(shut_down()));
        }
        // Nothing is left of the delay, unless it has gone back just now.
        (self.serving.at() == 0).then_some(Ok(self.serving.held_back_for(now)))
    }

    /// It can be reached: what is held is given up here, and nothing is asked there before every lease of this server must be
    /// over, since other clients may hold some.
    pub(super) fn first_is_there(&mut self, outcome: Result<()>, ask: Ask<Duration>, turn: &mut Turn<'_>) {
        if let Some(answer) = self.no_way_back(turn.now) {
            return turn.push(Effect::Answer(Answer::Failback(ask, answer)));
        }
        match outcome {
            Err(error) => return turn.push(Effect::Answer(Answer::Failback(ask, Err(error)))),
            // The caller has given up meanwhile.
            Ok(()) if ask.is_gone() => return,
            Ok(()) => {}
        }
        let ids: Vec<LeaseId> = self.leases.ids().collect();
        let mut lost = LostKeys::default();
        for id in ids {
            if self.leases.lose(id, LostReason::Failback, turn.now) {
                if let Some(claim) = self.leases.claim(id) {
                    lost.push(&claim.cell.key);
                    self.begin_release(PendingRelease::of(&claim, None, false, None, turn.now), turn);
                }
            }
        }
        if !lost.is_empty() {
            tracing::warn!(
                shard = self.index,
                endpoint = %self.endpoint(),
                leases = lost.count(),
                keys = %lost,
                "leases lost: the shard goes back to its first server"
            );
        }
        self.retire_pipelined(turn);
        let delay = self.serving.hold_back(turn.now);
        let error = Error::new(
            ErrorKind::Unavailable,
            format!(
                "the shard goes back to its first server, which is asked for nothing for {}",
                human(delay)
            ),
        );
        let error = self.here(error);
        let retry = self.serving.reconnect.go_back(&error);
        let here = self.serving.at();
        self.connections.hang_up_elsewhere(here, false, turn);
        let handover = self.serving.handover();
        self.hand_over(Some(handover), turn);
        self.away(error, retry, turn);
        turn.push(Effect::Answer(Answer::Failback(ask, Ok(delay))));
    }
}
