//! Tries of a cluster's pipelined connections that may have been carried out though nobody was told: their connection broke, or their
//! member answered that it does not lead, which it also does when it ceases to lead with a request under way.
//!
//! Asked again under the name of the connection that they were written to, they find what it was granted. Each pipelined connection has a
//! name of its own, used once, so that nothing else is found: the leases that it had were renewed over the next one before, and belong
//! to that. Where one is found all the same (builds whose renewals move nothing), its token tells.
//!
//! One connection for each name carries all that is asked again under it, one after the other.

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

/// What is to be asked again under one name.
struct Named {
    name: StableRef,
    /// The connection that presents it.
    lane: Option<LaneId>,
    waiting: VecDeque<Repeat>,
}

/// The tries that are to be asked again, in the order in which that became so.
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

    /// A name that no connection presents, and under which something is to be asked.
    fn next(&mut self) -> Option<&mut Named> {
        self.0
            .iter_mut()
            .find(|named| named.lane.is_none() && !named.waiting.is_empty())
    }

    /// Whether something waits for a connection of its name.
    fn wants_connection(&self) -> bool {
        self.0
            .iter()
            .any(|named| named.lane.is_none() && !named.waiting.is_empty())
    }

    /// Takes what is to be asked over a connection.
    fn take(&mut self, lane: LaneId) -> VecDeque<Repeat> {
        let named = self.0.iter_mut().find(|named| named.lane == Some(lane));
        named
            .map(|named| std::mem::take(&mut named.waiting))
            .unwrap_or_default()
    }

    /// A connection presents its name no more, or nothing is asked over it any more.
    pub(super) fn left(&mut self, lane: LaneId) {
        if let Some(named) = self.0.iter_mut().find(|named| named.lane == Some(lane)) {
            named.lane = None;
        }
        self.0.retain(|named| named.lane.is_some() || !named.waiting.is_empty());
    }

    /// How many wait to be asked.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.0.iter().map(|named| named.waiting.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the callers that wait for what is found: it is given back instead.
    fn take_callers(&mut self) -> Vec<Box<Acquire>> {
        let waiting = self.0.iter_mut().flat_map(|named| &mut named.waiting);
        waiting
            .filter_map(
                |repeat| match std::mem::replace(&mut repeat.recipient, Recipient::ByNobody) {
                    Recipient::By(acquire) => Some(acquire),
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
    /// A try may have been carried out: it is asked again under the name of the connection that it was written to, as often as
    /// redirects are followed. Without such a name its caller gets the error.
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
            self.forsake_repeats(&refusal, turn);
        }
    }

    /// Callers get the error: what is found for them is given back.
    pub(super) fn forsake_repeats(&mut self, error: &Error, turn: &mut Turn<'_>) {
        for acquire in self.repeats.take_callers() {
            turn.tell(acquire.ask, Err(error.clone()));
        }
    }

    /// Opens a connection for each name under which something is to be asked.
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

    /// Whether a connection is wanted that may be opened later.
    pub(super) fn repeats_wait(&self) -> bool {
        self.repeats.wants_connection()
    }

    /// A connection is there that presents a name. `remembered`: its server knows what that is.
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

    /// Sends what is to be asked over a connection, and ends it when there is nothing more.
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
            // Its end is on its way.
            if let Some(Pending::Repeat(repeat)) = self.connections.send(lane, request, pending, turn) {
                self.repeats.push(*repeat);
            }
        }
        if self
            .connections
            .get(lane)
            .is_some_and(|connection| connection.in_flight == 0)
        {
            self.repeats.left(lane);
            self.connections.retire(lane, turn);
            self.keep_house(turn);
        }
    }

    /// The answer to a try that was asked again.
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
                self.end_place(from, target, key, turn);
                self.repeat_refused(repeat, turn);
            }
            other => {
                let error = self.refused(repeat.key.0, &repeat.key.1, &other);
                self.not_found(repeat, error, turn);
            }
        }
    }

    /// A try was granted. Under a name that is used again and again that may be a lease which the name had before.
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
            Known::Not if self.is_spoken_for(from, &grant.token) => {}
            Known::Not => return self.found(repeat, grant, sent_at, from, turn),
            // The server has begun it anew, on the terms of the try, and counts it to this connection.
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
        // What it may have been granted is behind that.
        let cause = self.at_lane(from, lost_try());
        self.retry_try(Pending::Repeat(Box::new(repeat)), None, cause, turn);
    }

    /// Whether a grant that the server tells of to end a place is another's: `w` tells what the session has, and comes to the place only
    /// when that belongs to another connection.
    pub(super) fn is_accounted_for(&self, from: LaneId, token: &Token) -> bool {
        matches!(self.leases.know(token), Known::Held(_) | Known::Releasing) || self.is_spoken_for(from, token)
    }

    /// Whether a grant that is no lease yet, or none any more, belongs to another caller: it is being confirmed or on its way back, or
    /// was found over this connection before.
    fn is_spoken_for(&self, from: LaneId, token: &Token) -> bool {
        let connection = self.connections.get(from);
        self.confirming.has(token)
            || self.releases.is_under_way(token)
            || connection.is_some_and(|connection| connection.found.contains(token))
    }

    /// It was granted, then or now.
    fn found(&mut self, repeat: Repeat, grant: Grant, sent_at: Moment, from: LaneId, turn: &mut Turn<'_>) {
        let Repeat { key, ttl, name, .. } = repeat;
        if let Some(mut connection) = self.connections.get_mut(from) {
            connection.note_found(grant.token);
        }
        match repeat.recipient {
            Recipient::By(mut acquire) => {
                acquire.session = Some(Box::new(name));
                self.granted(acquire, grant, sent_at, from, turn);
            }
            Recipient::ByTheFirst => {
                self.waits.tried(&key, turn.now);
                let granted = UnclaimedGrant {
                    asked: ttl,
                    is_sure: false,
                    sent_at,
                };
                self.deliver(&key, grant, granted, from, turn);
            }
            Recipient::ByNobody => {
                self.connections.own(from);
                self.give_back_grant(key.0, key.1, grant, from, turn);
            }
        }
    }

    /// The key is held.
    fn repeat_refused(&mut self, repeat: Repeat, turn: &mut Turn<'_>) {
        match repeat.recipient {
            Recipient::By(acquire) => self.answer_busy(acquire, turn),
            Recipient::ByTheFirst => {
                self.waits.tried(&repeat.key, turn.now);
                self.waits.refused(&repeat.key, turn.now);
            }
            Recipient::ByNobody => {}
        }
    }

    /// It cannot be found out what became of it.
    pub(super) fn not_found(&mut self, repeat: Repeat, error: Error, turn: &mut Turn<'_>) {
        match repeat.recipient {
            Recipient::By(acquire) => turn.tell(acquire.ask, Err(error)),
            Recipient::ByTheFirst => {
                self.probe_unanswered(&repeat.key, turn.now);
                let first = self.waits.claim(&repeat.key, turn.now);
                if let Some(Wait::Caller(acquire, _) | Wait::Ticket(acquire)) = first {
                    turn.tell(acquire.ask, Err(error));
                }
            }
            Recipient::ByNobody => {}
        }
    }
}

fn lost_try() -> Error {
    Error::new(
        ErrorKind::Disconnected,
        "the connection was lost before the try was answered, and what became of it cannot be told from other leases of this client",
    )
}

#[cfg(test)]
mod tests;
