//! Waits, and the exclusive connections that carry them.

use std::time::Duration;

use tokio::time::Instant;

use super::Shard;
use crate::actor::lanes::{Role, Work};
use crate::actor::message::Pending;
use crate::actor::waits::{Place, Subject};
use crate::error::Error;
use crate::lease::registry::LaneId;
use crate::net::lane::OnAbandon;

impl Shard {
    /// Gives connections to waits, as far as there are any.
    pub(super) fn start_waits(&mut self) {
        while self.waits.has_ready() {
            // A connection that owns something is taken only when no other can be had: its waits cannot be cut short.
            if let Some(lane) = self.lanes.idle(true) {
                self.start_wait(lane);
            } else if self.may_open_exclusive() {
                let Some((subject, place, wait)) = self.waits.pop() else {
                    return;
                };
                let work = Work::Opening(subject, place, wait);
                let dial = self.dial(self.known);
                self.lanes
                    .open(Role::Exclusive, work, Duration::ZERO, dial, self.myself.clone());
            } else if let Some(lane) = self.lanes.idle(false) {
                self.start_wait(lane);
            } else {
                return;
            }
        }
    }

    fn may_open_exclusive(&self) -> bool {
        self.main_is_up
            && self.lanes.count(Role::Exclusive).all < self.config.exclusive_lanes
            && Instant::now() >= self.exclusive_not_before
    }

    fn start_wait(&mut self, lane: LaneId) {
        if let Some((subject, place, wait)) = self.waits.pop() {
            self.wait_on(lane, subject, place, wait);
        }
    }

    fn wait_on(&mut self, id: LaneId, subject: Subject, place: Place, wait: Pending) {
        let on_abandon = match wait {
            // Answered at once.
            Pending::Enqueue(_) => OnAbandon::Finish,
            _ => self.on_abandon(id),
        };
        let request = self.request(&wait);
        let refused = match (self.lanes.get_mut(id), request) {
            (Some(lane), Some(request)) => {
                lane.work = Work::Waiting(subject.clone(), place);
                lane.send(request, wait, on_abandon)
            }
            (_, _) => Some(wait),
        };
        if let Some(wait) = refused {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.work = Work::Ending;
            }
            self.waits.put_back(subject, place, wait);
        }
    }

    /// Whether a wait may be given up by closing its connection: not if leases would go with it. Nor where a grant survives
    /// the disconnect: one that crosses with it would be nobody's until its TTL is over.
    pub(super) fn on_abandon(&mut self, id: LaneId) -> OnAbandon {
        let owns = self.lanes.get_mut(id).is_some_and(|lane| lane.owns > 0);
        if owns || self.config.survives_disconnect {
            OnAbandon::Finish
        } else {
            OnAbandon::Close
        }
    }

    /// The wait on a connection is over.
    pub(super) fn wait_ended(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        if let Work::Waiting(subject, _) = std::mem::replace(&mut lane.work, Work::Idle(Instant::now())) {
            self.waits.finished(&subject);
        }
        self.keep_house();
    }

    pub(super) fn exclusive_up(&mut self, id: LaneId) {
        self.exclusive_attempts = self.config.reconnect.start();
        self.lanes.is_up(id);
        let Some(lane) = self.lanes.get_mut(id) else { return };
        if let Work::Opening(subject, place, wait) = std::mem::replace(&mut lane.work, Work::Idle(Instant::now())) {
            self.wait_on(id, subject, place, wait);
        }
    }

    pub(super) fn exclusive_failed(&mut self, id: LaneId, error: Error) {
        let pause = self.exclusive_attempts.failed();
        tracing::debug!(shard = self.index, endpoint = %self.endpoint, retry_in = ?pause, %error, "no exclusive connection");
        self.exclusive_not_before = Instant::now() + pause;
        if let Some(Work::Opening(subject, place, wait)) = self.lanes.remove(id).map(|lane| lane.work) {
            self.waits.put_back(subject, place, wait);
        }
        if error.is_fatal() {
            // The server that is connected takes no further connection of this client: those who need one are told why, rather
            // than at the end of their time that somebody else holds the key.
            for pending in self.waits.drain() {
                self.refuse(pending, error.clone());
            }
        }
        self.start_waits();
    }
}
