//! Interprets the answers to waits on the server, to requests about tickets, and to tries for waiting callers.

use tokio::time::Instant;

use super::ShardMachine;
use super::acquire::Acquire;
use super::answers::{UnclaimedGrant, wait_ended_by_server};
use super::effect::{AcquireOutcome, Turn};
use super::ids::{LaneId, TicketId, WaitKey};
use super::metrics::Tried;
use super::positions::QueuePosition;
use super::request::{Pending, Probe, ServerWait, Wait};
use crate::clock::Moment;
use crate::ending::shut_down;
use crate::error::{Error, ErrorKind};
use crate::protocol::{Response, Status};
use crate::types::{Grant, Key, Ttl};

impl ShardMachine {
    /// Returns the key that a wait is for.
    pub(super) fn key_of(&self, wait: &Pending) -> Option<Key> {
        match wait {
            Pending::Wait(wait) => Some(wait.key.clone()),
            Pending::Collect(ticket, _) => self.positions.wait_key(*ticket).map(|(_, key)| key),
            _ => None,
        }
    }

    /// Handles the answer to a try of a key whose callers have no wait on the server.
    pub(super) fn probe_answered(
        &mut self,
        probe: Probe,
        response: Response,
        sent_at: Moment,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        let Probe { key, ttl } = probe;
        self.waits.tried(&key, turn.now);
        match response {
            Response::TimedOut => {
                self.metrics.tried(Tried::Busy);
                self.waits.refused(&key, turn.now);
            }
            Response::Granted(grant) => {
                self.metrics.tried(Tried::Granted);
                self.note_default_ttl(ttl, &grant);
                let granted = UnclaimedGrant {
                    asked: ttl,
                    is_sure: true,
                    sent_at,
                };
                self.deliver(&key, grant, granted, from, turn);
            }
            other => {
                self.metrics.tried(Tried::Refused);
                if let Some(Wait::Caller(acquire, _) | Wait::Ticket(acquire)) = self.waits.claim(&key, turn.now) {
                    let error = self.refused(acquire.target, &acquire.key, &other);
                    turn.tell(acquire.ask, Err(error));
                }
            }
        }
    }

    /// Notes that a try for waiting callers was not sent, or not answered.
    pub(super) fn probe_unanswered(&mut self, key: &WaitKey, now: Instant) {
        self.metrics.tried(Tried::Unanswered);
        self.waits.tried(key, now);
    }

    /// Handles the end of a wait on the server.
    pub(super) fn wait_answered(
        &mut self,
        wait: ServerWait,
        response: Response,
        sent_at: Moment,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        let key = wait.wait_key();
        let was_cut = self.connections.get(from).is_some_and(|connection| connection.cut);
        self.wait_ended(from, turn);
        match response {
            // The client closed the connection while the grant was on its way, so the grant ends with the connection.
            Response::Granted(grant) if was_cut => {
                self.connections.own(from);
                self.give_back_grant(wait.target, wait.key, grant, from, turn);
            }
            Response::Granted(grant) => {
                self.note_default_ttl(wait.ttl, &grant);
                let granted = UnclaimedGrant {
                    asked: wait.ttl,
                    // In a session, the server may have made the grant before the request was last sent.
                    is_sure: wait.session.is_none(),
                    sent_at,
                };
                self.deliver(&key, grant, granted, from, turn);
            }
            Response::TimedOut => {
                if !was_cut || wait.session.is_some() {
                    self.end_position(from, wait.target, wait.key, turn);
                }
                self.tell_overdue(&key, turn);
            }
            _ if was_cut => {}
            Response::Refused(Status::Error) => {
                let error = self.at_lane(from, wait_ended_by_server(Some(&wait.key)));
                self.tell_uncovered(&key, error, turn);
            }
            other => {
                let error = self.refused(wait.target, &wait.key, &other);
                self.tell_uncovered(&key, error, turn);
            }
        }
    }

    /// Tells callers whose time is over that the server reports the key as held.
    fn tell_overdue(&mut self, key: &WaitKey, turn: &mut Turn<'_>) {
        self.waits.refused(key, turn.now);
        while let Some(Wait::Caller(_, until)) = self.waits.uncovered(key, turn.now) {
            if *until > turn.now {
                return;
            }
            if let Some(Wait::Caller(acquire, _)) = self.waits.take_uncovered(key, turn.now) {
                self.answer_busy(acquire, turn);
            }
        }
    }

    /// Handles a wait on the server that ended without a grant. Gives the error to the first caller that now has no
    /// wait on the server.
    pub(super) fn tell_uncovered(&mut self, key: &WaitKey, error: Error, turn: &mut Turn<'_>) {
        if let Some(Wait::Caller(acquire, _)) = self.waits.take_uncovered(key, turn.now) {
            turn.tell(acquire.ask, Err(error));
        }
    }

    /// Handles the answer to the `w` at a ticket's queue position. If the ticket's caller is gone, a grant goes to the
    /// next caller of the key.
    pub(super) fn collect_answered(&mut self, ticket: TicketId, response: Response, from: LaneId, turn: &mut Turn<'_>) {
        let was_cut = self.connections.get(from).is_some_and(|connection| connection.cut);
        self.wait_ended(from, turn);
        if let (Response::TimedOut, false, Some((target, key))) = (&response, was_cut, self.positions.wait_key(ticket))
        {
            self.end_position(from, target, key, turn);
        }
        let Some(position) = self.positions.remove(ticket) else {
            return;
        };
        let (key, enqueued_at, asked) = (position.wait_key(), position.enqueued_at(), position.ttl());
        let acquire = position.into_acquire().filter(|acquire| !acquire.ask.is_gone());
        let response = match response {
            // This connection has sent the `e` for the queue position. So the server has granted the position, and
            // dropped it together with the expired lease.
            Response::Refused(Status::NotEnqueued) => Response::Refused(Status::LeaseExpired),
            // The number in the answer to a `w` may be the remaining time instead of the TTL.
            Response::Granted(grant) => Response::Granted(Grant {
                ttl: asked.or(self.default_ttl).unwrap_or(Ttl::DEFAULT),
                ..grant
            }),
            other => other,
        };
        // The TTL and the start of the lease are certain only if the `e` asked for a TTL. In a cluster they are never
        // certain, because the cluster may have restarted or ended the lease meanwhile.
        let is_sure = asked.is_some() && !self.serving.is_cluster();
        match (response, acquire) {
            (Response::Granted(grant), _) if was_cut => {
                self.connections.own(from);
                self.give_back_grant(key.0, key.1, grant, from, turn);
            }
            (Response::TimedOut, Some(acquire)) => self.answer_busy(acquire, turn),
            (Response::Refused(Status::Error), Some(acquire)) => {
                let error = self.at_lane(from, wait_ended_by_server(Some(&acquire.key)));
                turn.tell(acquire.ask, Err(error));
            }
            (Response::Granted(grant), Some(acquire)) => {
                self.connections.own(from);
                self.hand_over_grant(acquire, grant, enqueued_at, is_sure, from, turn);
            }
            (response, Some(acquire)) => self.acquire_answered(acquire, response, enqueued_at, from, turn),
            (Response::Granted(grant), None) => {
                let granted = UnclaimedGrant {
                    asked,
                    is_sure,
                    sent_at: enqueued_at,
                };
                self.deliver(&key, grant, granted, from, turn);
            }
            (_, None) => {}
        }
    }

    /// Handles the answer to an `e` that came over the connection `from`.
    pub(super) fn enqueue_answered(
        &mut self,
        acquire: Box<Acquire>,
        response: Response,
        sent_at: Moment,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        match response {
            Response::Acquired(grant) => {
                // The server keeps the grant for a `w`, and refuses another `e` for the key on this connection until
                // that `w` comes. So the shard sends the `w` at once. Its answer is the same grant again, so the caller
                // does not wait for it.
                let settle = Pending::Settle(acquire.target.kind(), acquire.key.clone());
                self.send_on(from, settle, turn);
                self.granted(acquire, grant, sent_at, from, turn);
            }
            Response::Queued => self.give_ticket(acquire, sent_at, from, turn),
            other => {
                self.wait_ended(from, turn);
                self.acquire_answered(acquire, other, sent_at, from, turn);
            }
        }
    }

    /// Gives the caller a ticket. The ticket occupies the connection until the ticket is used or dropped. If the caller
    /// is gone, the answer drops the ticket, which gives up the queue position. A shard that is closing gives no
    /// tickets, and gives up the position at once.
    fn give_ticket(&mut self, acquire: Box<Acquire>, enqueued_at: Moment, from: LaneId, turn: &mut Turn<'_>) {
        if self.is_closing() {
            let give_up = Pending::GiveUp(acquire.target, acquire.key.clone(), 1);
            self.send_on(from, give_up, turn);
            return turn.tell(acquire.ask, Err(shut_down()));
        }
        let Some(mut connection) = self.connections.get_mut(from) else {
            let error = Error::new(ErrorKind::Disconnected, "the connection was closed");
            let error = self.at_endpoint(error);
            return turn.tell(acquire.ask, Err(error));
        };
        let id = self
            .positions
            .insert(QueuePosition::of(&acquire, Some(from), enqueued_at));
        connection.hold_ticket(id, turn.now);
        drop(connection);
        let refusal = self.refusal_of(acquire.target.kind(), &acquire.key, turn.now);
        let outcome = AcquireOutcome::Queued(id, acquire.target, acquire.key, refusal);
        turn.tell(acquire.ask, Ok(outcome));
    }
}
