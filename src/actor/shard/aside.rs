//! Requests that may cost the connection they are made on: `stats`, which servers before 1.0 answer by closing it, and
//! whose answer outgrows the longest line that is accepted where a server has very many keys. No lease may depend on
//! such a connection, so they have one of their own, while it is needed.

use std::time::Duration;

use tokio::time::Instant;

use super::Shard;
use crate::actor::lanes::{Role, Work};
use crate::actor::message::Pending;
use crate::error::Error;
use crate::lease::registry::LaneId;
use crate::net::connect::Purpose;
use crate::net::lane::{Caller, OnAbandon};

/// The connection for requests that may cost it.
#[derive(Default)]
pub(super) struct Aside {
    lane: Option<LaneId>,
    /// What is sent once it is established.
    parked: Vec<Pending>,
}

impl Shard {
    /// Sends a request over a connection on which nothing depends.
    pub(super) fn send_aside(&mut self, pending: Pending) {
        let up = self
            .aside
            .lane
            .and_then(|id| self.lanes.get_mut(id))
            .map(|lane| lane.is_up());
        match up {
            Some(true) => {}
            Some(false) => return self.aside.parked.push(pending),
            None => {
                self.aside.parked.push(pending);
                return self.open_aside();
            }
        }
        let request = self.request(&pending);
        let lane = self.aside.lane.and_then(|id| self.lanes.get_mut(id));
        if let (Some(request), Some(lane)) = (request, lane) {
            lane.work = Work::Idle(Instant::now());
            if let Some(pending) = lane.send(request, pending, OnAbandon::Finish) {
                // It has just ended: open another.
                self.aside.parked.push(pending);
                self.open_aside();
            }
        }
        self.keep_house();
    }

    fn open_aside(&mut self) {
        let dial = self.dial(Purpose::Requests);
        let work = Work::Idle(Instant::now());
        self.aside.lane = Some(self.open(Role::Aside, work, Duration::ZERO, dial));
    }

    /// Another endpoint serves: what waits for the connection does not wait for one that leads elsewhere.
    pub(super) fn aside_moves(&mut self) {
        let here = self.failover.at();
        let Some(id) = self.aside.lane.filter(|id| self.lanes.endpoint(*id) != Some(here)) else {
            return;
        };
        self.aside.lane = None;
        // One that is being established has nothing on its way.
        if self.lanes.get_mut(id).is_some_and(|lane| !lane.is_up()) {
            self.lanes.remove(id);
        }
        if !self.aside.parked.is_empty() {
            self.open_aside();
        }
    }

    pub(super) fn is_aside(&self, id: LaneId) -> bool {
        self.aside.lane == Some(id)
    }

    pub(super) fn aside_up(&mut self, id: LaneId) {
        self.lanes.is_up(id);
        for pending in std::mem::take(&mut self.aside.parked) {
            if !pending.is_gone() {
                self.send_aside(pending);
            }
        }
        self.keep_house();
    }

    pub(super) fn aside_failed(&mut self, id: LaneId, error: &Error) {
        self.lanes.remove(id);
        self.aside.lane = None;
        for pending in std::mem::take(&mut self.aside.parked) {
            self.refuse(pending, error.clone());
        }
    }
}
