//! Waits, and the exclusive connections that carry them.

use std::time::Duration;

use tokio::time::Instant;

use super::Shard;
use crate::actor::lanes::{Role, Work};
use crate::actor::message::Pending;
use crate::actor::progress::WaitsFor;
use crate::actor::waits::{Place, Subject};
use crate::error::{Error, ErrorKind};
use crate::lease::registry::LaneId;
use crate::net::abilities::Abilities;
use crate::net::connect::Purpose;
use crate::net::lane::OnAbandon;
use crate::protocol::{Request, StableRef};

impl Shard {
    /// Gives connections to waits, as far as there are any.
    pub(super) fn start_waits(&mut self) {
        // Without a leader nobody could be waited for.
        if self.failover.is_cluster() && !self.main_is_up {
            return;
        }
        let mut passed_over = Vec::new();
        while self.waits.has_ready() && (self.may_open_exclusive() || self.lanes.has_idle()) {
            let Some((subject, place, wait)) = self.waits.pop() else {
                break;
            };
            let session = wait.session().cloned();
            // A connection that owns something is taken only when no other can be had: its waits cannot be cut short.
            let idle = |clean| self.lanes.idle(clean, &subject).filter(|_| session.is_none());
            if let Some(lane) = idle(true) {
                self.wait_on(lane, subject, place, wait);
            } else if self.may_open_exclusive() || self.make_room_for(session.as_ref(), &subject) {
                wait.waits_for(WaitsFor::Opening);
                let dial = self.dial(self.purpose_of_waits(session));
                self.open(
                    Role::Exclusive,
                    Work::Opening(subject, place, wait),
                    Duration::ZERO,
                    dial,
                );
            } else if let Some(lane) = self.lanes.idle(false, &subject).filter(|_| session.is_none()) {
                self.wait_on(lane, subject, place, wait);
            } else {
                passed_over.push((subject, place, wait));
            }
        }
        for (subject, place, wait) in passed_over {
            self.waits.put_back(subject, place, wait);
        }
    }

    fn may_open_exclusive(&self) -> bool {
        self.may_connect_exclusive() && self.lanes.count(Role::Exclusive).all < self.config.exclusive_lanes
    }

    fn may_connect_exclusive(&self) -> bool {
        self.main_is_up && Instant::now() >= self.exclusive_not_before
    }

    /// A wait that goes on in its session needs a connection of its own, and others are idle.
    fn make_room_for(&mut self, session: Option<&StableRef>, subject: &Subject) -> bool {
        if session.is_none() || !self.may_connect_exclusive() {
            return false;
        }
        self.lanes
            .idle(true, subject)
            .is_some_and(|idle| self.lanes.remove(idle).is_some())
    }

    /// Where the cluster remembers sessions, as far as is known, each connection that may wait has one of its own.
    fn purpose_of_waits(&self, session: Option<StableRef>) -> Purpose {
        match session {
            Some(session) => Purpose::Session(session),
            None if self.failover.is_cluster() => Purpose::Session(StableRef::random()),
            None => Purpose::Requests,
        }
    }

    fn wait_on(&mut self, id: LaneId, subject: Subject, place: Place, wait: Pending) {
        let (place, wait) = self.lanes.first_of_its_key(&subject, place, wait);
        let wait = self.for_whom_it_is(wait);
        let on_abandon = match wait {
            // Answered at once.
            Pending::Enqueue(_) | Pending::Rejoin(..) => OnAbandon::Finish,
            _ => self.on_abandon(id),
        };
        let Some(request) = self.request(&wait) else {
            return self.waits.finished(&subject);
        };
        wait.waits_for(match wait {
            Pending::Wait(..) => WaitsFor::Turn,
            _ => WaitsFor::Answer,
        });
        let target = match &request {
            Request::Acquire { target, .. } | Request::Enqueue { target, .. } => Some(*target),
            _ => None,
        };
        let refused = match self.lanes.get_mut(id) {
            Some(lane) => {
                lane.work = Work::Waiting(subject.clone(), place);
                if lane.session.is_some() {
                    lane.target = target;
                    lane.asked_for.insert(subject.clone());
                }
                lane.send(request, wait, on_abandon)
            }
            None => Some(wait),
        };
        if let Some(wait) = refused {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.work = Work::Ending;
            }
            self.waits.put_back(subject, place, wait);
        }
    }

    /// Whether a wait may be given up by closing its connection: not if leases would go with it. Nor where a grant survives
    /// the disconnect: one that crosses with it would be nobody's until its TTL is over. In a session it is taken again then, and
    /// given up.
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

    pub(super) fn exclusive_up(&mut self, id: LaneId, abilities: Abilities) {
        self.lanes.is_up(id);
        let Some(lane) = self.lanes.get_mut(id) else { return };
        let remembered = abilities.sessions == Some(true);
        if !remembered {
            lane.session = None;
        }
        let Some((subject, place, wait)) = self.lanes.take_opening(id) else {
            return;
        };
        if wait.session().is_some() && !remembered {
            // Nor is there a place that would have to be given up.
            self.waits.finished(&subject);
            let lost = Error::new(
                ErrorKind::Disconnected,
                "the place in the queue was lost with its connection: the leader remembers no sessions",
            );
            let lost = self.at_lane(id, lost);
            self.lost_with_its_session(wait, lost);
            return self.start_waits();
        }
        self.wait_on(id, subject, place, wait);
    }

    pub(super) fn exclusive_failed(&mut self, id: LaneId, error: Error) {
        let pause = self.exclusive_attempts.failed();
        tracing::debug!(shard = self.index, endpoint = %self.endpoint_of(id), retry_in = ?pause, %error, "no exclusive connection");
        self.exclusive_not_before = Instant::now() + pause;
        if let Some(Work::Opening(subject, place, wait)) = self.lanes.remove(id).map(|lane| lane.work) {
            self.waits.put_back(subject, place, wait);
        }
        if error.is_fatal() {
            // The server that is connected takes no further connection of this client: callers that need one are told why at once.
            for pending in self.waits.drain() {
                self.refuse(pending, error.clone());
            }
        }
        self.start_waits();
    }
}
