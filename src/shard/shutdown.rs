//! The shutdown of a shard, which first releases everything.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ShardMachine;
use super::acquire::Acquire;
use super::connections::Work;
use super::effect::{Effect, Turn};
use super::input::{Shutdown, ShutdownReport};
use super::request::{PendingRelease, ServerWait, Wait};
use super::waits::Occupant;
use crate::ending::shut_down;
use crate::lease::state::LostReason;
use crate::net::health::ConnectionState;
use crate::protocol::StableRef;
use crate::types::{Key, Target};

/// The state of a shutdown.
pub(super) struct Closing {
    until: Instant,
    reply: Option<oneshot::Sender<ShutdownReport>>,
    report: ShutdownReport,
}

impl Closing {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        Self {
            until: shutdown.until,
            reply: shutdown.reply,
            report: ShutdownReport::default(),
        }
    }

    /// Returns when the shard ends at the latest, even if some leases are not released.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Counts a release that has ended, with or without success.
    pub(super) fn count(&mut self, key: &Key, released: bool) {
        match released {
            true => self.report.released += 1,
            false => self.report.unreleased.push(key.clone()),
        }
    }

    /// Returns the channel for the report, and the report. `left` are the keys whose releases are still unanswered.
    pub(super) fn finish(
        mut self,
        left: impl Iterator<Item = Key>,
    ) -> (Option<oneshot::Sender<ShutdownReport>>, ShutdownReport) {
        self.report.unreleased.extend(left);
        (self.reply, self.report)
    }
}

impl ShardMachine {
    /// Begins to release everything. The shard ends when that is done, or when its time is over.
    pub(super) fn shut_down(&mut self, shutdown: Shutdown, turn: &mut Turn<'_>) {
        if self.is_closing() {
            return;
        }
        self.closing = Some(Closing::new(shutdown));
        self.set_health(ConnectionState::Closed, turn);
        self.refuse_parked(turn);
        self.fail_waiting_repeats(&shut_down(), turn);
        let ids: Vec<_> = self.leases.ids().collect();
        for id in ids {
            if self.leases.lose(id, LostReason::Shutdown, turn.now) {
                if let Some(claim) = self.leases.begin_release(id, turn.now) {
                    self.begin_release(PendingRelease::of(claim, Some(id), false, None, turn.now), turn);
                }
            }
        }
        self.give_up_all_waits(turn);
    }

    /// Tells waiting callers that the client is shut down, and gives up the queue positions of their sessions, as far
    /// as time allows.
    fn give_up_all_waits(&mut self, turn: &mut Turn<'_>) {
        let mut positions: Vec<(Target, Key, StableRef)> = Vec::new();
        let mut waits: Vec<Wait> = Vec::new();
        let is_cluster = self.serving.is_cluster();
        let keeps_grants = self.leaves_grants_behind();
        if keeps_grants {
            for ticket in self.connections.idle_tickets() {
                self.give_up(ticket, turn);
            }
            self.connections.leave_asked();
        }
        for connection in self.connections.close_waiting(is_cluster, keeps_grants, turn) {
            let (key, occupant) = match connection.work {
                Work::Waiting(key) => (key, Occupant::Wait),
                Work::Asking(key, _) | Work::Ticket(key, ..) => (key, Occupant::Ticket),
                Work::Opening(Some(bound)) => {
                    self.waits.ended(&bound.key, bound.occupant, turn.now);
                    waits.push(bound.wait);
                    continue;
                }
                Work::Opening(None) | Work::Idle(_) | Work::Repeating | Work::Ending => continue,
            };
            self.waits.ended(&key, occupant, turn.now);
            if let (Some(target), Some(session)) = (connection.target, connection.session) {
                positions.push((target, key.1, session));
            }
        }
        waits.extend(self.waits.drain_all(turn.now));
        for wait in waits {
            let position = match wait {
                Wait::Caller(acquire, _) => {
                    turn.tell(acquire.ask, Err(shut_down()));
                    None
                }
                Wait::Ticket(acquire) => {
                    let Acquire {
                        target,
                        key,
                        session,
                        ask,
                        ..
                    } = *acquire;
                    turn.tell(ask, Err(shut_down()));
                    session.map(|session| (target, key, *session))
                }
                Wait::Rejoin(id, session) => {
                    let key = self.positions.wait_key(id);
                    key.map(|(target, key)| (target, key, session))
                }
                Wait::Resume(wait) => {
                    let ServerWait {
                        target, key, session, ..
                    } = *wait;
                    session.map(|session| (target, key, session))
                }
            };
            positions.extend(position);
        }
        for ask in self.positions.take_callers() {
            turn.tell(ask, Err(shut_down()));
        }
        for (target, key, session) in positions {
            let give_up = self.giving_up(target, key, session, turn.now);
            self.queue(give_up, None, turn.now);
        }
        self.start_waits(turn);
    }

    /// Whether a grant at a queue position survives the end of its connection. If so, the position must be given up
    /// before the connection ends. Always false in clusters, where the shard gives up positions through their sessions.
    fn leaves_grants_behind(&self) -> bool {
        self.settings.survives_disconnect && !self.serving.is_cluster()
    }

    /// Ends the shard when everything is released, or its time is over.
    pub(super) fn end_if_done(&mut self, turn: &mut Turn<'_>) {
        let done = self.closing.as_ref().is_some_and(|closing| {
            // A request in flight may still bring a grant, which must be released.
            let gave_back = self.releases.is_done() && self.connections.in_flight_pipelined() == 0;
            let gave_up = match self.serving.is_cluster() {
                true => self.waits.is_empty() && self.repeats.is_empty(),
                false => !(self.leaves_grants_behind() && self.connections.is_any_leaving()),
            };
            gave_back && gave_up || closing.until() <= turn.now
        });
        if !done {
            return;
        }
        self.over = true;
        self.connections.close_all(turn);
        if let Some(closing) = self.closing.take() {
            // Lost leases that are not being released are not in the report: their holders were told of the loss.
            let (reply, report) = closing.finish(self.leases.releasing());
            turn.push(Effect::End(reply, report));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::bench::{SECOND, key};

    #[test]
    fn the_report_says_what_was_released_and_what_was_not() {
        let until = Instant::now() + SECOND;
        let mut closing = Closing::new(Shutdown { until, reply: None });
        assert_eq!(closing.until(), until);
        closing.count(&key("a"), true);
        closing.count(&key("b"), false);
        closing.count(&key("c"), true);
        assert_eq!(closing.until(), until, "answers do not prolong it");
        let (reply, report) = closing.finish([key("d"), key("e")].into_iter());
        assert!(reply.is_none());
        assert_eq!(
            (report.released, report.unreleased),
            (2, vec![key("b"), key("d"), key("e")])
        );
    }

    #[test]
    fn a_shutdown_with_nothing_to_release_has_an_empty_report_for_its_own_caller() {
        let (tell, mut caller) = oneshot::channel();
        let shutdown = Shutdown {
            until: Instant::now(),
            reply: Some(tell),
        };
        let (reply, report) = Closing::new(shutdown).finish(std::iter::empty());
        reply
            .expect("a caller waits for the report")
            .send(report)
            .expect("the caller is there");
        assert_eq!(caller.try_recv(), Ok(ShutdownReport::default()));
    }
}
