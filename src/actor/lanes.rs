//! The connections of one shard: which there are, what each is doing, and what each owns.

use std::collections::HashMap;
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::message::{Pending, ShardMessage};
use super::shard::TicketId;
use super::waits::{Place, Subject};
use crate::lease::registry::LaneId;
use crate::net::dial::Dial;
use crate::net::lane::{Command, OnAbandon, Outgoing};
use crate::protocol::Request;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Everything that does not block; there is one.
    Pipelined,
    /// One blocking request at a time.
    Exclusive,
    /// Requests that may cost the connection, so that it must own nothing; there is one, while it is needed.
    Aside,
}

impl Role {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Pipelined, Self::Exclusive, Self::Aside];

    /// Its name as metrics and spans carry it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pipelined => "pipelined",
            Self::Exclusive => "exclusive",
            Self::Aside => "aside",
        }
    }
}

/// How many connections of a role there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneCount {
    /// Those being established included.
    pub(crate) all: usize,
    pub(crate) up: usize,
}

/// What an exclusive connection is doing.
pub(crate) enum Work {
    /// Nothing, since then.
    Idle(Instant),
    /// It is being established for this wait.
    Opening(Subject, Place, Pending),
    /// It waits on the server.
    Waiting(Subject, Place),
    /// It has a place in a queue, whose ticket somebody holds.
    Ticket(Subject, Place, TicketId),
    /// It is gone, and about to say so.
    Ending,
}

/// One connection, seen from the actor.
pub(crate) struct Lane {
    pub(crate) role: Role,
    pub(crate) work: Work,
    /// How many leases the server counts to it.
    pub(crate) owns: usize,
    /// Its server said that it is shutting down.
    pub(crate) draining: bool,
    up: bool,
    /// Sent and not answered yet.
    in_flight: usize,
    commands: mpsc::UnboundedSender<Command<Pending>>,
    /// Ends the connection when the actor ends, however it does.
    _task: AbortOnDropHandle<()>,
}

impl Lane {
    /// Sends a request. Gives it back if the connection has just ended; otherwise it comes back as a leftover if the
    /// connection ends before it was sent.
    pub(crate) fn send(&mut self, request: Request, tag: Pending, on_abandon: OnAbandon) -> Option<Pending> {
        let outgoing = Outgoing {
            request,
            tag,
            on_abandon,
        };
        match self.commands.send(Command::Send(outgoing)) {
            Ok(()) => {
                self.in_flight += 1;
                None
            }
            Err(refused) => refused.0.into_iter().next().map(|outgoing| outgoing.tag),
        }
    }

    /// Sends requests that leave in one write. Gives them back if the connection has just ended.
    pub(crate) fn send_all(&mut self, requests: Vec<Outgoing<Pending>>) -> Result<(), Vec<Pending>> {
        let count = requests.len();
        self.commands
            .send(Command::SendAll(requests))
            .map(|()| self.in_flight += count)
            .map_err(|refused| refused.0.into_iter().map(|outgoing| outgoing.tag).collect())
    }

    /// Whether it is established.
    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// It is about to go.
    fn uncount(&self, counts: &mut [LaneCount; Role::ALL.len()]) {
        let count = &mut counts[self.role as usize];
        count.all -= 1;
        count.up -= usize::from(self.up);
    }

    fn is_idle(&self) -> bool {
        self.up && self.role != Role::Pipelined && self.in_flight == 0 && matches!(self.work, Work::Idle(_))
    }
}

/// All connections of a shard.
pub(crate) struct Lanes {
    lanes: HashMap<LaneId, Lane>,
    next_id: LaneId,
    counts: [LaneCount; Role::ALL.len()],
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self {
            lanes: HashMap::new(),
            next_id: 0,
            counts: Default::default(),
        }
    }

    /// Begins to establish a connection, after a pause. What happens on it is told to `shard`.
    pub(crate) fn open(
        &mut self,
        role: Role,
        work: Work,
        pause: Duration,
        dial: Dial,
        shard: ActorRef<ShardMessage>,
    ) -> LaneId {
        self.next_id += 1;
        let id = self.next_id;
        let (commands, queue) = mpsc::unbounded_channel();
        // The actor may be gone: then the task is about to be aborted, and nobody is left to tell.
        let tell = move |event| drop(shard.send_message(ShardMessage::Lane(id, event)));
        let task = tokio::spawn(dial.run(pause, queue, tell));
        let lane = Lane {
            role,
            work,
            owns: 0,
            draining: false,
            up: false,
            in_flight: 0,
            commands,
            _task: AbortOnDropHandle::new(task),
        };
        self.counts[role as usize].all += 1;
        self.lanes.insert(id, lane);
        id
    }

    pub(crate) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(&id)
    }

    /// What a connection is for, while it is known.
    pub(crate) fn role(&self, id: LaneId) -> Option<Role> {
        self.lanes.get(&id).map(|lane| lane.role)
    }

    /// The connection is established.
    pub(crate) fn is_up(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            if !std::mem::replace(&mut lane.up, true) {
                self.counts[lane.role as usize].up += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, id: LaneId) -> Option<Lane> {
        let lane = self.lanes.remove(&id)?;
        lane.uncount(&mut self.counts);
        Some(lane)
    }

    /// How many connections of a role there are.
    pub(crate) fn count(&self, role: Role) -> LaneCount {
        self.counts[role as usize]
    }

    /// An idle exclusive connection: one that owns nothing (its waits can be given up by closing it), or any.
    pub(crate) fn idle(&self, clean: bool) -> Option<LaneId> {
        self.lanes
            .iter()
            .find(|(_, lane)| lane.role == Role::Exclusive && lane.is_idle() && (!clean || lane.owns == 0))
            .map(|(id, _)| *id)
    }

    /// So many requests of a connection were answered, or skipped.
    pub(crate) fn answered(&mut self, id: LaneId, count: usize) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.in_flight = lane.in_flight.saturating_sub(count);
        }
    }

    /// How many requests of a connection are not answered yet.
    pub(crate) fn in_flight(&self, id: LaneId) -> usize {
        self.lanes.get(&id).map_or(0, |lane| lane.in_flight)
    }

    /// Closes what has been idle since before `before` and owns nothing. Whether idle connections are left.
    pub(crate) fn close_idle(&mut self, before: Instant) -> bool {
        self.close_if(
            |lane| matches!(lane.work, Work::Idle(since) if lane.is_idle() && lane.owns == 0 && since <= before),
        );
        self.lanes.values().any(Lane::is_idle)
    }

    /// Closes what waits on the server, or is about to, and owns nothing.
    pub(crate) fn close_waiting(&mut self) {
        self.close_if(|lane| {
            matches!(lane.work, Work::Waiting(..) | Work::Ticket(..) | Work::Opening(..)) && lane.owns == 0
        });
    }

    fn close_if(&mut self, which: impl Fn(&Lane) -> bool) {
        let counts = &mut self.counts;
        self.lanes.retain(|_, lane| {
            let close = which(lane);
            if close {
                lane.uncount(counts);
            }
            !close
        });
    }

    /// Closes all connections at once.
    pub(crate) fn clear(&mut self) {
        self.lanes.clear();
        self.counts = Default::default();
    }
}
