//! Places in queues: those whose tickets callers hold, and those that a cluster's sessions remember. Such a place outlives its
//! connection, so it must not be forgotten here either: it is taken back under the session's name, for its caller, or to be
//! given up if there is none any more.
//!
//! Whether the server keeps what a connection leaves behind (`--orphan-ttl`) is not told by its `ok` to the name. If it keeps
//! nothing, a wait that is asked anew has lost its place, and one whose grant was on its way when the connection broke may take
//! a second beside it: a lock is then free only when the TTL of the first is over.

use tokio::time::Instant;

use super::Shard;
use super::acquire::Acquire;
use super::ask::Ask;
use super::effect::{Outcome, Turn};
use super::held::Acquired;
use super::ids::{LaneId, TicketId};
use super::places::{Next, QueuePlace, Use};
use super::progress::WaitsFor;
use super::request::Pending;
use crate::ending::shut_down;
use crate::error::{Error, ErrorKind};
use crate::net::lane::OnAbandon;
use crate::protocol::{Response, StableRef};
use crate::types::{Key, Target};

impl Shard {
    // Tickets.

    /// Waits at the place of a ticket.
    pub(super) fn collect(&mut self, id: TicketId, until: Instant, ask: Ask<Acquired>, turn: &mut Turn<'_>) {
        match self.places.collect(id, until, ask) {
            Ok((Use::On(lane, place), Some(ask))) => {
                let enqueued_at = place.enqueued_at();
                let collect = Pending::Collect {
                    acquire: place.into_acquire(ask),
                    until,
                    enqueued_at,
                };
                let on_abandon = self.on_abandon(lane);
                self.leave_ticket(lane, turn.now);
                self.send_on(lane, collect, on_abandon, turn);
            }
            Ok(_) => {}
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
            self.send_on(lane, give_up, OnAbandon::Finish, turn);
        }
    }

    /// No caller has a ticket for this connection any more; what is sent next ends its wait.
    fn leave_ticket(&mut self, id: LaneId, now: Instant) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.leave_ticket(now);
        }
    }

    /// The connection of a place is gone. Returns what takes the place back, if its session is known; otherwise it is lost.
    pub(super) fn ticket_lost(&mut self, id: TicketId, session: Option<StableRef>) -> Option<Pending> {
        match session {
            Some(session) if !self.is_closing() => {
                self.places.leave_connection(id).then_some(Pending::Rejoin(id, session))
            }
            _ => {
                self.places.remove(id);
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
        let Some(connection) = self.connections.get_mut(from) else {
            return;
        };
        let Some(next) = self.places.taken_back(id, from) else {
            return self.wait_ended(from, turn);
        };
        connection.hold_ticket(id, turn.now);
        match next {
            Next::Keep => {}
            Next::Collect(until, ask) if !ask.is_gone() => self.collect(id, until, ask, turn),
            Next::Collect(..) | Next::GiveUp => self.give_up(id, turn),
        }
    }

    /// A place could not be taken back.
    pub(super) fn ticket_refused(&mut self, id: TicketId, error: Error, turn: &mut Turn<'_>) {
        if let Some(ask) = self.places.remove(id).and_then(QueuePlace::into_caller) {
            turn.tell(ask, Err(error));
        }
    }

    /// Sends what belongs on this connection and no other.
    pub(super) fn send_on(&mut self, id: LaneId, pending: Pending, on_abandon: OnAbandon, turn: &mut Turn<'_>) {
        let Some(request) = self.request(&pending, turn) else {
            return;
        };
        if let Some(pending) = self.connections.send(id, request, pending, on_abandon, turn) {
            let error = Error::new(ErrorKind::Disconnected, "the connection was closed");
            let error = self.at_lane(id, error);
            self.wait_anew(id, pending, error, turn);
        }
    }

    // Waits that are asked anew.

    /// A wait comes back from its connection. Its session goes with it, so that connection is of no more use.
    pub(super) fn wait_anew(&mut self, from: LaneId, wait: Pending, refusal: Error, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(from) else {
            return self.refuse(wait, refusal, turn);
        };
        let (session, begun) = (connection.session.clone(), connection.stop_waiting(turn.now));
        if session.is_some() {
            self.connections.close(from, turn);
        }
        match (self.asked_anew(wait, session, refusal, turn), begun) {
            (Some(wait), Some((key, arrival))) => self.waits.put_back(key, arrival, wait),
            (Some(wait), None) => self.queue(wait),
            (None, Some((key, _))) => self.waits.finished(&key),
            (None, None) => {}
        }
        self.keep_house(turn);
    }

    /// The wait as it is asked anew: in its session, if it has one. Where that was done too often, its caller gets the refusal;
    /// and where the session may have a place all the same, what is asked is to be rid of that.
    pub(super) fn asked_anew(
        &mut self,
        mut wait: Pending,
        session: Option<StableRef>,
        refusal: Error,
        turn: &mut Turn<'_>,
    ) -> Option<Pending> {
        let goes_on = self.counts_once_more(&mut wait) && (!self.is_closing() || self.gives_up(&wait));
        match wait {
            Pending::Wait(acquire, until) if goes_on => Some(Pending::Wait(in_session(acquire, session), until)),
            Pending::Enqueue(acquire) if goes_on => Some(Pending::Enqueue(in_session(acquire, session))),
            Pending::Wait(acquire, _) | Pending::Enqueue(acquire) => {
                let session = session.or(acquire.session.map(|session| *session));
                turn.tell(acquire.ask, Err(refusal));
                Some(self.giving_up(acquire.target, acquire.key, session?, turn.now))
            }
            Pending::Collect {
                acquire,
                until,
                enqueued_at,
            } => {
                let Some(session) = session else {
                    turn.tell(acquire.ask, Err(refusal));
                    return None;
                };
                if !goes_on || acquire.ask.is_gone() {
                    turn.tell(acquire.ask, Err(refusal));
                    return Some(self.giving_up(acquire.target, acquire.key, session, turn.now));
                }
                let place = QueuePlace::of(&acquire, None, enqueued_at).then_collect(until, acquire.ask);
                Some(Pending::Rejoin(self.places.insert(place), session))
            }
            Pending::GiveUp(target, key, times) if goes_on => {
                let place = QueuePlace::to_give_up(target, key, times, turn.now);
                Some(Pending::Rejoin(self.places.insert(place), session?))
            }
            Pending::Rejoin(id, before) if goes_on => Some(Pending::Rejoin(id, session.unwrap_or(before))),
            Pending::Rejoin(id, before) => self.instead_of(id, session.unwrap_or(before), refusal, turn),
            // Tried often enough: the server ends it when the time of the session, or of the lease, is over.
            Pending::GiveUp(..) => None,
            other => {
                self.refuse(other, refusal, turn);
                None
            }
        }
    }

    /// A place that should be taken back is not: its holder gets the refusal, and what is asked instead is to be rid of it.
    fn instead_of(&mut self, id: TicketId, session: StableRef, refusal: Error, turn: &mut Turn<'_>) -> Option<Pending> {
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
    pub(super) fn refuse_wait(&mut self, wait: Pending, refusal: Error, turn: &mut Turn<'_>) {
        let instead = match wait {
            Pending::Wait(acquire, _) | Pending::Enqueue(acquire) => {
                turn.tell(acquire.ask, Err(refusal));
                let session = acquire.session;
                session.map(|session| self.giving_up(acquire.target, acquire.key, *session, turn.now))
            }
            give_up @ Pending::Rejoin(..) if self.gives_up(&give_up) => Some(give_up),
            Pending::Rejoin(id, session) => self.instead_of(id, session, refusal, turn),
            _ => None,
        };
        if let Some(give_up) = instead {
            self.queue(give_up);
        }
    }

    /// What takes a place back in order to give it up.
    pub(super) fn giving_up(&mut self, target: Target, key: Key, session: StableRef, now: Instant) -> Pending {
        let place = QueuePlace::to_give_up(target, key, 0, now);
        Pending::Rejoin(self.places.insert(place), session)
    }

    /// A wait as it is sent. If its caller does not wait any more, its session's place is taken back only to be given up: a
    /// zero-wait `l` neither takes it back nor ends it.
    pub(super) fn as_it_is_sent(&mut self, wait: Pending, turn: &mut Turn<'_>) -> Pending {
        match wait {
            Pending::Wait(
                Acquire {
                    target,
                    key,
                    session: Some(session),
                    ask,
                    ..
                },
                until,
            ) if ask.is_gone() || until <= turn.now => {
                let refusal = self.refusal_of(target.kind(), &key, turn.now);
                turn.tell(ask, Ok(Outcome::Busy(refusal)));
                self.giving_up(target, key, *session, turn.now)
            }
            wait => wait,
        }
    }

    /// Queues a wait behind all others for its key.
    pub(super) fn queue(&mut self, wait: Pending) {
        let key = match &wait {
            Pending::Wait(acquire, _) | Pending::Enqueue(acquire) => Some((acquire.target.kind(), acquire.key.clone())),
            Pending::Rejoin(id, _) => self.places.wait_key(*id),
            _ => None,
        };
        if let Some(key) = key {
            let ahead = u32::try_from(self.waits.queued()).unwrap_or(u32::MAX);
            wait.waits_for(WaitsFor::Connection { ahead });
            self.waits.push(key, wait);
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
    fn counts_once_more(&mut self, wait: &mut Pending) -> bool {
        match wait {
            Pending::Wait(acquire, _) | Pending::Enqueue(acquire) | Pending::Collect { acquire, .. } => {
                self.counts_redirect(&mut acquire.redirects)
            }
            Pending::GiveUp(_, _, times) => self.counts_redirect(times),
            Pending::Rejoin(id, _) => {
                let most = self.settings.max_redirects;
                self.places.count_rejoin(*id).is_some_and(|times| times <= most)
            }
            _ => true,
        }
    }
}

fn in_session(mut acquire: Acquire, session: Option<StableRef>) -> Acquire {
    acquire.session = session.map(Box::new).or(acquire.session);
    acquire
}
