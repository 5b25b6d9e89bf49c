//! The scheduled events and the clock.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use tokio::time::Instant;

use super::callers::CallId;
use super::network::WireId;
use crate::shard::ids::LaneId;

/// One life of a client, from the start of its shard to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientId {
    pub(super) index: usize,
    pub(super) life: u32,
}

/// A scheduled event.
#[derive(Clone, Copy, Debug)]
pub(super) enum SimEvent {
    /// A caller performs an action.
    Act,
    /// A fault occurs.
    Fault,
    /// A shard takes its inputs.
    Inputs(ClientId),
    /// A shard's timer fires.
    Tick(ClientId),
    /// An attempt to connect starts.
    Dial(ClientId, LaneId),
    /// An attempt to connect reaches the server.
    Arrive(ClientId, LaneId),
    /// The client's end of a connection takes a turn.
    Lane(ClientId, LaneId),
    /// The server's end of a connection takes a turn.
    Serve(WireId),
    /// A server sweeps its leases.
    Sweep(u32),
    /// A draining server stops waiting for its clients.
    Stop(u32),
    /// A server starts.
    Start,
    /// The members of a cluster elect a leader, if there is none.
    Elect,
    /// A member that shuts down stops waiting for its clients.
    StopMember(usize),
    /// An isolated member reaches the others again.
    Rejoin(usize),
    /// A member is started again.
    StartMember(usize),
    /// A caller checks for its answer.
    Call(CallId),
}

/// Events in order of time. The seed decides the order of simultaneous events.
pub(super) struct Agenda {
    now: Instant,
    heap: BinaryHeap<Reverse<AgendaEntry>>,
    sequence: u64,
}

struct AgendaEntry {
    at: Instant,
    order: u16,
    sequence: u64,
    event: SimEvent,
}

impl Agenda {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now,
            heap: BinaryHeap::new(),
            sequence: 0,
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Schedules an event, for now if `at` is in the past.
    pub(super) fn add(&mut self, at: Instant, event: SimEvent, rng: &mut fastrand::Rng) {
        self.sequence += 1;
        self.heap.push(Reverse(AgendaEntry {
            at: at.max(self.now),
            order: rng.u16(..),
            sequence: self.sequence,
            event,
        }));
    }

    /// Returns the time of the next event.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes the next event and advances the clock to its time.
    pub(super) fn next(&mut self) -> Option<SimEvent> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

impl AgendaEntry {
    fn key(&self) -> (Instant, u16, u64) {
        (self.at, self.order, self.sequence)
    }
}

impl PartialEq for AgendaEntry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for AgendaEntry {}

impl PartialOrd for AgendaEntry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AgendaEntry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
