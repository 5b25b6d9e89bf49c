//! What happens next, and the time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use tokio::time::Instant;

use super::callers::CallId;
use super::network::WireId;
use crate::shard::ids::LaneId;

/// One life of a client: from the start of its shard to the end of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientId {
    pub(super) index: usize,
    pub(super) life: u32,
}

/// Something that will happen.
#[derive(Clone, Copy, Debug)]
pub(super) enum SimEvent {
    /// A caller does something.
    Act,
    /// Something goes wrong.
    Fault,
    /// A shard takes its inputs.
    Inputs(ClientId),
    /// A shard wants to be told the time.
    Tick(ClientId),
    /// A connection begins to be established.
    Dial(ClientId, LaneId),
    /// An attempt to connect has come to the server.
    Arrive(ClientId, LaneId),
    /// A connection has something to do at its client's end.
    Lane(ClientId, LaneId),
    /// A connection has something to do at the server's end.
    Serve(WireId),
    /// A server looks through its leases.
    Sweep(u32),
    /// A server stops to wait for its clients.
    Stop(u32),
    /// A server is started.
    Start,
    /// The members of a cluster agree on a leader, if none leads.
    Elect,
    /// A member that shuts down stops to wait for its clients.
    StopMember(usize),
    /// A member sees the others again.
    Rejoin(usize),
    /// A member is started again.
    StartMember(usize),
    /// A caller looks for its answer.
    Call(CallId),
}

/// Events in order of time. Those of one moment come in an order that the seed chooses.
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

    /// Something will happen then, or now if that is past.
    pub(super) fn add(&mut self, at: Instant, event: SimEvent, rng: &mut fastrand::Rng) {
        self.sequence += 1;
        self.heap.push(Reverse(AgendaEntry {
            at: at.max(self.now),
            order: rng.u16(..),
            sequence: self.sequence,
            event,
        }));
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// The next thing. Its time is now, from here on.
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
