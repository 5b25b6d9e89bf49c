//! Places in queues: those whose tickets callers hold, and those that a cluster's sessions remember. Such a place outlives its
//! connection, so it must not be forgotten here either: it is taken back under the session's name, for its caller, or to be
//! given up if there is none any more.
//!
//! Whether the server keeps what a connection leaves behind (`--orphan-ttl`) is not told by its `ok` to the name. If it keeps
//! nothing, a wait that is asked anew has lost its place, and one whose grant was on its way when the connection broke may take
//! a second beside it: a lock is then free only when the TTL of the first is over.

use tokio::time::Instant;

use super::ShardMachine;
use super::acquire::Acquire;
use super::ask::Ask;
use super::connections::Work;
use super::effect::Turn;
use super::held::Acquired;
use super::ids::{Arrival, LaneId, TicketId, WaitKey};
use super::places::{AfterRejoin, TakenPlace, Use};
use super::request::{Pending, ServerWait, Wait};
use super::waits::Occupant;
use crate::clock::after;
use crate::ending::shut_down;
use crate::error::{Error, ErrorKind};
use crate::protocol::{Response, StableRef};
use crate::types::{Key, Target};

impl ShardMachine {
    // Tickets.

    /// Waits at the place of a ticket.
    pub(super) fn collect(&mut self, id: TicketId, until: Instant, ask: Ask<Acquired>, turn: &mut Turn<'_>) {
        match self.places.collect(id, until, ask) {
            Ok(Some(lane)) => self.send_on(lane, Pending::Collect(id, until), turn),
            Ok(None) => {}
            Err(ask) => {
                let error = match self.is_closing() {
                    true => shut_down(),
                    false => Error::new(
                        ErrorKind::Disconnected,
                        "the place in the queue was lost with its connection: enqueue again",
                    ),
                };
                let error = self.here(error);
                turn.tell(ask, Err(error));
            }
        }
    }

    /// A ticket was dropped.
    pub(super) fn give_up(&mut self, id: TicketId, turn: &mut Turn<'_>) {
        if let Some(Use::On(lane, place)) = self.places.give_up(id) {
            self.leave_ticket(lane, turn.now);
            let give_up = Pending::GiveUp(place.target, place.key.clone(), place.rejoined());
            self.send_on(lane, give_up, turn);
        }
    }

    /// No caller has a ticket for this connection any more; what is sent next ends its wait.
    fn leave_ticket(&mut self, id: LaneId, now: Instant) {
        if let Some(mut connection) = self.connections.get_mut(id) {
            connection.leave_ticket(now);
        }
    }

    /// The connection of a place is gone. Returns what takes the place back, if its session is known; otherwise it is lost.
    pub(super) fn ticket_lost(
        &mut self,
        id: TicketId,
        session: Option<StableRef>,
        cause: &Error,
        turn: &mut Turn<'_>,
    ) -> Option<Wait> {
        match session {
            Some(session) if !self.is_closing() => {
                let is_collected = self.places.is_collected(id);
                if !self.places.leave_connection(id) {
                    return None;
                }
                // A place that is only kept is taken back as often as leaders change.
                match is_collected {
                    true => self.retry_or_refuse(Pending::Rejoin(id, session), None, cause.clone(), turn),
                    false => Some(Wait::Rejoin(id, session)),
                }
            }
            _ => {
                self.ticket_refused(id, cause.clone(), turn);
                None
            }
        }
    }

    /// The answer to the `e` by which a place is taken back. A grant that came meanwhile is collected like any other.
    pub(super) fn rejoin_answered(&mut self, id: TicketId, response: &Response, from: LaneId, turn: &mut Turn<'_>) {
        let (Response::Queued | Response::Acquired(_)) = response else {
            self.wait_ended(from, turn);
            let error = match (response, self.places.wait_key(id)) {
                (Response::Refused(status), Some((_, key))) => status.to_error(key.as_str()),
                (other, _) => Error::new(ErrorKind::Protocol, format!("{other:?} is no answer to an enqueue")),
            };
            let error = self.at_lane(from, error);
            return self.ticket_refused(id, error, turn);
        };
        let Some(next) = self.places.taken_back(id, from) else {
            return self.wait_ended(from, turn);
        };
        if let Some(mut connection) = self.connections.get_mut(from) {
            connection.hold_ticket(id, turn.now);
        }
        match next {
            AfterRejoin::Keep => {}
            AfterRejoin::Collect(until, ask) if !ask.is_gone() => self.collect(id, until, ask, turn),
            AfterRejoin::Collect(..) | AfterRejoin::GiveUp => self.give_up(id, turn),
        }
    }

    /// A place could not be taken back.
    pub(super) fn ticket_refused(&mut self, id: TicketId, error: Error, turn: &mut Turn<'_>) {
        if let Some(ask) = self.places.remove(id).and_then(TakenPlace::into_caller) {
            turn.tell(ask, Err(error));
        }
    }

    /// Sends what belongs on this connection and no other.
    pub(super) fn send_on(&mut self, id: LaneId, pending: Pending, turn: &mut Turn<'_>) {
        let Some(request) = self.request(&pending, turn) else {
            return;
        };
        let blocks = request.blocks().as_duration();
        let until = matches!(pending, Pending::Collect(..)).then(|| after(turn.now, blocks));
        let unsent = self.connections.send(id, request, pending, turn);
        if let Some(mut connection) = self.connections.get_mut(id) {
            connection.waits_until = until;
        }
        match unsent {
            // The connection is about to end, and what becomes of the place is decided then.
            Some(Pending::Collect(..)) if self.connections.get(id).is_some() => {}
            Some(pending) => {
                let error = Error::new(ErrorKind::Disconnected, "the connection was closed");
                let error = self.at_lane(id, error);
                self.retry_wait(id, pending, error, turn);
            }
            None => {}
        }
    }

    // Waits that are asked anew.

    /// The server says that the time of a wait is over. That does not end a place that was taken back, nor one at a member that has
    /// ceased to lead: it is given up, over the connection that has it.
    pub(super) fn end_place(&mut self, lane: LaneId, target: Target, key: Key, turn: &mut Turn<'_>) {
        if self.is_in_a_session(lane) {
            self.send_on(lane, Pending::GiveUp(target, key, 0), turn);
        }
    }

    /// A member may have answered so without ending the place: one behind whose `e` that was taken back while its ticket was dropped, and
    /// one that has ceased to lead. So it is given up until the server knows none.
    pub(super) fn end_place_again(
        &mut self,
        lane: LaneId,
        target: Target,
        key: Key,
        mut times: u32,
        turn: &mut Turn<'_>,
    ) {
        if self.is_in_a_session(lane) && self.count_redirect(&mut times) {
            self.send_on(lane, Pending::GiveUp(target, key, times), turn);
        }
    }

    /// A wait comes back from its connection. Its session goes with it, so that connection is of no more use, unless it owns leases, which
    /// the server releases with it, or carries other tries of its session: then it stands until that is over.
    pub(super) fn retry_wait(&mut self, from: LaneId, wait: Pending, refusal: Error, turn: &mut Turn<'_>) {
        let Some(mut connection) = self.connections.get_mut(from) else {
            return self.refuse(wait, refusal, turn);
        };
        let (session, begun) = (connection.session.clone(), connection.stop_waiting(turn.now));
        let stands = connection.owns > 0 || matches!(connection.work, Work::Repeating);
        drop(connection);
        match session {
            Some(_) if stands => self.connections.retire(from, turn),
            Some(_) => drop(self.connections.close(from, turn)),
            None => {}
        }
        let arrival = begun.and_then(|(key, arrival, occupant)| {
            self.waits.ended(&key, occupant, turn.now);
            arrival
        });
        if let Some(wait) = self.retry_or_refuse(wait, session, refusal, turn) {
            self.queue(wait, arrival, turn.now);
        }
        self.keep_house(turn);
    }

    /// Returns what is asked anew for a wait, if anything: in its session, if it has one. Where that was done too often, its caller
    /// gets the refusal; and where the session may have a place all the same, what is asked is to be rid of that.
    pub(super) fn retry_or_refuse(
        &mut self,
        mut wait: Pending,
        session: Option<StableRef>,
        refusal: Error,
        turn: &mut Turn<'_>,
    ) -> Option<Wait> {
        let goes_on = self.count_retry(&mut wait) && (!self.is_closing() || self.gives_up(&wait));
        match wait {
            Pending::Wait(mut wait) => match session.or(wait.session.take()) {
                Some(session) if goes_on => {
                    wait.session = Some(session);
                    Some(Wait::Resume(wait))
                }
                Some(session) => {
                    self.tell_uncovered(&wait.wait_key(), refusal, turn);
                    Some(self.giving_up(wait.target, wait.key, session, turn.now))
                }
                None => {
                    self.retry_for_caller(&wait.wait_key(), refusal, turn);
                    None
                }
            },
            Pending::Enqueue(acquire) if goes_on => Some(Wait::Ticket(in_session(acquire, session))),
            Pending::Enqueue(acquire) => {
                let session = session.or(acquire.session.map(|session| *session));
                turn.tell(acquire.ask, Err(refusal));
                Some(self.giving_up(acquire.target, acquire.key, session?, turn.now))
            }
            Pending::Collect(ticket, _) => match session {
                Some(session) if goes_on => self
                    .places
                    .leave_connection(ticket)
                    .then_some(Wait::Rejoin(ticket, session)),
                Some(session) => self.instead_of(ticket, session, refusal, turn),
                None => {
                    self.ticket_refused(ticket, refusal, turn);
                    None
                }
            },
            // However often: no caller waits for it, and the server would keep the place.
            Pending::GiveUp(target, key, times) => Some(self.errand(target, key, times, session?, turn.now)),
            Pending::Rejoin(id, before) if goes_on => Some(Wait::Rejoin(id, session.unwrap_or(before))),
            Pending::Rejoin(id, before) => self.instead_of(id, session.unwrap_or(before), refusal, turn),
            other => {
                self.refuse(other, refusal, turn);
                None
            }
        }
    }

    /// A server wait without a session was refused because its member does not lead. The caller that lost it waits for the next, unless
    /// that happened too often.
    fn retry_for_caller(&mut self, key: &WaitKey, refusal: Error, turn: &mut Turn<'_>) {
        let most = self.settings.max_redirects;
        if let Some(Wait::Caller(acquire, _)) = self.waits.uncovered(key, turn.now) {
            acquire.redirects += 1;
            if acquire.redirects > most {
                self.tell_uncovered(key, refusal, turn);
            }
        }
    }

    /// A place that should be taken back is not: its holder gets the refusal, and what is asked instead is to be rid of it.
    fn instead_of(&mut self, id: TicketId, session: StableRef, refusal: Error, turn: &mut Turn<'_>) -> Option<Wait> {
        let place = self.places.remove(id)?;
        if place.is_to_give_up() {
            return None;
        }
        let (target, key) = (place.target, place.key.clone());
        if let Some(ask) = place.into_caller() {
            turn.tell(ask, Err(refusal));
        }
        Some(self.giving_up(target, key, session, turn.now))
    }

    /// A wait is refused here, without a word to any server. If its session has a place, that is kept in mind.
    pub(super) fn refuse_wait(&mut self, wait: Wait, refusal: Error, turn: &mut Turn<'_>) {
        let instead = match wait {
            Wait::Caller(acquire, _) => {
                turn.tell(acquire.ask, Err(refusal));
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
                turn.tell(ask, Err(refusal));
                session.map(|session| self.giving_up(target, key, *session, turn.now))
            }
            Wait::Rejoin(id, session) if self.places.is_to_give_up(id) => Some(Wait::Rejoin(id, session)),
            Wait::Rejoin(id, session) => self.instead_of(id, session, refusal, turn),
            // Its callers are told, each for itself.
            Wait::Resume(wait) => {
                let ServerWait {
                    target, key, session, ..
                } = *wait;
                session.map(|session| self.giving_up(target, key, session, turn.now))
            }
        };
        if let Some(give_up) = instead {
            self.queue(give_up, None, turn.now);
        }
    }

    /// The session of a wait is not remembered: there is nothing to take back, nor to give up.
    pub(super) fn lost_with_its_session(&mut self, wait: Wait, lost: Error, turn: &mut Turn<'_>) {
        match wait {
            Wait::Caller(acquire, _) | Wait::Ticket(acquire) => turn.tell(acquire.ask, Err(lost)),
            Wait::Rejoin(id, _) => self.ticket_refused(id, lost, turn),
            Wait::Resume(wait) => self.tell_uncovered(&wait.wait_key(), lost, turn),
        }
    }

    /// What gives up a place that a session may have. The next `w` under its name finds the place, or what was granted there: without
    /// an `e`, which would take a new place if there is none, and behind which the first `w` ends none that there is.
    pub(super) fn giving_up(&mut self, target: Target, key: Key, session: StableRef, now: Instant) -> Wait {
        self.errand(target, key, 0, session, now)
    }

    /// The same, where that was asked so many times.
    pub(super) fn errand(&mut self, target: Target, key: Key, times: u32, session: StableRef, now: Instant) -> Wait {
        let place = TakenPlace::to_give_up(target, key, times, self.leases.moment(now));
        Wait::Rejoin(self.places.insert(place), session)
    }

    /// Queues a wait, at the position that it had, or behind all others.
    pub(super) fn queue(&mut self, wait: Wait, arrival: Option<Arrival>, now: Instant) {
        let key = match &wait {
            Wait::Caller(acquire, _) | Wait::Ticket(acquire) => Some(acquire.wait_key()),
            Wait::Resume(wait) => Some(wait.wait_key()),
            Wait::Rejoin(id, _) => self.places.wait_key(*id),
        };
        let Some(key) = key else { return };
        match wait {
            Wait::Caller(ref acquire, _) => {
                let (holding, ours) = (acquire.holding, self.leases.holds_all_of(&key));
                self.waits.push(key, wait, holding, ours, now);
            }
            Wait::Ticket(ref acquire) if acquire.session.is_none() => {
                self.waits.push_ticket(key, arrival, wait, now);
            }
            Wait::Ticket(_) | Wait::Rejoin(..) => self.waits.push_bound(key, arrival, wait, Occupant::Ticket, now),
            Wait::Resume(_) => self.waits.push_bound(key, arrival, wait, Occupant::Wait, now),
        }
    }

    /// Whether it is about being rid of a place.
    fn gives_up(&self, wait: &Pending) -> bool {
        match wait {
            Pending::GiveUp(..) => true,
            Pending::Rejoin(id, _) => self.places.is_to_give_up(*id),
            _ => false,
        }
    }

    /// Counts that a wait is asked anew. Returns whether it may be.
    fn count_retry(&mut self, wait: &mut Pending) -> bool {
        match wait {
            Pending::Wait(wait) => self.count_redirect(&mut wait.redirects),
            Pending::Enqueue(acquire) => self.count_redirect(&mut acquire.redirects),
            Pending::Rejoin(id, _) if self.places.is_to_give_up(*id) => true,
            Pending::Rejoin(id, _) | Pending::Collect(id, _) => {
                let most = self.settings.max_redirects;
                self.places.count_rejoin(*id).is_some_and(|times| times <= most)
            }
            _ => true,
        }
    }
}

fn in_session(mut acquire: Box<Acquire>, session: Option<StableRef>) -> Box<Acquire> {
    acquire.session = session.map(Box::new).or(acquire.session);
    acquire
}
