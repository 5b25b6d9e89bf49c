//! The wires between clients and servers, with delays and losses.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::agenda::ClientId;
use crate::shard::ids::LaneId;

/// Identifies a connection that a server has accepted: the server, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WireId {
    pub(super) server: u32,
    pub(super) number: u64,
}

/// A piece of data in flight.
#[derive(Clone, Debug)]
pub(super) enum Chunk {
    Bytes(BytesMut),
    /// The end of the peer's data.
    End,
    /// The connection is broken.
    Reset,
}

/// One direction of a wire.
#[derive(Default)]
pub(super) struct Pipe {
    chunks: VecDeque<(Instant, Chunk)>,
    /// Nothing arrives before this time.
    held_until: Option<Instant>,
    /// Whether everything that is sent from now on is lost.
    swallows: bool,
    /// Whether nothing more can be sent.
    closed: bool,
}

/// A connection.
pub(super) struct SimWire {
    /// The member that it leads to.
    pub(super) member: usize,
    pub(super) client: ClientId,
    pub(super) lane: LaneId,
    /// From the client to the server.
    pub(super) up: Pipe,
    /// From the server to the client.
    pub(super) down: Pipe,
    pub(super) client_is_gone: bool,
    pub(super) server_is_gone: bool,
    /// When the server's end is woken, if that is planned.
    pub(super) serve_at: Option<Instant>,
}

/// All wires with at least one open end.
#[derive(Default)]
pub(super) struct Network {
    wires: BTreeMap<WireId, SimWire>,
}

impl Pipe {
    /// Sends a piece that takes at least `delay`. Returns when it arrives, if it does.
    pub(super) fn send(&mut self, chunk: Chunk, now: Instant, delay: Duration) -> Option<Instant> {
        if self.swallows || self.closed {
            return None;
        }
        self.closed = matches!(chunk, Chunk::End | Chunk::Reset);
        let last = self.chunks.back().map_or(now, |(at, _)| *at);
        let at = (now + delay).max(last);
        self.chunks.push_back((at, chunk));
        Some(self.held_until.map_or(at, |until| until.max(at)))
    }

    /// Takes the pieces that have arrived.
    pub(super) fn arrived(&mut self, now: Instant) -> Vec<Chunk> {
        let mut arrived = Vec::new();
        while self.has_arrived(now) {
            arrived.extend(self.chunks.pop_front().map(|(_, chunk)| chunk));
        }
        arrived
    }

    /// Returns whether the next piece that has arrived is the end.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.has_arrived(now) && !matches!(self.chunks.front(), Some((_, Chunk::Bytes(_))))
    }

    fn has_arrived(&self, now: Instant) -> bool {
        let held = self.held_until.is_some_and(|until| until > now);
        !held && self.chunks.front().is_some_and(|(at, _)| *at <= now)
    }

    /// Holds back all pieces in flight, and all later ones.
    pub(super) fn hold(&mut self, until: Instant) {
        self.held_until = self.held_until.max(Some(until));
    }

    /// Releases the pieces that are held back. Returns when each piece arrives.
    pub(super) fn let_go(&mut self, now: Instant) -> Vec<Instant> {
        self.held_until = None;
        self.chunks.iter().map(|(at, _)| (*at).max(now)).collect()
    }

    /// Drops the pieces in flight, except the first `kept`, and all later ones.
    pub(super) fn swallow(&mut self, kept: usize) {
        self.chunks.truncate(kept);
        self.swallows = true;
    }

    /// Drops the pieces in flight, except the first `kept`, and reports a broken connection to the other end. Returns
    /// when the report arrives.
    pub(super) fn reset(&mut self, kept: usize, now: Instant, delay: Duration) -> Option<Instant> {
        self.chunks.truncate(kept);
        self.closed = false;
        self.held_until = None;
        let at = self.send(Chunk::Reset, now, delay);
        self.swallows = true;
        at
    }

    /// Returns whether everything that is sent is lost.
    pub(super) fn is_dead(&self) -> bool {
        self.swallows
    }

    /// Returns the number of pieces in flight.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }
}

impl SimWire {
    /// Returns whether it has a fault.
    pub(super) fn is_hurt(&self) -> bool {
        self.client_is_gone || self.server_is_gone || self.up.is_dead() || self.down.is_dead()
    }
}

impl Network {
    pub(super) fn add(&mut self, id: WireId, member: usize, client: ClientId, lane: LaneId) {
        let wire = SimWire {
            member,
            client,
            lane,
            up: Pipe::default(),
            down: Pipe::default(),
            client_is_gone: false,
            server_is_gone: false,
            serve_at: None,
        };
        self.wires.insert(id, wire);
    }

    pub(super) fn get(&self, id: WireId) -> Option<&SimWire> {
        self.wires.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: WireId) -> Option<&mut SimWire> {
        self.wires.get_mut(&id)
    }

    pub(super) fn ids(&self) -> Vec<WireId> {
        self.wires.keys().copied().collect()
    }

    /// Returns a random wire.
    pub(super) fn any(&self, rng: &mut fastrand::Rng) -> Option<WireId> {
        let which = rng.usize(0..self.wires.len().max(1));
        self.wires.keys().nth(which).copied()
    }

    /// Removes a wire that has no open end.
    pub(super) fn forget_if_gone(&mut self, id: WireId) {
        if self
            .wires
            .get(&id)
            .is_some_and(|wire| wire.client_is_gone && wire.server_is_gone)
        {
            self.wires.remove(&id);
        }
    }
}
