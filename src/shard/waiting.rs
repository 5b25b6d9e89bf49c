//! Waits, and the exclusive connections that carry them.

use std::time::Duration;

use super::Shard;
use super::connections::{Opened, Work};
use super::effect::{Role, Turn};
use super::ids::{Arrival, LaneId, WaitKey};
use super::progress::WaitsFor;
use super::request::Pending;
use crate::error::{Error, ErrorKind};
use crate::human::human;
use crate::net::abilities::Abilities;
use crate::net::connect::Purpose;
use crate::net::lane::OnAbandon;
use crate::protocol::{Request, StableRef};

impl Shard {
    /// Gives connections to waits, as far as there are any.
    pub(super) fn start_waits(&mut self, turn: &mut Turn<'_>) {
        // Without a leader there is no queue to wait in.
        if self.serving.is_cluster() && !self.connections.is_serving() {
            return;
        }
        let mut passed_over = Vec::new();
        while self.waits.has_ready() && (self.may_open_exclusive(turn) || self.connections.has_idle()) {
            let Some((key, arrival, wait)) = self.waits.pop() else {
                break;
            };
            let session = wait.session().cloned();
            // A connection that owns something is taken only when there is no other: its waits cannot be cut short.
            let idle = |shard: &Self, clean| shard.connections.idle(clean, &key).filter(|_| session.is_none());
            if let Some(lane) = idle(self, true) {
                self.wait_on(lane, key, arrival, wait, turn);
            } else if self.may_open_exclusive(turn) || self.make_room_for(session.as_ref(), &key, turn) {
                wait.waits_for(WaitsFor::Opening);
                let opened = Opened {
                    role: Role::Exclusive,
                    work: Work::Opening(key, arrival, wait),
                    pause: Duration::ZERO,
                    give_up_at: None,
                    endpoint: self.serving.at(),
                    purpose: self.purpose_of_waits(session),
                };
                self.connections.open(opened, turn);
            } else if let Some(lane) = idle(self, false) {
                self.wait_on(lane, key, arrival, wait, turn);
            } else {
                passed_over.push((key, arrival, wait));
            }
        }
        for (key, arrival, wait) in passed_over {
            self.waits.put_back(key, arrival, wait);
        }
    }

    fn may_open_exclusive(&self, turn: &Turn<'_>) -> bool {
        self.may_connect_exclusive(turn) && self.connections.count(Role::Exclusive).all < self.settings.exclusive
    }

    fn may_connect_exclusive(&self, turn: &Turn<'_>) -> bool {
        self.connections.is_serving() && turn.now >= self.exclusive_not_before
    }

    /// A wait that goes on in its session needs a connection of its own, and others are idle.
    fn make_room_for(&mut self, session: Option<&StableRef>, key: &WaitKey, turn: &mut Turn<'_>) -> bool {
        if session.is_none() || !self.may_connect_exclusive(turn) {
            return false;
        }
        let idle = self.connections.idle(true, key);
        idle.is_some_and(|idle| self.connections.close(idle, turn).is_some())
    }

    /// Where the cluster remembers sessions, as far as is known, each connection that may wait has one of its own.
    fn purpose_of_waits(&mut self, session: Option<StableRef>) -> Purpose {
        match session {
            Some(session) => Purpose::Session(session),
            None if self.serving.is_cluster() => Purpose::Session(self.refs.next()),
            None => Purpose::Requests,
        }
    }

    fn wait_on(&mut self, id: LaneId, key: WaitKey, arrival: Arrival, wait: Pending, turn: &mut Turn<'_>) {
        let (arrival, wait) = self.connections.first_of_its_key(&key, arrival, wait);
        let wait = self.as_it_is_sent(wait, turn);
        let on_abandon = match wait {
            // Answered at once.
            Pending::Enqueue(_) | Pending::Rejoin(..) => OnAbandon::Finish,
            _ => self.on_abandon(id),
        };
        let Some(request) = self.request(&wait, turn) else {
            return self.waits.finished(&key);
        };
        wait.waits_for(match wait {
            Pending::Wait(..) => WaitsFor::Turn,
            _ => WaitsFor::Answer,
        });
        let target = match &request {
            Request::Acquire { target, .. } | Request::Enqueue { target, .. } => Some(*target),
            _ => None,
        };
        self.connections.begin_wait(id, key.clone(), arrival, target);
        if let Some(wait) = self.connections.send(id, request, wait, on_abandon, turn) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.stop_waiting(turn.now);
            }
            self.waits.put_back(key, arrival, wait);
        }
    }

    /// Whether a wait may be given up by closing its connection: not if leases would go with it. Nor where a grant survives
    /// the disconnect: one that crosses with it would belong to no caller until its TTL is over. In a session it is taken back
    /// then, and given up.
    pub(super) fn on_abandon(&self, id: LaneId) -> OnAbandon {
        let owns = self.connections.get(id).is_some_and(|connection| connection.owns() > 0);
        if owns || self.settings.survives_disconnect {
            OnAbandon::Finish
        } else {
            OnAbandon::Close
        }
    }

    /// The wait on a connection is over.
    pub(super) fn wait_ended(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if let Work::Waiting(key, _) = std::mem::replace(&mut connection.work, Work::Idle(turn.now)) {
            self.waits.finished(&key);
        }
        self.keep_house(turn);
    }

    pub(super) fn exclusive_up(&mut self, id: LaneId, abilities: Abilities, turn: &mut Turn<'_>) {
        self.connections.up(id, turn.now);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let remembered = abilities.sessions == Some(true);
        if !remembered {
            connection.session = None;
        }
        let Some((key, arrival, wait)) = self.connections.take_opening(id, turn.now) else {
            return;
        };
        if wait.session().is_some() && !remembered {
            // Nor is there a place that would have to be given up.
            self.waits.finished(&key);
            let lost = Error::new(
                ErrorKind::Disconnected,
                "the place in the queue was lost with its connection: the leader remembers no sessions",
            );
            let lost = self.at_lane(id, lost);
            self.fail(wait, lost, turn);
            return self.start_waits(turn);
        }
        self.wait_on(id, key, arrival, wait, turn);
    }

    pub(super) fn exclusive_failed(&mut self, id: LaneId, error: Error, turn: &mut Turn<'_>) {
        let pause = self.pause_exclusive(turn);
        tracing::debug!(shard = self.index, endpoint = %self.endpoint_of(id), retry_in = %human(pause), %error, "no exclusive connection");
        if let Some(Work::Opening(key, arrival, wait)) = self.connections.remove(id).map(|connection| connection.work) {
            self.waits.put_back(key, arrival, wait);
        }
        if error.is_fatal() {
            // The server that is connected takes no further connection of this client: callers that need one are told why at once.
            for pending in self.waits.drain() {
                self.refuse(pending, error.clone(), turn);
            }
        }
        self.start_waits(turn);
    }
}
