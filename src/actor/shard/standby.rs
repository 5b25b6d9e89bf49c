//! Servers that know nothing of each other, one of which serves: what was granted by the one that did before, and the way back.

use std::time::Duration;

use tokio::time::Instant;

use super::Shard;
use crate::actor::message::{Acquire, Ask, Releasing, ShardMessage};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::cell::LostReason;
use crate::lease::registry::{LaneId, LeaseId};
use crate::net::connect::Purpose;
use crate::net::failover::Pace;
use crate::types::Grant;

impl Shard {
    /// Another server has taken over, which knows of no lease of the one before. As a rule they were lost with its connection;
    /// this is about those that outlive one.
    pub(super) fn forget_what_the_other_granted(&mut self) {
        let lost = self.registry.lose_all(LostReason::Disconnected);
        if lost > 0 {
            tracing::warn!(
                shard = self.index,
                leases = lost,
                "leases lost: another server took over"
            );
        }
        for releasing in std::mem::take(&mut self.owed) {
            let error = Error::new(
                ErrorKind::LeaseLost,
                format!(
                    "the server that granted {:?} was lost before it was released",
                    releasing.key
                ),
            );
            let error = self.here(error);
            self.settle_release(releasing, Err(error));
        }
    }

    /// Something came over a connection. While the pipelined one is away, others may still stand: as long as its server is heard
    /// of over these, it grants and renews, and every lease of its is guarded from then on.
    pub(super) fn heard_over(&mut self, id: LaneId) {
        if !self.main_is_up && !self.is_of_the_other(id) {
            self.guard.lost_contact(Instant::now());
        }
    }

    /// Whether a connection leads to a server that does not serve any more. What that one grants now is nobody's: it is not
    /// renewed, and may be over before anybody is told.
    pub(super) fn is_of_the_other(&mut self, id: LaneId) -> bool {
        let here = self.failover.at();
        let lane = self.lanes.get_mut(id);
        self.failover.is_standby() && lane.is_none_or(|lane| lane.retired || lane.endpoint != here)
    }

    /// A server that does not serve any more has granted it. It ends there with its connection or its TTL, or is given back if that
    /// server is the next to serve again.
    pub(super) fn granted_by_the_other(&mut self, acquire: Acquire, grant: Grant, owner: LaneId, from: LaneId) {
        self.give_back_orphan(&acquire, grant, owner);
        let error = Error::new(
            ErrorKind::Disconnected,
            format!(
                "{:?} was granted by a server that does not serve the shard any more",
                acquire.key
            ),
        );
        acquire.ask.tell(Err(self.at_lane(from, error)));
    }

    /// The first server is to serve again. Whether it is there is looked at first: nothing is given up for nothing.
    pub(super) fn failback(&mut self, ask: Ask<Duration>) {
        if let Some(answer) = self.is_no_way_back() {
            return ask.tell(answer);
        }
        let first = self.failover.endpoint(0);
        let connect = self.config.reach(first, self.config.keepalive, Purpose::Requests);
        let shard = self.myself.clone();
        tokio::spawn(async move {
            let outcome = connect.connect().await.map(drop);
            // If the actor is gone, so is whoever asked it.
            drop(shard.send_message(ShardMessage::FirstIsThere(outcome, ask)));
        });
    }

    /// The answer, if there is nothing to go back from.
    fn is_no_way_back(&self) -> Option<Result<Duration>> {
        if !self.failover.is_standby() {
            let remedy = "only a shard that was given as Shard::standby has a server to go back to";
            return Some(Err(Error::invalid("shard index", self.index, remedy)));
        }
        if self.is_closing() {
            return Some(Err(Error::new(ErrorKind::Shutdown, "the client is shut down")));
        }
        // Nothing is left of the delay, unless it has gone back just now.
        let left = self.hold_back.saturating_duration_since(Instant::now());
        (self.failover.at() == 0).then_some(Ok(left))
    }

    /// It is: what is held is given up here, and nothing is asked there before every lease of this server must be over, since
    /// other clients may hold some.
    pub(super) fn first_is_there(&mut self, outcome: Result<()>, ask: Ask<Duration>) {
        if let Some(answer) = self.is_no_way_back() {
            return ask.tell(answer);
        }
        match outcome {
            Err(error) => return ask.tell(Err(error)),
            // Whoever asked for it has given up meanwhile.
            Ok(()) if ask.is_gone() => return,
            Ok(()) => {}
        }
        let ids: Vec<LeaseId> = self.registry.ids().collect();
        for id in ids {
            if self.registry.lose(id, LostReason::Failback) {
                if let Some(claim) = self.registry.claim(id) {
                    self.owe(Releasing::of(&claim, None, false, None));
                }
            }
        }
        let delay = self.guard.delay();
        let error = Error::new(
            ErrorKind::Unavailable,
            format!("the shard goes back to its first server, which is asked for nothing for {delay:?}"),
        );
        let error = self.here(error);
        if self.main_is_up {
            // What is owed goes out; what is on its way is answered.
            if let Some(main) = self.lanes.get_mut(self.main) {
                main.retire();
            }
        } else {
            self.lanes.remove(self.main);
        }
        self.guard.lost_contact(Instant::now());
        self.failover.go_back();
        self.lanes.hang_up_elsewhere(self.failover.at());
        self.hold_back = self.guard.until();
        self.bequeath();
        self.main_away(error, Pace::AfterAPause);
        ask.tell(Ok(delay));
    }
}

#[cfg(test)]
mod tests;
