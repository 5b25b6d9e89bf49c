//! The leader of a cluster: requests that a member refused, and changes of the leader.
//!
//! When the leader of a cluster changes:
//!
//! | | what the cluster remembers | what the shard does |
//! | --- | --- | --- |
//! | a lease | the lease | marks it suspect, and renews it at the new leader before it sends anything else |
//! | a wait or a ticket's queue position, in a session | the session | sends it again under the session's name |
//! | a session's queue position that no caller wants | the position | gives it up in that session: see `sessions` |
//! | a request | nothing | follows the table in `rules` |

use std::sync::Arc;

use super::ShardMachine;
use super::answers::not_leader;
use super::effect::{Role, Turn};
use super::ids::LaneId;
use super::registry::Survival;
use super::request::Pending;
use super::rules::Fate;
use super::serving::was_of_use;
use crate::error::Error;
use crate::protocol::Response;
use crate::stats::ClusterStats;

impl ShardMachine {
    /// Handles a request that a member refused because another member leads, or will lead before long.
    pub(super) fn handle_not_leader(&mut self, from: LaneId, pending: Pending, refusal: Error, turn: &mut Turn<'_>) {
        let is_current = self.is_current(from);
        let served = self.connections.has_slot(from);
        if self
            .connections
            .get(from)
            .is_some_and(|connection| connection.role == Role::Exclusive)
        {
            self.connections.retire(from, turn);
            self.repeats.detach_lane(from);
        }
        let refusal = self.at_lane(from, refusal);
        if is_current {
            self.depose(&refusal, turn);
        }
        match (pending.rules().not_led, pending) {
            (Fate::Retry, pending) => self.send(pending, turn),
            (Fate::RetryBounded, pending) => self.redirect(pending, refusal, turn),
            (Fate::StaysDue, Pending::Renew(renewal)) if served => self.renewal_unanswered(&renewal),
            // The lease is renewed at the new leader, like all others.
            (Fate::StaysDue, Pending::Renew(renewal)) => {
                renewal.span.record("dflockd.outcome", "unanswered");
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

    /// Sends a request to the leader, at most `max_redirects` times.
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

    /// Counts a repetition of a request. Returns whether `max_redirects` allows it.
    pub(super) fn count_redirect(&self, times: &mut u32) -> bool {
        *times += 1;
        *times <= self.settings.max_redirects
    }

    /// Handles a member's answer to a request of a connection itself, such as a keepalive: the member does not lead.
    pub(super) fn handle_not_leader_report(&mut self, from: LaneId, leader: Option<&str>, turn: &mut Turn<'_>) {
        self.metrics.redirected();
        if self.serving.is_cluster() && self.is_current(from) {
            self.depose(&not_leader(leader).at(self.endpoint().shared_text()), turn);
        }
    }

    /// Asks the serving member whether it still leads, if no answer has shown that for a while. A member that has
    /// ceased to lead does not end its blocked waits. The question is `stats`, because it makes no entry in the
    /// cluster's log.
    pub(super) fn look_for_the_leader(&mut self, turn: &mut Turn<'_>) {
        let is_due = turn.now.saturating_duration_since(self.led_at) >= self.settings.keepalive;
        let may_wait_in_vain = self.serving.is_cluster() && self.waits.at_server() > 0;
        if is_due && may_wait_in_vain && self.connections.is_serving() && !self.is_closing() {
            self.led_at = turn.now;
            self.send(Pending::Look, turn);
        }
    }

    /// Handles the answer to `stats` from [`look_for_the_leader`](Self::look_for_the_leader).
    pub(super) fn looked(&mut self, response: Response, from: LaneId, turn: &mut Turn<'_>) {
        let cluster = match response {
            Response::Json(stats) => ClusterStats::within(&stats),
            _ => None,
        };
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

    /// Notes what the leader reports about its cluster, and warns if the previous leader belonged to another cluster.
    pub(super) fn note_cluster(&mut self, cluster: Box<ClusterStats>) {
        let members = cluster.voters.iter().map(String::as_str);
        self.serving.reconnect.note_members(members);
        let endpoint = Arc::clone(self.endpoint().shared_text());
        if let Some(before) = self.clusters.see(&endpoint, cluster) {
            tracing::warn!(
                shard = self.index,
                %endpoint,
                %before,
                "two members of this shard belong to different clusters: both can grant the same key"
            );
        }
    }

    /// Whether a connection presents a session's name to a cluster.
    pub(super) fn is_in_a_session(&self, lane: LaneId) -> bool {
        let connection = self.connections.get(lane);
        self.serving.is_cluster() && connection.is_some_and(|connection| connection.session.is_some())
    }

    /// Whether a wait that a leader ended on this connection continues at the next leader. A wait that was given up
    /// does not.
    pub(super) fn goes_on_in_its_session(&self, lane: LaneId) -> bool {
        let was_cut = self.connections.get(lane).is_some_and(|connection| connection.cut);
        self.is_in_a_session(lane) && !was_cut
    }

    /// Whether a connection's report about the leader is current: no other leader has been found since the connection
    /// was opened.
    fn is_current(&self, from: LaneId) -> bool {
        let here = self.serving.at();
        let connection = self.connections.get(from);
        self.connections.oldest_serving().is_some_and(|oldest| from >= oldest)
            && connection.is_some_and(|connection| !connection.is_retired() && connection.endpoint == here)
    }

    /// Retires the connections to a member that no longer leads, and looks for the leader. Requests under way are still
    /// answered.
    pub(super) fn depose(&mut self, error: &Error, turn: &mut Turn<'_>) {
        let oldest = self
            .connections
            .oldest_serving()
            .and_then(|id| self.connections.get(id));
        if was_of_use(oldest.and_then(|connection| connection.up_since()), false, turn.now) {
            self.serving.reconnect.proved();
        }
        // The next leader knows these leases, even if their connections end.
        self.leases.suspect_all(Survival::WholeTtl);
        self.retire_pipelined(turn);
        self.serving.heard(turn.now);
        let retry = self.serving.reconnect.deposed(error, error.leader());
        self.away(error.clone(), retry, turn);
    }
}
