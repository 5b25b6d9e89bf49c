//! The pipelined connections of a shard, and the slots that they fill.

use super::Connections;
use super::spread::{SentRequest, scatter};
use crate::protocol::Request;
use crate::shard::connection::Connection;
use crate::shard::ids::LaneId;
use crate::types::Key;

impl Connections {
    /// Whether any pipelined connection is up and serves.
    pub(in crate::shard) fn is_serving(&self) -> bool {
        self.serving > 0
    }

    /// Whether this is a pipelined connection that serves, or is being established to.
    pub(in crate::shard) fn has_slot(&self, id: LaneId) -> bool {
        self.slots.contains(&Some(id))
    }

    /// Whether a pipelined connection may be opened.
    pub(in crate::shard) fn has_vacancy(&self) -> bool {
        self.slots.contains(&None)
    }

    /// Gives a pipelined connection its slot.
    pub(in crate::shard) fn fill_slot(&mut self, id: LaneId) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(id);
        }
    }

    /// The pipelined connections that have a slot.
    pub(in crate::shard) fn in_slots(&self) -> Vec<LaneId> {
        self.slots.iter().flatten().copied().collect()
    }

    /// The oldest pipelined connection that serves.
    pub(in crate::shard) fn oldest_serving(&self) -> Option<LaneId> {
        let up = |id: &&LaneId| self.all.get(*id).is_some_and(Connection::is_up);
        self.slots.iter().flatten().filter(up).min().copied()
    }

    /// The pipelined connection that carries the next request for a key. While a request for it may be under way it is that one's, so
    /// that they keep their order; otherwise the least busy, and of several the one that the key's hash names.
    pub(in crate::shard) fn serving(&self, key: &Key) -> Option<LaneId> {
        if self.serving == 0 {
            return None;
        }
        let up = |id: LaneId| self.all.get(&id).filter(|connection| connection.is_up());
        let Some(last) = self.last_requests.of(key) else {
            return self.slots.iter().flatten().copied().find(|id| up(*id).is_some());
        };
        let under_way = |connection: &Connection| connection.answered < last.number;
        if self.has_slot(last.lane) && up(last.lane).is_some_and(under_way) {
            return Some(last.lane);
        }
        let (before, from_first) = self.slots.split_at(scatter(key) % self.slots.len());
        let in_order = from_first.iter().chain(before).flatten();
        let serving = in_order.filter_map(|id| Some((up(*id)?.in_flight, *id)));
        serving.min_by_key(|(in_flight, _)| *in_flight).map(|(_, id)| id)
    }

    /// A request was sent over a pipelined connection, so many up to this one.
    pub(super) fn note_sent(&mut self, lane: LaneId, number: u64, key: &Key) {
        self.last_requests.note(key, SentRequest { lane, number });
    }

    /// How many requests are not answered yet, on the pipelined connections and on those that were such before.
    pub(in crate::shard) fn in_flight_pipelined(&self) -> usize {
        self.in_flight_pipelined
    }
}

/// The key of a request that a pipelined connection carries.
pub(in crate::shard) fn request_key(request: &Request) -> Option<&Key> {
    match request {
        Request::Acquire { key, .. }
        | Request::Release { key, .. }
        | Request::Renew { key, .. }
        | Request::Enqueue { key, .. }
        | Request::Wait { key, .. } => Some(key),
        _ => None,
    }
}
