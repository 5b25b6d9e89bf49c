//! Queue positions: those of tickets, and those that a cluster's sessions remember. A position in a session outlives
//! its connection, so the shard must track the position until it ends. The shard reclaims the position under the
//! session's name for its caller, or gives the position up if there is no caller.
//!
//! A server's `ok` to the session name does not say whether the server keeps the leases and positions of a lost
//! connection (`--orphan-ttl`). If it does not keep them, a wait that is sent again has lost its queue position. If a
//! grant was also under way when the connection broke, the session does not find that grant. If the server does not
//! release the grant either, it lasts for its TTL: until then, a lock is held, and a wait for a semaphore may take a
//! second slot.

use tokio::time::Instant;

use super::ShardMachine;
use super::acquire::Acquire;
use super::ask::Ask;
use super::connections::Work;
use super::effect::Turn;
use super::held::Acquired;
use super::ids::{Arrival, LaneId, TicketId, WaitKey};
use super::positions::{AfterRejoin, GivingUp, QueuePosition};
use super::request::{Pending, ServerWait, Wait};
use super::waits::Occupant;
use crate::clock::after;
use crate::ending::shut_down;
use crate::error::{Error, ErrorKind};
use crate::protocol::{Response, StableRef};
use crate::types::{Key, Target};

/// The maximum number of requests over one connection that give up a queue position. Four requests are enough for any
/// server: the first `w` after an `e` that reclaimed a position does not end the position, a session that was presented
/// twice may have two positions, and the last answer says that there is no position left.
pub(super) const MOST_GIVE_UPS: u32 = 8;

impl ShardMachine {
    // Tickets.

    /// Waits for the grant at a ticket's queue position.
    pub(super) fn collect(&mut self, id: TicketId, until: Instant, ask: Ask<Acquired>, turn: &mut Turn<'_>) {
        match self.positions.collect(id, until, ask) {
            Ok(Some(lane)) => self.send_on(lane, Pending::Collect(id, until), turn),
            Ok(None) => {}
            Err(ask) => {
                let error = match self.is_closing() {
                    true => shut_down(),
                    false => Error::new(
                        ErrorKind::Disconnected,
                        "the queue position was lost with its connection: enqueue again",
                    ),
                };
                let error = self.at_endpoint(error);
                turn.tell(ask, Err(error));
            }
        }
    }

    /// Handles the drop of a ticket.
    pub(super) fn give_up(&mut self, id: TicketId, turn: &mut Turn<'_>) {
        if let Some(GivingUp::On(lane, position)) = self.positions.give_up(id) {
            self.leave_ticket(lane, turn.now);
            let give_up = Pending::GiveUp(position.target, position.key.clone(), 1);
            self.send_on(lane, give_up, turn);
        }
    }

    /// Notes that no caller holds the ticket of this connection. The next request gives up the position.
    fn leave_ticket(&mut self, id: LaneId, now: Instant) {
        if let Some(mut connection) = self.connections.get_mut(id) {
            connection.leave_ticket(now);
        }
    }

    /// Handles the loss of a position's connection. Returns the wait that reclaims the position, if its session is
    /// known; otherwise the position is lost.
    pub(super) fn ticket_lost(
        &mut self,
        id: TicketId,
        session: Option<StableRef>,
        cause: &Error,
        turn: &mut Turn<'_>,
    ) -> Option<Wait> {
        match session {
            Some(session) if !self.is_closing() => {
                let is_collected = self.positions.is_collected(id);
                if !self.positions.leave_connection(id) {
                    return None;
                }
                // A position for which no caller waits yet is reclaimed after every change of the leader, without a
                // limit.
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

    /// Handles the answer to the `e` that reclaims a position. If the position was granted meanwhile, the caller's `w`
    /// gets the grant.
    pub(super) fn rejoin_answered(&mut self, id: TicketId, response: &Response, from: LaneId, turn: &mut Turn<'_>) {
        let (Response::Queued | Response::Acquired(_)) = response else {
            self.wait_ended(from, turn);
            let error = match (response, self.positions.wait_key(id)) {
                (Response::Refused(status), Some((_, key))) => status.to_error(key.as_str()),
                (other, _) => Error::new(
                    ErrorKind::Protocol,
                    format!("{other:?} is not a valid answer to an enqueue"),
                ),
            };
            let error = self.at_lane(from, error);
            return self.ticket_refused(id, error, turn);
        };
        let Some(next) = self.positions.taken_back(id, from) else {
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

    /// Handles a position that could not be reclaimed.
    pub(super) fn ticket_refused(&mut self, id: TicketId, error: Error, turn: &mut Turn<'_>) {
        if let Some(ask) = self.positions.remove(id).and_then(QueuePosition::into_caller) {
            turn.tell(ask, Err(error));
        }
    }

    /// Sends a request that only this connection may carry.
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
            // The connection is about to end, and the handling of its end decides what happens to the position.
            Some(Pending::Collect(..)) if self.connections.get(id).is_some() => {}
            Some(pending) => {
                let error = Error::new(ErrorKind::Disconnected, "the connection was closed");
                let error = self.at_lane(id, error);
                self.retry_wait(id, pending, error, turn);
            }
            None => {}
        }
    }

    // Waits that are sent again.

    /// Gives up a position over the connection that owns it, after the server has answered that the wait's time is
    /// over. That answer alone does not end a position that was reclaimed, or a position at a member that has ceased to
    /// lead.
    pub(super) fn end_position(&mut self, lane: LaneId, target: Target, key: Key, turn: &mut Turn<'_>) {
        if self.is_in_a_session(lane) {
            self.send_on(lane, Pending::GiveUp(target, key, 1), turn);
        }
    }

    /// Gives up a position again, until the server says that there is no position left. There are two cases in which a
    /// member answers `timeout` and keeps the position. The `w` is the first one after an `e` that reclaimed the
    /// position, and the ticket was dropped during that `e`. Or the member has ceased to lead.
    pub(super) fn end_position_again(
        &mut self,
        lane: LaneId,
        target: Target,
        key: Key,
        times: u32,
        turn: &mut Turn<'_>,
    ) {
        if self.is_in_a_session(lane) && times < MOST_GIVE_UPS {
            self.send_on(lane, Pending::GiveUp(target, key, times + 1), turn);
        }
    }

    /// Takes a wait from its connection, and queues the wait again in the same session. Closes a connection that
    /// presents a session's name. Retires such a connection instead if it carries repeated tries, or owns leases, which
    /// the server would release.
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
        self.schedule_housekeeping(turn);
    }

    /// Returns the wait that replaces `wait`, if any. The new wait stays in the session. If the limit is reached, the
    /// caller gets the refusal, and the new wait gives up the position that the session may have.
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
                    .positions
                    .leave_connection(ticket)
                    .then_some(Wait::Rejoin(ticket, session)),
                Some(session) => self.give_up_instead(ticket, session, refusal, turn),
                None => {
                    self.ticket_refused(ticket, refusal, turn);
                    None
                }
            },
            // There is no limit, because otherwise the server would keep a position that no caller wants.
            Pending::GiveUp(target, key, _) => Some(self.giving_up(target, key, session?, turn.now)),
            Pending::Rejoin(id, before) if goes_on => Some(Wait::Rejoin(id, session.unwrap_or(before))),
            Pending::Rejoin(id, before) => self.give_up_instead(id, session.unwrap_or(before), refusal, turn),
            other => {
                self.refuse(other, refusal, turn);
                None
            }
        }
    }

    /// Handles a wait that has no session, after a member refused the wait because that member does not lead. The
    /// caller that lost the wait gets the next one, at most `max_redirects` times.
    fn retry_for_caller(&mut self, key: &WaitKey, refusal: Error, turn: &mut Turn<'_>) {
        let most = self.settings.max_redirects;
        if let Some(Wait::Caller(acquire, _)) = self.waits.uncovered(key, turn.now) {
            acquire.redirects += 1;
            if acquire.redirects > most {
                self.tell_uncovered(key, refusal, turn);
            }
        }
    }

    /// Handles a position that the shard does not reclaim after all. The caller gets the refusal, and the returned wait
    /// gives the position up.
    fn give_up_instead(
        &mut self,
        id: TicketId,
        session: StableRef,
        refusal: Error,
        turn: &mut Turn<'_>,
    ) -> Option<Wait> {
        let position = self.positions.remove(id)?;
        if position.is_to_give_up() {
            return None;
        }
        let (target, key) = (position.target, position.key.clone());
        if let Some(ask) = position.into_caller() {
            turn.tell(ask, Err(refusal));
        }
        Some(self.giving_up(target, key, session, turn.now))
    }

    /// Refuses a wait without sending it. A position that its session may have is given up later.
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
            Wait::Rejoin(id, session) if self.positions.is_to_give_up(id) => Some(Wait::Rejoin(id, session)),
            Wait::Rejoin(id, session) => self.give_up_instead(id, session, refusal, turn),
            // Its callers get the error separately.
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

    /// Handles a wait whose session the cluster does not remember, so that there is no position to reclaim or to give
    /// up.
    pub(super) fn lost_with_its_session(&mut self, wait: Wait, lost: Error, turn: &mut Turn<'_>) {
        match wait {
            Wait::Caller(acquire, _) | Wait::Ticket(acquire) => turn.tell(acquire.ask, Err(lost)),
            Wait::Rejoin(id, _) => self.ticket_refused(id, lost, turn),
            Wait::Resume(wait) => self.tell_uncovered(&wait.wait_key(), lost, turn),
        }
    }

    /// Returns the wait that gives up a position that a session may have. It sends a `w` under the session's name,
    /// which finds the position or the grant. It sends no `e` before: without a position, the `e` would take a new one,
    /// and with a position, the first `w` after an `e` would not end it.
    pub(super) fn giving_up(&mut self, target: Target, key: Key, session: StableRef, now: Instant) -> Wait {
        let position = QueuePosition::to_give_up(target, key, self.leases.moment(now));
        Wait::Rejoin(self.positions.insert(position), session)
    }

    /// Queues a wait, at its former position among this client's waits or behind all of them.
    pub(super) fn queue(&mut self, wait: Wait, arrival: Option<Arrival>, now: Instant) {
        let key = match &wait {
            Wait::Caller(acquire, _) | Wait::Ticket(acquire) => Some(acquire.wait_key()),
            Wait::Resume(wait) => Some(wait.wait_key()),
            Wait::Rejoin(id, _) => self.positions.wait_key(*id),
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

    /// Whether a request gives a position up.
    fn gives_up(&self, wait: &Pending) -> bool {
        match wait {
            Pending::GiveUp(..) => true,
            Pending::Rejoin(id, _) => self.positions.is_to_give_up(*id),
            _ => false,
        }
    }

    /// Counts a repetition of a wait. Returns whether it is allowed.
    fn count_retry(&mut self, wait: &mut Pending) -> bool {
        match wait {
            Pending::Wait(wait) => self.count_redirect(&mut wait.redirects),
            Pending::Enqueue(acquire) => self.count_redirect(&mut acquire.redirects),
            Pending::Rejoin(id, _) if self.positions.is_to_give_up(*id) => true,
            Pending::Rejoin(id, _) | Pending::Collect(id, _) => {
                let most = self.settings.max_redirects;
                self.positions.count_rejoin(*id).is_some_and(|times| times <= most)
            }
            _ => true,
        }
    }
}

fn in_session(mut acquire: Box<Acquire>, session: Option<StableRef>) -> Box<Acquire> {
    acquire.session = session.map(Box::new).or(acquire.session);
    acquire
}
