//! Handles standby shards, whose servers know nothing of each other: the leases of the previous server, and the
//! failback to the first server.

use std::time::Duration;

use tokio::time::Instant;

use super::ShardMachine;
use super::acquire::Acquire;
use super::ask::Ask;
use super::effect::{Answer, Effect, Turn};
use super::ids::{LaneId, LeaseId};
use super::request::PendingRelease;
use crate::ending::shut_down;
use crate::error::{Error, ErrorKind, Result};
use crate::human::human;
use crate::lease::lost_keys::LostKeys;
use crate::lease::state::LostReason;
use crate::types::Grant;

impl ShardMachine {
    /// Drops the leases of the previous server, because the server that took over does not know them. Leases that are
    /// still held at this point survive a disconnect, or belong to a connection that is still open.
    pub(super) fn drop_leases_of_previous_primary(&mut self, turn: &mut Turn<'_>) {
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
                    "the server that granted {:?} was lost before the lease was released",
                    release.key()
                ),
            );
            let error = self.at_endpoint(error);
            self.end_release(release, Err(error), turn);
        }
    }

    /// Whether, in a standby shard, a connection goes to a server that no longer serves. The shard would not renew a
    /// grant of that server, so the lease could end without its holder's knowledge.
    pub(super) fn is_stale_connection(&self, id: LaneId) -> bool {
        let here = self.serving.at();
        let connection = self.connections.get(id);
        self.serving.is_standby()
            && connection.is_none_or(|connection| connection.is_retired() || connection.endpoint != here)
    }

    /// Rejects a grant from a server that no longer serves. The lease ends with its connection or its TTL, or the shard
    /// releases it if that server is the next to serve.
    pub(super) fn reject_stale_grant(
        &mut self,
        acquire: Box<Acquire>,
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

    /// Begins the failback to the first server with a probe of that server, so that no lease is given up for a server
    /// that cannot be reached.
    pub(super) fn failback(&mut self, ask: Ask<Duration>, turn: &mut Turn<'_>) {
        match self.early_failback_answer(turn.now) {
            Some(answer) => turn.push(Effect::Answer(Answer::Failback(ask, answer))),
            None => turn.push(Effect::ProbeFirst(ask)),
        }
    }

    /// Returns the answer if no failback is possible or necessary.
    fn early_failback_answer(&self, now: Instant) -> Option<Result<Duration>> {
        if !self.serving.is_standby() {
            let remedy = "only a shard that was made with Shard::standby can go back to its first server";
            return Some(Err(Error::invalid("shard index", self.index, remedy)));
        }
        if self.is_closing() {
            return Some(Err(shut_down()));
        }
        // The first server already serves. The duration is zero, unless the failback is recent.
        (self.serving.at() == 0).then_some(Ok(self.serving.held_back_for(now)))
    }

    /// Executes the failback after the probe. Gives up all leases of the current server. Sends nothing to the first
    /// server until every lease of the current server must have ended, because other clients may hold such leases.
    pub(super) fn first_was_probed(&mut self, outcome: Result<()>, ask: Ask<Duration>, turn: &mut Turn<'_>) {
        if let Some(answer) = self.early_failback_answer(turn.now) {
            return turn.push(Effect::Answer(Answer::Failback(ask, answer)));
        }
        match outcome {
            Err(error) => return turn.push(Effect::Answer(Answer::Failback(ask, Err(error)))),
            // The caller is gone.
            Ok(()) if ask.is_gone() => return,
            Ok(()) => {}
        }
        let ids: Vec<LeaseId> = self.leases.ids().collect();
        let mut lost = LostKeys::default();
        for id in ids {
            if self.leases.lose(id, LostReason::Failback, turn.now) {
                if let Some(claim) = self.leases.claim(id) {
                    lost.push(&claim.cell.key);
                    self.begin_release(PendingRelease::of(claim, None, false, None, turn.now), turn);
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
                "the shard goes back to its first server, and sends it no requests for {}",
                human(delay)
            ),
        );
        let error = self.at_endpoint(error);
        let retry = self.serving.reconnect.go_back(&error);
        let here = self.serving.at();
        self.connections.hang_up_elsewhere(here, false, turn);
        let handover = self.serving.handover();
        self.hand_over(Some(handover), turn);
        self.away(error, retry, turn);
        turn.push(Effect::Answer(Answer::Failback(ask, Ok(delay))));
    }
}
