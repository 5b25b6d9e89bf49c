//! Tries on a cluster's pipelined connections that may have been granted although no grant arrived. Either their
//! connection broke, or their member answered that it does not lead. A member also gives this answer if it ceases to
//! lead while a request is under way.
//!
//! A try that is sent again under the name of its first connection finds its grant, if there is one. Unless a name is
//! configured, no two pipelined connections have the same name. Before the shard repeats a try, it renews the leases of
//! the first connection over the next pipelined connection. The leases then belong to the next connection, so the try
//! does not find them. In some server builds, a renewal does not move a lease. There, the try may find such a lease,
//! and the shard recognizes the lease by its token.
//!
//! For each name, one connection carries all tries that are sent again under it, in order.

use std::collections::VecDeque;
use std::time::Duration;

use super::ShardMachine;
use super::acquire::Acquire;
use super::answers::UnclaimedGrant;
use super::connections::{Connection, Opened, Work};
use super::effect::{Role, Turn};
use super::ids::LaneId;
use super::registry::Known;
use super::repeat::{Recipient, Repeat};
use super::request::{Pending, Wait};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::net::connect::Purpose;
use crate::protocol::{Response, StableRef};
use crate::types::{Grant, Target, Token};

/// The tries to send again under one name.
struct Named {
    name: StableRef,
    /// The connection that presents the name.
    lane: Option<LaneId>,
    waiting: VecDeque<Repeat>,
}

/// All tries to send again, in the order in which they were added.
#[derive(Default)]
pub(super) struct Repeats(Vec<Named>);

impl Repeats {
    fn push(&mut self, repeat: Repeat) {
        match self.0.iter_mut().find(|named| named.name == repeat.name) {
            Some(named) => named.waiting.push_back(repeat),
            None => self.0.push(Named {
                name: repeat.name.clone(),
                lane: None,
                waiting: VecDeque::from([repeat]),
            }),
        }
    }

    /// Returns a name that has waiting tries and no connection.
    fn next(&mut self) -> Option<&mut Named> {
        self.0
            .iter_mut()
            .find(|named| named.lane.is_none() && !named.waiting.is_empty())
    }

    /// Whether tries wait for a connection of their name.
    fn wants_connection(&self) -> bool {
        self.0
            .iter()
            .any(|named| named.lane.is_none() && !named.waiting.is_empty())
    }

    /// Removes and returns the waiting tries under a connection's name.
    fn take(&mut self, lane: LaneId) -> VecDeque<Repeat> {
        let named = self.0.iter_mut().find(|named| named.lane == Some(lane));
        named
            .map(|named| std::mem::take(&mut named.waiting))
            .unwrap_or_default()
    }

    /// Notes that a connection carries no more tries under its name.
    pub(super) fn detach_lane(&mut self, lane: LaneId) {
        if let Some(named) = self.0.iter_mut().find(|named| named.lane == Some(lane)) {
            named.lane = None;
        }
        self.0.retain(|named| named.lane.is_some() || !named.waiting.is_empty());
    }

    /// Returns the number of tries that wait to be sent.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.0.iter().map(|named| named.waiting.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes and returns the callers of waiting tries. The tries are still sent, and their grants are released.
    fn take_callers(&mut self) -> Vec<Box<Acquire>> {
        let waiting = self.0.iter_mut().flat_map(|named| &mut named.waiting);
        waiting
            .filter_map(
                |repeat| match std::mem::replace(&mut repeat.recipient, Recipient::NoCaller) {
                    Recipient::Caller(acquire) => Some(acquire),
                    other => {
                        repeat.recipient = other;
                        None
                    }
                },
            )
            .collect()
    }
}

impl ShardMachine {
    /// Repeats a try that may have been granted, under the name of the connection to which it was written, at most
    /// `max_redirects` times. If the connection had no name, the try's caller gets the error.
    pub(super) fn retry_try(&mut self, pending: Pending, name: Option<StableRef>, cause: Error, turn: &mut Turn<'_>) {
        let mut repeat = match (pending, name) {
            (Pending::Repeat(repeat), _) => *repeat,
            (Pending::Try(acquire), Some(name)) => Repeat::of_try(acquire, name),
            (Pending::Probe(probe), Some(name)) => Repeat::of_probe(probe.key, probe.ttl, name),
            (other, _) => return self.fail(other, cause, turn),
        };
        if !self.count_redirect(&mut repeat.times) {
            return self.not_found(repeat, cause, turn);
        }
        self.repeats.push(repeat);
        if let Some(refusal) = self.refusal() {
            self.fail_waiting_repeats(&refusal, turn);
        }
    }

    /// Gives the error to all callers of waiting tries. The tries are still sent, and their grants are released.
    pub(super) fn fail_waiting_repeats(&mut self, error: &Error, turn: &mut Turn<'_>) {
        for acquire in self.repeats.take_callers() {
            turn.tell(acquire.ask, Err(error.clone()));
        }
    }

    /// Opens a connection for each name under which tries wait.
    pub(super) fn start_repeats(&mut self, turn: &mut Turn<'_>) {
        while self.repeats.wants_connection() && self.may_connect(turn.now) {
            let Some(named) = self.repeats.next() else { return };
            let opened = Opened {
                role: Role::Exclusive,
                work: Work::Repeating,
                pause: Duration::ZERO,
                give_up_at: None,
                endpoint: self.serving.at(),
                purpose: Purpose::Session(named.name.clone()),
            };
            named.lane = Some(self.connections.open(opened, turn));
        }
    }

    /// Whether tries wait for a connection of their name.
    pub(super) fn repeats_wait(&self) -> bool {
        self.repeats.wants_connection()
    }

    /// Handles a new connection that presents a name. `remembered` says whether its server supports session names.
    pub(super) fn repeats_up(&mut self, lane: LaneId, remembered: bool, turn: &mut Turn<'_>) {
        if !remembered {
            for repeat in self.repeats.take(lane) {
                let lost = Error::new(
                    ErrorKind::Disconnected,
                    "the connection was lost before the try was answered, and the leader remembers no sessions",
                );
                let lost = self.at_lane(lane, lost);
                self.not_found(repeat, lost, turn);
            }
        }
        self.send_repeats(lane, turn);
    }

    /// Sends the waiting tries over a connection. Retires the connection if no request on it is unanswered.
    pub(super) fn send_repeats(&mut self, lane: LaneId, turn: &mut Turn<'_>) {
        let is_for_repeats = |connection: &Connection| matches!(connection.work, Work::Repeating);
        if !self.connections.get(lane).is_some_and(is_for_repeats) {
            return;
        }
        for repeat in self.repeats.take(lane) {
            let pending = Pending::Repeat(Box::new(repeat));
            let Some(request) = self.request(&pending, turn) else {
                continue;
            };
            // If the connection is about to end, the try waits for the next one.
            if let Some(Pending::Repeat(repeat)) = self.connections.send(lane, request, pending, turn) {
                self.repeats.push(*repeat);
            }
        }
        if self
            .connections
            .get(lane)
            .is_some_and(|connection| connection.in_flight == 0)
        {
            self.repeats.detach_lane(lane);
            self.connections.retire(lane, turn);
            self.schedule_housekeeping(turn);
        }
    }

    /// Handles the answer to a try that was sent again.
    pub(super) fn repeat_answered(
        &mut self,
        repeat: Repeat,
        response: Response,
        sent_at: Moment,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        match response {
            Response::Granted(grant) => self.repeat_granted(repeat, grant, sent_at, from, turn),
            Response::TimedOut => {
                let (target, key) = repeat.key.clone();
                self.end_position(from, target, key, turn);
                self.repeat_refused(repeat, turn);
            }
            other => {
                let error = self.refused(repeat.key.0, &repeat.key.1, &other);
                self.not_found(repeat, error, turn);
            }
        }
    }

    /// Handles a grant for a try that was sent again, or that was sent under the configured name. The grant may be a
    /// lease that the name had before.
    pub(super) fn repeat_granted(
        &mut self,
        repeat: Repeat,
        grant: Grant,
        sent_at: Moment,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        let (target, key) = repeat.key.clone();
        match self.leases.know(&grant.token) {
            Known::Not if self.belongs_to_another_request(from, &grant.token) => {}
            Known::Not => return self.found(repeat, grant, sent_at, from, turn),
            // The server has restarted the lease with the TTL of the try, and attributes it to this connection.
            Known::Held(id) => {
                let asked = repeat.ttl.map_or(grant.ttl, |asked| asked.min(grant.ttl));
                if let Some(before) = self.leases.taken_back(id, from, sent_at, asked) {
                    self.connections.own(from);
                    self.connections.disown(before, turn);
                }
                if self.connections.is_serving() {
                    self.renew_overdue(turn);
                }
                if target == Target::Lock {
                    return self.repeat_refused(repeat, turn);
                }
            }
            Known::Lost => {
                self.connections.own(from);
                self.release_grant(target, key, grant, from, turn);
            }
            Known::Releasing => {}
        }
        // This grant does not belong to the try. If the try has a grant, the next answer brings it.
        let cause = self.at_lane(from, lost_try());
        self.retry_try(Pending::Repeat(Box::new(repeat)), None, cause, turn);
    }

    /// Whether a grant that the server returned while a queue position was given up belongs to another request. If the
    /// session already has a grant, `w` returns that grant, and only a later `w` reaches the queue position.
    pub(super) fn is_grant_of_another_request(&self, from: LaneId, token: &Token) -> bool {
        matches!(self.leases.know(token), Known::Held(_) | Known::Releasing)
            || self.belongs_to_another_request(from, token)
    }

    /// Whether a grant that is not a registered lease belongs to another request: it is being confirmed, is being
    /// released, or was found over this connection before.
    fn belongs_to_another_request(&self, from: LaneId, token: &Token) -> bool {
        let connection = self.connections.get(from);
        self.confirming.has(token)
            || self.releases.is_under_way(token)
            || connection.is_some_and(|connection| connection.found.contains(token))
    }

    /// Handles a grant that belongs to the try. Either the first request or the repeated one has obtained it.
    fn found(&mut self, repeat: Repeat, grant: Grant, sent_at: Moment, from: LaneId, turn: &mut Turn<'_>) {
        let Repeat { key, ttl, name, .. } = repeat;
        if let Some(mut connection) = self.connections.get_mut(from) {
            connection.note_found(grant.token);
        }
        match repeat.recipient {
            Recipient::Caller(mut acquire) => {
                acquire.session = Some(Box::new(name));
                self.granted(acquire, grant, sent_at, from, turn);
            }
            Recipient::FirstCaller => {
                self.waits.tried(&key, turn.now);
                let granted = UnclaimedGrant {
                    asked: ttl,
                    is_sure: false,
                    sent_at,
                };
                self.deliver(&key, grant, granted, from, turn);
            }
            Recipient::NoCaller => {
                self.connections.own(from);
                self.give_back_grant(key.0, key.1, grant, from, turn);
            }
        }
    }

    /// Handles the answer that the key is held.
    fn repeat_refused(&mut self, repeat: Repeat, turn: &mut Turn<'_>) {
        match repeat.recipient {
            Recipient::Caller(acquire) => self.answer_busy(acquire, turn),
            Recipient::FirstCaller => {
                self.waits.tried(&repeat.key, turn.now);
                self.waits.refused(&repeat.key, turn.now);
            }
            Recipient::NoCaller => {}
        }
    }

    /// Ends a try whose outcome cannot be determined.
    pub(super) fn not_found(&mut self, repeat: Repeat, error: Error, turn: &mut Turn<'_>) {
        match repeat.recipient {
            Recipient::Caller(acquire) => turn.tell(acquire.ask, Err(error)),
            Recipient::FirstCaller => {
                self.probe_unanswered(&repeat.key, turn.now);
                let first = self.waits.claim(&repeat.key, turn.now);
                if let Some(Wait::Caller(acquire, _) | Wait::Ticket(acquire)) = first {
                    turn.tell(acquire.ask, Err(error));
                }
            }
            Recipient::NoCaller => {}
        }
    }
}

fn lost_try() -> Error {
    Error::new(
        ErrorKind::Disconnected,
        "the connection was lost before the try was answered, and its grant cannot be told apart from other leases of this client",
    )
}

#[cfg(test)]
mod tests;
