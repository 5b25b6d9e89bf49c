//! Following the leader of a cluster: what happens to requests that a member refused because another one leads, and to
//! everything that was under way when the leader changed.
//!
//! | | what is known | what becomes of it |
//! | --- | --- | --- |
//! | refused by a member that does not lead | it was not carried out | asked anew of the leader, so often and no more |
//! | a lease | the cluster remembers it | suspect; renewed by its token at the new leader before anything else |
//! | a wait, a ticket's place, in a session | the cluster remembers the session | asked anew under the session's name: the place, or the grant that came meanwhile, is the same |
//! | a wait, a ticket's place, without | nothing | its caller gets an error: to ask anew could take two grants |
//! | a place that nobody wants any more, in a session | the cluster keeps it | taken again, and given up: see `sessions` |
//! | a try, in flight when the connection broke | nothing | as before |
//! | a release, a confirmation | repeating it does no harm | repeated |

use std::sync::Arc;

use tokio::time::Instant;

use super::Shard;
use crate::actor::lanes::Role;
use crate::actor::message::Pending;
use crate::error::Error;
use crate::lease::registry::{LaneId, Survival};
use crate::net::failover::Switch;
use crate::protocol::Status;
use crate::stats::ClusterStats;

impl Shard {
    /// A member refused it because another one leads, `leader` as it says.
    pub(super) fn not_led_here(&mut self, from: LaneId, pending: Pending, leader: Option<&str>) {
        let is_news = self.is_news(from);
        if let Some(lane) = self.lanes.get_mut(from).filter(|lane| lane.role == Role::Exclusive) {
            lane.retire();
        }
        // First the request: what is asked anew is kept until there is a leader.
        self.ask_anew(from, pending, leader);
        if is_news {
            self.depose(leader);
        }
    }

    /// A member says so without having been asked for anything in particular.
    pub(super) fn leads_no_more(&mut self, from: LaneId, leader: Option<&str>) {
        self.metrics.redirected();
        if self.failover.is_cluster() && self.is_news(from) {
            self.depose(leader);
        }
    }

    /// Whether a connection stands for a session of the cluster.
    pub(super) fn is_in_a_session(&mut self, lane: LaneId) -> bool {
        let lane = self.lanes.get_mut(lane);
        self.failover.is_cluster() && lane.is_some_and(|lane| lane.session.is_some())
    }

    /// Whether what a connection says of the leader is news: not if another has been found since it was opened.
    fn is_news(&mut self, from: LaneId) -> bool {
        let here = self.failover.at();
        let lane = self.lanes.get_mut(from);
        self.main_is_up && from >= self.main && lane.is_some_and(|lane| !lane.retired && lane.endpoint == here)
    }

    /// The member that led does not any more. What is on its way there is still answered.
    fn depose(&mut self, leader: Option<&str>) {
        let error = not_leader(leader).at(self.endpoint().as_text());
        self.main_was_of_use(false);
        // Whoever leads now knows them, whatever becomes of the connections.
        self.registry.suspect_all(Survival::WholeTtl);
        if let Some(main) = self.lanes.get_mut(self.main) {
            main.retire();
        }
        self.guard.lost_contact(Instant::now());
        let pace = self.failover.redirected(leader);
        self.main_away(error, pace);
    }

    fn ask_anew(&mut self, from: LaneId, pending: Pending, leader: Option<&str>) {
        let refusal = self.at_lane(from, not_leader(leader));
        match pending {
            Pending::Try(mut acquire) => match self.may_go_on(&mut acquire.redirects) {
                true => self.again_from(from, Pending::Try(acquire)),
                false => acquire.ask.tell(Err(refusal)),
            },
            Pending::Barrier(ask, mut redirects) => match self.may_go_on(&mut redirects) {
                true => self.again_from(from, Pending::Barrier(ask, redirects)),
                false => ask.tell(Err(refusal)),
            },
            confirm @ Pending::Confirm { .. } => self.again_from(from, confirm),
            release @ Pending::Release(_) => self.again_from(from, release),
            // Due at the new leader with all others.
            Pending::Renew(renewal) => renewal.is_unanswered(),
            Pending::Settle(..) => self.wait_ended(from),
            // It is not refused so; whoever gets that answer may ask again.
            Pending::Stats(ask) => ask.tell(Err(refusal)),
            wait @ (Pending::Wait(..)
            | Pending::Enqueue(_)
            | Pending::Collect { .. }
            | Pending::Rejoin(..)
            | Pending::GiveUp(..)) => self.wait_anew(from, wait, refusal),
        }
    }

    /// From the connection that serves no more it is kept for the next; from one that did so before, there is a next.
    fn again_from(&mut self, from: LaneId, pending: Pending) {
        match self.main_is_up && from != self.main {
            true => self.send(pending),
            false => self.unsent(pending),
        }
    }

    /// The leader has said what it knows of its cluster. Warns if that is another than the one of the leader before.
    pub(super) fn saw_cluster(&mut self, cluster: Box<ClusterStats>) {
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

    /// Another endpoint than before serves.
    pub(super) fn switched(&mut self, switch: Switch) {
        let Switch { from, why } = switch;
        let from = Arc::clone(self.failover.endpoint(from).as_text());
        let (shard, to) = (self.index, self.endpoint().as_text());
        tracing::info!(shard, %from, %to, reason = why.as_str(), "another server took over");
        self.failovers += 1;
        self.last_failover = Some(why);
        self.metrics.failed_over(why);
        if self.failover.is_standby() {
            self.forget_what_the_other_granted();
        }
        let here = self.failover.at();
        for (subject, place, wait) in self.lanes.stop_opening_elsewhere(here) {
            self.waits.put_back(subject, place, wait);
        }
        self.aside_moves();
        self.lanes.hang_up_elsewhere(here);
        self.exclusive_attempts = self.config.reconnect.start();
        self.exclusive_not_before = Instant::now();
    }

    /// An error that a server told over this connection.
    pub(super) fn at_lane(&self, lane: LaneId, error: Error) -> Error {
        error.at(self.endpoint_of(lane).as_text())
    }
}

fn not_leader(leader: Option<&str>) -> Error {
    Status::NotLeader(leader.map(Box::from)).to_error("")
}
