//! The connections of a shard, from the request for one to its end.

use std::collections::{BTreeMap, VecDeque};

use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::net::lane::{Caller, LaneEnd, Outgoing};
use crate::net::pipeline::Leftovers;
use crate::protocol::Request;
use crate::shard::effect::{Opening, Role};
use crate::shard::ids::LaneId;
use crate::shard::request::Pending;
use crate::types::WaitSecs;

#[derive(Default)]
pub(super) struct Lanes {
    open: BTreeMap<LaneId, FuzzedLane>,
    /// The identifier of the last connection that was opened.
    last: Option<LaneId>,
    sent: usize,
}

struct FuzzedLane {
    role: Role,
    is_up: bool,
    /// Whether nothing more is sent.
    finished: bool,
    /// Whether the shard hung it up.
    hung_up: bool,
    /// The unanswered requests, each with the time at which it was written.
    requests: VecDeque<(Outgoing<Pending>, Option<Moment>)>,
}

impl Lanes {
    /// Returns the number of connections and unanswered requests.
    pub(super) fn count(&self) -> usize {
        self.open.len() + self.sent
    }

    pub(super) fn open(&mut self, lane: LaneId, opening: &Opening) {
        assert!(self.last < Some(lane), "a later connection has a greater identifier");
        self.last = Some(lane);
        let opened = FuzzedLane {
            role: opening.role,
            is_up: false,
            finished: false,
            hung_up: false,
            requests: VecDeque::new(),
        };
        self.open.insert(lane, opened);
    }

    pub(super) fn send(&mut self, lane: LaneId, outgoing: Outgoing<Pending>) {
        let Some(known) = self.open.get_mut(&lane) else {
            panic!("a request is sent over a connection that has ended");
        };
        assert!(known.is_up, "a request is sent over a connection that is not up");
        assert!(!known.finished, "a request is sent over a connection that was finished");
        let blocks = |request: &Request| request.blocks() > WaitSecs::TRY;
        let is_behind = known.requests.iter().any(|(before, _)| blocks(&before.request));
        assert!(!is_behind, "a request is sent behind one that blocks");
        let is_shared = known.role == Role::Pipelined;
        assert!(
            !is_shared || !blocks(&outgoing.request),
            "a shared connection is blocked"
        );
        known.requests.push_back((outgoing, None));
        self.sent += 1;
    }

    /// Marks a connection over which nothing more is sent. Closes a pipelined connection that is not up, as drivers do.
    pub(super) fn finish(&mut self, lane: LaneId, hangs_up: bool) {
        if let Some(known) = self.open.get_mut(&lane) {
            if !known.is_up && known.role == Role::Pipelined {
                return self.close(lane);
            }
            known.finished = true;
            known.hung_up |= hangs_up;
        }
    }

    pub(super) fn close(&mut self, lane: LaneId) {
        if let Some(closed) = self.open.remove(&lane) {
            self.sent -= closed.requests.len();
        }
    }

    fn nth(&self, which: u8, wanted: impl Fn(&FuzzedLane) -> bool) -> Option<LaneId> {
        let fitting: Vec<LaneId> = self
            .open
            .iter()
            .filter(|(_, lane)| wanted(lane))
            .map(|(id, _)| *id)
            .collect();
        // The latest connection comes first.
        let index = usize::from(which).checked_rem(fitting.len())?;
        fitting.iter().rev().nth(index).copied()
    }

    /// Brings up a connection.
    pub(super) fn comes_up(&mut self, which: u8) -> Option<LaneId> {
        let id = self.nth(which, |lane| !lane.is_up && !lane.hung_up)?;
        self.open.get_mut(&id)?.is_up = true;
        Some(id)
    }

    /// Makes the opening of a connection fail.
    pub(super) fn fails(&mut self, which: u8) -> Option<LaneId> {
        let id = self.nth(which, |lane| !lane.is_up && !lane.hung_up)?;
        self.close(id);
        Some(id)
    }

    /// Returns a connection that is up.
    pub(super) fn up(&self, which: u8) -> Option<LaneId> {
        self.nth(which, |lane| lane.is_up && !lane.hung_up)
    }

    /// Writes the requests of a connection. Returns the requests that are not written because their callers are gone.
    pub(super) fn write(&mut self, lane: LaneId, now: Moment) -> Vec<Pending> {
        let Some(known) = self.open.get_mut(&lane) else {
            return Vec::new();
        };
        let mut skipped = Vec::new();
        for (outgoing, written_at) in std::mem::take(&mut known.requests) {
            if written_at.is_none() && outgoing.tag.is_gone() {
                skipped.push(outgoing.tag);
            } else {
                known.requests.push_back((outgoing, written_at.or(Some(now))));
            }
        }
        self.sent -= skipped.len();
        skipped
    }

    /// Removes and returns the oldest written request.
    pub(super) fn oldest(&mut self, lane: LaneId) -> Option<(Outgoing<Pending>, Moment)> {
        let requests = &mut self.open.get_mut(&lane)?.requests;
        let written_at = requests.front()?.1?;
        let (outgoing, _) = requests.pop_front()?;
        self.sent -= 1;
        Some((outgoing, written_at))
    }

    /// Breaks a connection.
    pub(super) fn ends(&mut self, which: u8, was_silent: bool, now: Moment) -> Option<(LaneId, LaneEnd<Pending>)> {
        let id = self.up(which)?;
        let cause = Some(Error::new(ErrorKind::Disconnected, "cut"));
        Some((id, self.end(id, cause, was_silent, now)?))
    }

    /// Ends a connection that the shard hung up, or that is finished and has no requests left.
    pub(super) fn hung_up(&mut self, now: Moment) -> Option<(LaneId, LaneEnd<Pending>)> {
        let is_done = |lane: &FuzzedLane| lane.is_up && lane.finished && (lane.hung_up || lane.requests.is_empty());
        let id = self.nth(0, is_done)?;
        Some((id, self.end(id, None, false, now)?))
    }

    fn end(&mut self, id: LaneId, cause: Option<Error>, was_silent: bool, now: Moment) -> Option<LaneEnd<Pending>> {
        let ended = self.open.remove(&id)?;
        self.sent -= ended.requests.len();
        let mut leftovers = Leftovers::nothing();
        for (outgoing, written_at) in ended.requests {
            match written_at {
                Some(_) => leftovers.unknown.push(outgoing.tag),
                None => leftovers.unwritten.push(outgoing.tag),
            }
        }
        Some(LaneEnd {
            cause,
            leftovers,
            was_silent,
            heard: now,
        })
    }
}
