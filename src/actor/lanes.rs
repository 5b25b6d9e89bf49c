//! The connections of one shard: which there are, what each is doing, and what each owns.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::message::{Pending, ShardMessage};
use super::shard::TicketId;
use super::waits::{Place, Subject};
use crate::lease::registry::LaneId;
use crate::net::connect::Purpose;
use crate::net::dial::Dial;
use crate::net::lane::{Command, OnAbandon, Outgoing};
use crate::protocol::{Request, StableRef};
use crate::types::Target;

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
    /// Which of the shard's endpoints it leads to.
    pub(crate) endpoint: usize,
    /// The name of its session, by which another member of the cluster would know it again.
    pub(crate) session: Option<StableRef>,
    /// What it waits for, or did last, in its session.
    pub(crate) target: Option<Target>,
    /// All that it has waited for, in its session.
    pub(crate) asked_for: HashSet<Subject>,
    /// Another endpoint serves: nothing more is sent over it, and its end is no news.
    pub(crate) retired: bool,
    /// It has brought an answer.
    pub(crate) has_answered: bool,
    up: bool,
    /// Sent and not answered yet.
    in_flight: usize,
    /// None once nothing more may be sent.
    commands: Option<mpsc::UnboundedSender<Command<Pending>>>,
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
        let Some(commands) = &self.commands else {
            return Some(outgoing.tag);
        };
        match commands.send(Command::Send(outgoing)) {
            Ok(()) => {
                self.in_flight += 1;
                None
            }
            Err(refused) => refused.0.into_iter().next().map(|outgoing| outgoing.tag),
        }
    }

    /// Sends requests that leave in one write. Gives them back if the connection has just ended.
    pub(crate) fn send_all(&mut self, requests: Vec<Outgoing<Pending>>) -> Result<(), Vec<Pending>> {
        let tags = |requests: Vec<Outgoing<Pending>>| requests.into_iter().map(|outgoing| outgoing.tag).collect();
        let Some(commands) = &self.commands else {
            return Err(tags(requests));
        };
        let count = requests.len();
        commands
            .send(Command::SendAll(requests))
            .map(|()| self.in_flight += count)
            .map_err(|refused| tags(refused.0.into_iter().collect()))
    }

    /// Another endpoint serves. What is on its way is answered; nothing more is sent.
    pub(crate) fn retire(&mut self) {
        self.retired = true;
        self.commands = None;
    }

    /// Another endpoint serves. It ends at once, and gives back what was not answered.
    pub(crate) fn hang_up(&mut self) {
        if let Some(commands) = &self.commands {
            drop(commands.send(Command::HangUp));
        }
        self.retire();
    }

    /// Its wait has a place in the queue, whose ticket somebody holds.
    pub(crate) fn hold_ticket(&mut self, id: TicketId) {
        self.work = match std::mem::replace(&mut self.work, Work::Ending) {
            Work::Waiting(subject, place) => Work::Ticket(subject, place, id),
            other => other,
        };
    }

    /// Its wait, or the ticket whose place it has, is over as far as this connection goes.
    pub(crate) fn stop_waiting(&mut self) -> Option<(Subject, Place)> {
        match std::mem::replace(&mut self.work, Work::Idle(Instant::now())) {
            Work::Waiting(subject, place) | Work::Ticket(subject, place, _) => Some((subject, place)),
            other => {
                self.work = other;
                None
            }
        }
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
        let may_be_used = self.up && !self.retired && self.role != Role::Pipelined;
        may_be_used && self.in_flight == 0 && matches!(self.work, Work::Idle(_))
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
        endpoint: usize,
        dial: Dial,
        shard: ActorRef<ShardMessage>,
    ) -> LaneId {
        self.next_id += 1;
        let id = self.next_id;
        let (commands, queue) = mpsc::unbounded_channel();
        // The actor may be gone: then the task is about to be aborted, and nobody is left to tell.
        let tell = move |event| drop(shard.send_message(ShardMessage::Lane(id, event)));
        let session = match &dial.connect.purpose {
            Purpose::Session(reference) => Some(reference.clone()),
            _ => None,
        };
        let task = tokio::spawn(dial.run(pause, queue, tell));
        let lane = Lane {
            role,
            work,
            owns: 0,
            draining: false,
            endpoint,
            session,
            target: None,
            asked_for: HashSet::new(),
            retired: false,
            has_answered: false,
            up: false,
            in_flight: 0,
            commands: Some(commands),
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

    /// Which of the shard's endpoints a connection leads to, while it is known.
    pub(crate) fn endpoint(&self, id: LaneId) -> Option<usize> {
        self.lanes.get(&id).map(|lane| lane.endpoint)
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

    /// An idle exclusive connection for a wait: one that owns nothing (its waits can be given up by closing it), or any. But none
    /// whose session may own just that: asked for it again, the server would say that it has it already.
    pub(crate) fn idle(&self, clean: bool, subject: &Subject) -> Option<LaneId> {
        let has_had = |lane: &Lane| lane.session.is_some() && lane.asked_for.contains(subject);
        let is_fit = |lane: &Lane| lane.owns == 0 || !clean && !has_had(lane);
        self.lanes
            .iter()
            .find(|(_, lane)| lane.role == Role::Exclusive && lane.is_idle() && is_fit(lane))
            .map(|(id, _)| *id)
    }

    /// So many requests of a connection were answered, or skipped.
    pub(crate) fn answered(&mut self, id: LaneId, count: usize) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.in_flight = lane.in_flight.saturating_sub(count);
        }
    }

    /// Whether any exclusive connection is idle.
    pub(crate) fn has_idle(&self) -> bool {
        self.lanes
            .values()
            .any(|lane| lane.role == Role::Exclusive && lane.is_idle())
    }

    /// A connection has brought an answer. Whether that is the first.
    pub(crate) fn answers_first(&mut self, id: LaneId) -> bool {
        let lane = self.lanes.get_mut(&id);
        lane.is_some_and(|lane| !std::mem::replace(&mut lane.has_answered, true))
    }

    /// How many requests are not answered yet, on the pipelined connection and on those that were it before.
    pub(crate) fn in_flight_pipelined(&self) -> usize {
        let pipelined = self.lanes.values().filter(|lane| lane.role == Role::Pipelined);
        pipelined.map(|lane| lane.in_flight).sum()
    }

    /// The wait for which a connection was opened, once that is established.
    pub(crate) fn take_opening(&mut self, id: LaneId) -> Option<(Subject, Place, Pending)> {
        let lane = self.lanes.get_mut(&id)?;
        match std::mem::replace(&mut lane.work, Work::Idle(Instant::now())) {
            Work::Opening(subject, place, wait) => Some((subject, place, wait)),
            other => {
                lane.work = other;
                None
            }
        }
    }

    /// There is a connection for this wait. Of those for the same key whose connections are still being established the first
    /// takes it, and that one's goes to this wait: so they come to the server in their order, whichever connection is there
    /// first. A wait that goes on in its session has a connection of its own.
    pub(crate) fn first_of_its_key(&mut self, subject: &Subject, place: Place, wait: Pending) -> (Place, Pending) {
        if wait.session().is_some() {
            return (place, wait);
        }
        let before = |lane: &Lane| match &lane.work {
            Work::Opening(other, before, wait) if *before < place && other == subject && wait.session().is_none() => {
                Some(*before)
            }
            _ => None,
        };
        let first = self
            .lanes
            .iter()
            .filter_map(|(id, lane)| Some((before(lane)?, *id)))
            .min();
        match first.and_then(|(_, id)| self.lanes.get_mut(&id)) {
            Some(Lane {
                work: Work::Opening(_, its_place, its_wait),
                ..
            }) => (std::mem::replace(its_place, place), std::mem::replace(its_wait, wait)),
            _ => (place, wait),
        }
    }

    /// Gives up the exclusive connections that are being established to elsewhere than this endpoint: the waits for which that
    /// was done.
    pub(crate) fn stop_opening_elsewhere(&mut self, endpoint: usize) -> Vec<(Subject, Place, Pending)> {
        let is_one = |lane: &Lane| lane.endpoint != endpoint && matches!(lane.work, Work::Opening(..));
        let ids: Vec<LaneId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| is_one(lane))
            .map(|(id, _)| *id)
            .collect();
        let removed = ids.into_iter().filter_map(|id| self.remove(id));
        let waits = removed.filter_map(|lane| match lane.work {
            Work::Opening(subject, place, wait) => Some((subject, place, wait)),
            _ => None,
        });
        waits.collect()
    }

    /// Hangs up everything that leads elsewhere than to this endpoint, but what is only finishing.
    pub(crate) fn hang_up_elsewhere(&mut self, endpoint: usize) {
        for lane in self.lanes.values_mut() {
            if lane.endpoint != endpoint && !lane.retired {
                lane.hang_up();
            }
        }
    }

    /// Closes what has been idle since before `before` and owns nothing. Whether idle connections are left.
    pub(crate) fn close_idle(&mut self, before: Instant) -> bool {
        self.close_if(
            |lane| matches!(lane.work, Work::Idle(since) if lane.is_idle() && lane.owns == 0 && since <= before),
        );
        self.lanes.values().any(Lane::is_idle)
    }

    /// Closes what waits on the server, or is about to, and owns nothing, or whatever it owns. What that was.
    pub(crate) fn close_waiting(&mut self, whatever_it_owns: bool) -> Vec<Lane> {
        let waits = |lane: &Lane| matches!(lane.work, Work::Waiting(..) | Work::Ticket(..) | Work::Opening(..));
        let lanes = self.lanes.iter();
        let closed = lanes.filter(|(_, lane)| waits(lane) && (lane.owns == 0 || whatever_it_owns));
        let ids: Vec<LaneId> = closed.map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
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
