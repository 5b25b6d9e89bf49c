//! Interprets the server's answers and passes each to the part that its request belongs to.

use tokio::time::Instant;

use super::ShardMachine;
use super::acquire::Acquire;
use super::effect::{AcquireOutcome, Turn};
use super::ids::LaneId;
use super::progress::Refusal;
use super::repeat::Repeat;
use super::request::Pending;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::events::{ClientEvent, WaitBound};
use crate::net::pipeline::Reply;
use crate::protocol::{Namespaces, Response, Status, limit_mismatch};
use crate::types::{Key, Kind, Target, Ttl};

impl ShardMachine {
    /// Reports a refusal because of the server's limit on waiters, unless the last waiter was refused for the same
    /// reason.
    fn note_waiters(&mut self, tag: &Pending, response: &Response) {
        let refused = matches!(response, Response::Refused(Status::MaxWaiters));
        if refused && !self.waiters_refused {
            let bound = WaitBound::ServerWaiters;
            self.events.tell(|shard| ClientEvent::WaitBoundReached { shard, bound });
        }
        // An answer to a try does not show that the server would accept a waiter.
        if refused || matches!(tag, Pending::Wait(_) | Pending::Enqueue(_)) {
            self.waiters_refused = refused;
        }
    }

    /// Handles an answer that came over the connection `from`.
    pub(super) fn reply(&mut self, from: LaneId, reply: Reply<Pending>, turn: &mut Turn<'_>) {
        let Reply { tag, response, sent_at } = reply;
        self.note_waiters(&tag, &response);
        match &response {
            Response::Refused(Status::Draining) => {
                if let Some(mut connection) = self.connections.get_mut(from) {
                    connection.draining = true;
                }
                // The server did not execute the request, and another member will lead before long.
                if self.serving.is_cluster() {
                    return self.handle_not_leader(from, tag, Status::Draining.to_error(""), turn);
                }
            }
            Response::Refused(Status::NotLeader(leader)) => {
                self.metrics.redirected();
                if self.serving.is_cluster() {
                    return self.handle_not_leader(from, tag, not_leader(leader.as_deref()), turn);
                }
            }
            // This member led, lost the lead for a while, and leads again. It now finds the queue position only under
            // the session's name.
            Response::Refused(Status::NotEnqueued)
                if matches!(tag, Pending::Collect(..)) && self.is_in_a_session(from) =>
            {
                let error = self.at_lane(from, Status::NotEnqueued.to_error(""));
                return self.retry_wait(from, tag, error, turn);
            }
            // A leader that shuts down ends blocked requests with a bare `error`. The wait continues at the next
            // leader.
            Response::Refused(Status::Error)
                if matches!(tag, Pending::Wait(_) | Pending::Collect(..)) && self.goes_on_in_its_session(from) =>
            {
                self.wait_pace.failed(turn.now);
                let error = self.at_lane(from, wait_ended_by_server(self.key_of(&tag).as_ref()));
                return self.retry_wait(from, tag, error, turn);
            }
            _ => {}
        }
        if self.connections.has_slot(from) {
            self.led_at = turn.now;
        }
        match tag {
            Pending::Try(acquire) => match (response, self.stable_ref.clone()) {
                (Response::TimedOut, _) => self.answer_busy(acquire, turn),
                (Response::Granted(grant), Some(name)) => {
                    self.repeat_granted(Repeat::of_try(acquire, name), grant, sent_at, from, turn);
                }
                (other, _) => self.acquire_answered(acquire, other, sent_at, from, turn),
            },
            Pending::Probe(probe) => match (response, self.stable_ref.clone()) {
                (Response::Granted(grant), Some(name)) => {
                    let repeat = Repeat::of_probe(probe.key, probe.ttl, name);
                    self.repeat_granted(repeat, grant, sent_at, from, turn);
                }
                (response, _) => self.probe_answered(*probe, response, sent_at, from, turn),
            },
            Pending::Repeat(repeat) => self.repeat_answered(*repeat, response, sent_at, from, turn),
            Pending::Wait(wait) => self.wait_answered(*wait, response, sent_at, from, turn),
            Pending::Enqueue(acquire) => self.enqueue_answered(acquire, response, sent_at, from, turn),
            Pending::Collect(ticket, _) => self.collect_answered(ticket, response, from, turn),
            Pending::Rejoin(ticket, _) => self.rejoin_answered(ticket, &response, from, turn),
            Pending::GiveUp(target, key, times) => {
                self.wait_ended(from, turn);
                match response {
                    Response::Granted(grant) if self.is_grant_of_another_request(from, &grant.token) => {
                        self.end_position_again(from, target, key, times, turn);
                    }
                    Response::Granted(grant) => {
                        self.connections.own(from);
                        self.give_back_grant(target, key, grant, from, turn);
                    }
                    Response::TimedOut => self.end_position_again(from, target, key, times, turn),
                    _ => {}
                }
            }
            Pending::Settle(..) => self.wait_ended(from, turn),
            Pending::Confirm { acquire, grant, owner } if self.is_stale_connection(from) => {
                self.reject_stale_grant(acquire, *grant, owner, from, turn);
            }
            Pending::Confirm { acquire, grant, owner } => {
                match self.owner_after_confirmation(owner, from, &response, turn) {
                    Some(owner) => self.confirm_answered(acquire, *grant, owner, response, sent_at, turn),
                    None => self.lost_while_confirmed(acquire, *grant, owner, turn),
                }
            }
            Pending::Renew(renewal) => self.renewal_answered(&renewal, &response, sent_at, from, turn),
            Pending::Release(release) => self.release_answered(release, &response, turn),
            Pending::Look => self.looked(response, from, turn),
            Pending::Ask(question) => turn.answer(question, Ok(response), self.endpoint_of(from)),
        }
    }

    /// Tells the caller that, according to the server, the key is held.
    pub(super) fn answer_busy(&mut self, acquire: Box<Acquire>, turn: &mut Turn<'_>) {
        let refusal = self.refusal_of(acquire.target.kind(), &acquire.key, turn.now);
        self.waits.refused(&acquire.wait_key(), refusal.at);
        turn.tell(acquire.ask, Ok(AcquireOutcome::Busy(refusal)));
    }

    /// Combines the server's answer that a key is held with the number of leases that this client holds on it.
    pub(super) fn refusal_of(&self, kind: Kind, key: &Key, now: Instant) -> Refusal {
        Refusal {
            at: now,
            own: self.leases.own(kind, key),
        }
    }

    pub(super) fn acquire_answered(
        &mut self,
        acquire: Box<Acquire>,
        response: Response,
        sent_at: Moment,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        match response {
            Response::Granted(grant) => self.granted(acquire, grant, sent_at, from, turn),
            other => {
                let error = self.refused(acquire.target, &acquire.key, &other);
                turn.tell(acquire.ask, Err(error));
            }
        }
    }

    /// Whether the server keeps locks and semaphores in one namespace. Server versions without `ping` do.
    fn namespaces(&self) -> Namespaces {
        match self.knows_ping {
            Some(true) => Namespaces::Apart,
            Some(false) => Namespaces::Shared,
            None => Namespaces::Unknown,
        }
    }

    pub(super) fn refused(&self, target: Target, key: &Key, response: &Response) -> Error {
        self.at_endpoint(match response {
            Response::Refused(Status::LimitMismatch) => limit_mismatch(key, target, self.namespaces()),
            Response::Refused(status) => status.to_error(key.as_str()),
            other => Error::new(
                ErrorKind::Protocol,
                format!("{other:?} is not a valid answer to an acquire"),
            ),
        })
    }
}

/// The request that brought an unclaimed grant: a grant that goes to the caller that comes first for its key.
pub(super) struct UnclaimedGrant {
    /// The TTL that the request asked for.
    pub(super) asked: Option<Ttl>,
    /// Whether two things are certain: the grant has that TTL, and the server made it after `sent_at`.
    pub(super) is_sure: bool,
    /// When the request was sent. If `is_sure`, the server made the grant after this moment.
    pub(super) sent_at: Moment,
}

/// Returns the error of a wait that the server ended with a bare `error`. The wait was well-formed, because the server
/// has refused a try of the key before, or has given the wait a queue position. So the bare `error` is not a refusal:
/// servers that shut down answer their waits in this way.
pub(super) fn wait_ended_by_server(key: Option<&Key>) -> Error {
    let wait = key.map_or_else(|| "the wait".to_owned(), |key| format!("the wait for {key:?}"));
    let message =
        format!("the server ended {wait} with a bare `error`, as servers that are shutting down do: try again");
    Error::new(ErrorKind::Draining, message)
}

/// Returns the error of a member that does not lead.
pub(super) fn not_leader(leader: Option<&str>) -> Error {
    Status::NotLeader(leader.map(Box::from)).to_error("")
}
