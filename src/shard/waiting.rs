//! Opens and closes the exclusive connections, each of which carries one wait, and sends the tries for callers that
//! have no such connection. [`waits`](super::waits) decides which wait is next and when a key is tried.

use std::time::Duration;

use tokio::time::Instant;

use super::ShardMachine;
use super::connections::{Connection, Opened, Work};
use super::effect::{Role, Turn};
use super::ids::{Arrival, LaneId, WaitKey};
use super::metrics::Exhausted;
use super::progress::WaitsFor;
use super::request::{Pending, Probe, ServerWait, Wait};
use super::waits::{Bound, KEPT_UNCLAIMED, Lack, Occupant, Start};
use crate::clock::after;
use crate::error::{Error, ErrorKind};
use crate::events::{ClientEvent, WaitBound};
use crate::human::human;
use crate::net::abilities::Abilities;
use crate::net::connect::Purpose;

/// A wait that the server ends by itself within this time is not given up, because a new connection would cost more.
const LET_RUN_OUT: Duration = Duration::from_secs(2);

impl ShardMachine {
    /// Starts as many waits as possible: over idle connections, over new ones, and as tries over the pipelined
    /// connections.
    pub(super) fn start_waits(&mut self, turn: &mut Turn<'_>) {
        self.waits_due_at = None;
        // Without a leader, there is no server-side queue.
        if self.serving.is_cluster() && !self.connections.is_serving() {
            return;
        }
        self.start_repeats(turn);
        self.start_bound(turn);
        self.start_on_idle(turn);
        self.open_for_waits(turn);
        self.send_tries(turn);
        let repeats = self.repeats_wait().then_some(self.wait_pace.not_before());
        let due = [
            self.opens_at(turn.now),
            self.tries_at(turn.now),
            repeats.filter(|when| *when > turn.now),
        ];
        self.waits_due_at = due.into_iter().flatten().min();
    }

    /// Returns when a connection may be opened for a waiting entry, if only the pace prevents that now.
    fn opens_at(&self, now: Instant) -> Option<Instant> {
        if !self.connections.is_serving() || !self.has_room() {
            return None;
        }
        let bound = self.waits.has_bound().then(|| self.wait_pace.resumes_at(now));
        let others = (self.waits.startable() > self.connections.opening()).then(|| self.wait_pace.connects_at(now));
        let when = bound.into_iter().chain(others).min()?.max(self.wait_pace.not_before());
        (when > now).then_some(when)
    }

    /// Returns when the next key is tried.
    fn tries_at(&self, now: Instant) -> Option<Instant> {
        let tries = self.connections.is_serving() && !self.is_closing();
        self.waits.next_try(now).filter(|_| tries)
    }

    /// Opens connections for waits that continue in their session. Each needs its own connection. They come before all
    /// other waits, because they already have a queue position.
    fn start_bound(&mut self, turn: &mut Turn<'_>) {
        while self.waits.has_bound()
            && self.may_connect(turn.now)
            && self.wait_pace.resumes_at(turn.now) <= turn.now
            && (self.has_room() || self.make_room(turn))
            && self.wait_pace.take_resume(turn.now)
        {
            let Some(bound) = self.waits.begin_bound(turn.now) else {
                break;
            };
            let purpose = match bound.wait.session() {
                Some(session) => Purpose::Session(session.clone()),
                None => self.purpose_of_waits(),
            };
            self.open_exclusive(Some(bound), purpose, turn);
        }
    }

    fn start_on_idle(&mut self, turn: &mut Turn<'_>) {
        while self.waits.has_ready() {
            let Some(lane) = self.connections.idle() else { break };
            let Some(start) = self.waits.begin(turn.now) else { break };
            self.start_on(lane, start, turn);
        }
        // If no connection can be opened, idle connections that own leases also carry waits, although such a wait
        // cannot be given up.
        while self.waits.has_ready()
            && self.connections.for_waits() < self.settings.exclusive
            && !(self.may_connect(turn.now) && self.has_room())
        {
            let Some(key) = self.waits.next(turn.now) else { break };
            let Some(lane) = self.connections.idle_owner(key) else {
                break;
            };
            let Some(start) = self.waits.begin(turn.now) else { break };
            self.start_on(lane, start, turn);
        }
    }

    /// Opens connections for all entries that wait for one, within the limits.
    fn open_for_waits(&mut self, turn: &mut Turn<'_>) {
        while self.waits.startable() > self.connections.opening() {
            if !self.has_room() {
                self.note_exhausted(Exhausted::Limit);
                return;
            }
            if !self.may_connect(turn.now) || !self.wait_pace.take_connect(turn.now) {
                return;
            }
            let purpose = self.purpose_of_waits();
            self.open_exclusive(None, purpose, turn);
        }
        if self.shortage.why() == Some(Exhausted::Limit) {
            self.clear_exhausted();
        }
    }

    fn open_exclusive(&mut self, bound: Option<Bound<Wait>>, purpose: Purpose, turn: &mut Turn<'_>) {
        let opened = Opened {
            role: Role::Exclusive,
            work: Work::Opening(bound.map(Box::new)),
            pause: Duration::ZERO,
            give_up_at: None,
            endpoint: self.serving.at(),
            purpose,
        };
        self.connections.open(opened, turn);
    }

    /// Whether a connection may be opened now. After a failure, only one attempt runs at a time, so that a server that
    /// accepts no more connections is not overloaded.
    pub(super) fn may_connect(&self, now: Instant) -> bool {
        let count = self.connections.count(Role::Exclusive);
        let one_at_a_time = self.wait_pace.has_failed();
        self.connections.is_serving() && now >= self.wait_pace.not_before() && (!one_at_a_time || count.all == count.up)
    }

    /// Whether the limits allow one more connection. Idle connections that own leases do not count toward the limit for
    /// waits. The total number of exclusive connections is limited to twice that limit.
    fn has_room(&self) -> bool {
        let most = self.settings.exclusive;
        self.connections.for_waits() < most && self.connections.count(Role::Exclusive).all < most.saturating_mul(2)
    }

    /// Closes an idle connection. Returns whether there was one.
    fn make_room(&mut self, turn: &mut Turn<'_>) -> bool {
        let idle = self.connections.idle();
        idle.is_some_and(|idle| self.connections.close(idle, turn).is_some())
    }

    /// Returns the purpose of a new connection for waits. In a cluster, each connection asks for its own session,
    /// although the server may not support sessions.
    fn purpose_of_waits(&mut self) -> Purpose {
        match self.serving.is_cluster() {
            true => Purpose::Session(self.refs.next()),
            false => Purpose::Requests,
        }
    }

    fn start_on(&mut self, lane: LaneId, start: Start<Wait>, turn: &mut Turn<'_>) {
        match start {
            Start::Wait(key) => match self.waits.last_covered(&key) {
                Some(Wait::Caller(acquire, until)) => {
                    let wait = ServerWait {
                        target: key.0,
                        key: key.1,
                        ttl: acquire.ttl,
                        until: *until,
                        redirects: 0,
                        session: None,
                    };
                    self.wait_on(lane, Box::new(wait), turn);
                }
                _ => self.waits.ended(&key, Occupant::Wait, turn.now),
            },
            Start::Ticket(key, arrival, wait) => self.ask_for_position(lane, key, arrival, wait, turn),
        }
    }

    /// Sends a wait.
    fn wait_on(&mut self, lane: LaneId, wait: Box<ServerWait>, turn: &mut Turn<'_>) {
        let key = wait.wait_key();
        let pending = Pending::Wait(wait);
        let Some(request) = self.request(&pending, turn) else {
            return;
        };
        let until = after(turn.now, request.blocks().as_duration());
        if let Some(mut connection) = self.connections.get_mut(lane) {
            connection.begin(Work::Waiting(key.clone()), &key, Some(until));
        }
        if let Some(Pending::Wait(wait)) = self.connections.send(lane, request, pending, turn) {
            self.give_up_connection(lane);
            self.waits.ended(&key, Occupant::Wait, turn.now);
            self.put_back_wait(wait, turn.now);
        }
    }

    /// Sends a request about a ticket's queue position, which the server answers at once.
    fn ask_for_position(&mut self, lane: LaneId, key: WaitKey, arrival: Arrival, wait: Wait, turn: &mut Turn<'_>) {
        let pending = match wait {
            Wait::Ticket(acquire) => {
                acquire.waits_for(WaitsFor::Answer);
                Pending::Enqueue(acquire)
            }
            Wait::Rejoin(ticket, session) => match self.positions.take_to_give_up(ticket) {
                Some(position) => Pending::GiveUp(position.target, position.key.clone(), 1),
                None => Pending::Rejoin(ticket, session),
            },
            Wait::Caller(..) | Wait::Resume(_) => return self.waits.ended(&key, Occupant::Ticket, turn.now),
        };
        let Some(request) = self.request(&pending, turn) else {
            return self.waits.ended(&key, Occupant::Ticket, turn.now);
        };
        if let Some(mut connection) = self.connections.get_mut(lane) {
            connection.begin(Work::Asking(key.clone(), arrival), &key, None);
        }
        let wait = match self.connections.send(lane, request, pending, turn) {
            Some(Pending::Enqueue(acquire)) => Wait::Ticket(acquire),
            Some(Pending::Rejoin(ticket, session)) => Wait::Rejoin(ticket, session),
            Some(Pending::GiveUp(target, key, _)) => {
                let connection = self.connections.get(lane);
                let Some(session) = connection.and_then(|connection| connection.session.clone()) else {
                    return;
                };
                self.giving_up(target, key, session, turn.now)
            }
            _ => return,
        };
        self.give_up_connection(lane);
        let occupant = Occupant::Ticket;
        let bound = Bound {
            key,
            arrival,
            wait,
            occupant,
        };
        self.put_back(bound, turn.now);
    }

    /// Notes that a connection is about to end. Nothing more can be sent over it.
    fn give_up_connection(&mut self, lane: LaneId) {
        if let Some(mut connection) = self.connections.get_mut(lane) {
            connection.work = Work::Ending;
        }
    }

    /// Puts a wait back among the waits, because its connection is gone.
    pub(super) fn put_back(&mut self, bound: Bound<Wait>, now: Instant) {
        self.waits.ended(&bound.key, bound.occupant, now);
        self.queue(bound.wait, Some(bound.arrival), now);
    }

    /// Handles a wait that was not written. If it has a queue position in a session, it is sent again there. Otherwise
    /// its callers start another wait.
    pub(super) fn put_back_wait(&mut self, wait: Box<ServerWait>, now: Instant) {
        if wait.session.is_some() {
            self.queue(Wait::Resume(wait), None, now);
        }
    }

    /// Handles the end of the wait on a connection.
    pub(super) fn wait_ended(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        let Some(mut connection) = self.connections.get_mut(id) else {
            return;
        };
        let ended = connection.stop_waiting(turn.now);
        drop(connection);
        if let Some((key, _, occupant)) = ended {
            self.waits.ended(&key, occupant, turn.now);
        }
        self.schedule_housekeeping(turn);
    }

    pub(super) fn exclusive_up(&mut self, id: LaneId, abilities: Abilities, turn: &mut Turn<'_>) {
        self.connections.up(id, turn.now);
        let remembered = abilities.sessions == Some(true);
        if let Some(mut connection) = self.connections.get_mut(id) {
            if !remembered {
                connection.session = None;
            }
        }
        self.wait_pace.succeeded(self.serving.reconnect.pauses());
        if self.shortage.why().is_some_and(|why| why != Exhausted::Limit) {
            self.clear_exhausted();
        }
        self.schedule_housekeeping(turn);
        let is_for_repeats = |connection: &Connection| matches!(connection.work, Work::Repeating);
        if self.connections.get(id).is_some_and(is_for_repeats) {
            return self.repeats_up(id, remembered, turn);
        }
        let Some(bound) = self.connections.take_opening(id, turn.now) else {
            return;
        };
        let Bound {
            key,
            arrival,
            wait,
            occupant,
        } = bound;
        match wait {
            wait if !remembered => {
                // The queue position is lost, too, so there is nothing to give up.
                self.waits.ended(&key, occupant, turn.now);
                let lost = Error::new(
                    ErrorKind::Disconnected,
                    "the queue position was lost with its connection: the leader remembers no sessions",
                );
                let lost = self.at_lane(id, lost);
                self.lost_with_its_session(wait, lost, turn);
            }
            Wait::Resume(wait) => self.resume(id, key, arrival, wait, turn),
            wait => self.ask_for_position(id, key, arrival, wait, turn),
        }
    }

    /// Sends a wait again in its session. If the wait has no caller any more, gives up its queue position instead. (A
    /// zero-wait `l` would reclaim the position and leave it in the queue.)
    fn resume(&mut self, id: LaneId, key: WaitKey, arrival: Arrival, mut wait: Box<ServerWait>, turn: &mut Turn<'_>) {
        if self.waits.check_surplus(&key, turn.now) {
            if let Some(session) = wait.session {
                self.waits.turn_into_give_up(&key, turn.now);
                let give_up = self.giving_up(wait.target, wait.key, session, turn.now);
                self.ask_for_position(id, key, arrival, give_up, turn);
            }
            return;
        }
        if let Some(Wait::Caller(_, until)) = self.waits.last_covered(&key) {
            wait.until = *until;
        }
        self.wait_on(id, wait, turn);
    }

    pub(super) fn exclusive_failed(&mut self, id: LaneId, error: Error, turn: &mut Turn<'_>) {
        self.wait_pace.failed(turn.now);
        let pause = self.wait_pace.not_before().saturating_duration_since(turn.now);
        tracing::debug!(
            shard = self.index,
            endpoint = %self.endpoint_of(id),
            retry_in = %human(pause),
            error = %error.chain(),
            "no exclusive connection"
        );
        let connection = self.connections.remove(id);
        self.repeats.detach_lane(id);
        if let Some(Work::Opening(Some(bound))) = connection.map(|connection| connection.work) {
            self.put_back(*bound, turn.now);
        }
        self.note_exhausted(match error.is_turned_away() {
            true => Exhausted::ServerFull,
            false => Exhausted::NotEstablished,
        });
        if error.is_fatal() {
            // The error is fatal: the server accepts no further connection of this client. Callers that need one learn
            // the reason at once.
            for wait in self.waits.drain(turn.now) {
                self.refuse_wait(wait, error.clone(), turn);
            }
            self.fail_waiting_repeats(&error, turn);
        }
    }

    /// Notes a shortage of connections for waits, and logs each reason once.
    fn note_exhausted(&mut self, why: Exhausted) {
        if !self.shortage.begin(why) {
            return;
        }
        self.metrics.exhausted(why);
        let bound = match why {
            Exhausted::Limit => Some(WaitBound::ExclusiveConnections),
            Exhausted::ServerFull => Some(WaitBound::ServerConnections),
            Exhausted::NotEstablished => None,
        };
        if let Some(bound) = bound {
            self.events.tell(|shard| ClientEvent::WaitBoundReached { shard, bound });
        }
        self.waits.lacks(match why {
            Exhausted::Limit => Lack::InUse,
            Exhausted::ServerFull => Lack::Full,
            Exhausted::NotEstablished => Lack::NotEstablished,
        });
        if self.shortage.note_logged(why) {
            self.log_exhausted(why);
        }
    }

    fn log_exhausted(&self, why: Exhausted) {
        let connections = self.connections.count(Role::Exclusive).up;
        match why {
            Exhausted::Limit => tracing::warn!(
                shard = self.index,
                endpoint = %self.endpoint(),
                connections,
                "all connections for waits are in use: see exclusive_connections"
            ),
            Exhausted::ServerFull => tracing::warn!(
                shard = self.index,
                endpoint = %self.endpoint(),
                connections,
                "the server takes no more connections: waits share the existing ones"
            ),
            // Each failed attempt has its own log line.
            Exhausted::NotEstablished => {}
        }
    }

    fn clear_exhausted(&mut self) {
        self.shortage.end();
        self.waits.lacks(Lack::NotEstablished);
    }

    /// Tries the keys that are due and whose callers have no wait on the server.
    fn send_tries(&mut self, turn: &mut Turn<'_>) {
        if !self.connections.is_serving() || self.is_closing() {
            return;
        }
        loop {
            let leases = &self.leases;
            let Some(key) = self.waits.take_due(turn.now, |key| leases.holds_all_of(key)) else {
                return;
            };
            let ttl = match self.waits.first(&key, turn.now) {
                Some(Wait::Caller(acquire, _) | Wait::Ticket(acquire)) => acquire.ttl,
                _ => None,
            };
            self.send(Pending::Probe(Box::new(Probe { key, ttl })), turn);
        }
    }

    /// Gives up waits on the server that no caller has wanted for a while. Servers before 1.15 do not notice that a
    /// connection was closed, and count its wait until the wait ends by itself. So the number of waits that are given
    /// up is limited, in total and per second.
    pub(super) fn give_up_unclaimed(&mut self, turn: &mut Turn<'_>) {
        // If grants survive a disconnect, a grant that is under way when the connection is closed would be held without
        // a caller until its TTL is over.
        if self.settings.survives_disconnect {
            return;
        }
        let soon = turn.now + LET_RUN_OUT;
        let mut closable: Vec<LaneId> = Vec::new();
        for (key, count) in self.waits.take_unclaimed(turn.now) {
            closable.extend(self.connections.closable(&key, soon).into_iter().take(count));
        }
        if let Some(since) = turn.now.checked_sub(KEPT_UNCLAIMED) {
            let abandoned = self.positions.abandoned(turn.now, since).into_iter();
            closable.extend(abandoned.filter(|id| {
                let connection = self.connections.get(*id);
                connection.is_some_and(|connection| connection.is_closable(soon))
            }));
        }
        for id in closable {
            if !self.wait_pace.take_close(turn.now, self.settings.exclusive) {
                return;
            }
            self.cut(id, turn);
        }
    }

    /// Closes the blocked connections to an endpoint whose server was silent for too long. Otherwise they would end
    /// only when the time of their waits is over, unless the kernel noticed the silence. Each wait continues over the next
    /// connection, in its session if it has one. Without a session, its callers continue with a new queue position, and
    /// the position of a ticket is lost.
    pub(super) fn close_blocked_at(&mut self, endpoint: usize, turn: &mut Turn<'_>) {
        for id in self.connections.blocked_at(endpoint) {
            let is_wait_without_session =
                |connection: &Connection| connection.session.is_none() && matches!(connection.work, Work::Waiting(_));
            match self.connections.get(id).is_some_and(is_wait_without_session) {
                true => self.cut(id, turn),
                false => self.connections.hang_up(id, turn),
            }
        }
    }

    fn cut(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        let Some(mut connection) = self.connections.get_mut(id) else {
            return;
        };
        let lingers = connection.waits_until.filter(|_| connection.session.is_none());
        let waited_for = match &connection.work {
            Work::Waiting(key) => Some(key.clone()),
            _ => None,
        };
        if waited_for.is_some() {
            connection.work = Work::Ending;
        }
        drop(connection);
        if let Some(key) = waited_for {
            self.waits.ended(&key, Occupant::Wait, turn.now);
        }
        // Servers that count their grants or remember sessions notice the end of a connection.
        if let Some(until) = lingers.filter(|_| !self.fences.is_counting()) {
            self.wait_pace.lingers(until);
        }
        self.connections.cut(id, turn);
    }
}
