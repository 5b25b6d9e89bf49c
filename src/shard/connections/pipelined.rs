//! The pipelined connections of a shard, and the slots that they fill.

use super::Connections;
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

    /// The pipelined connection that carries the requests for a key: always the same one while its slot is filled, so that
    /// they keep their order.
    pub(in crate::shard) fn serving(&self, key: &Key) -> Option<LaneId> {
        if self.serving == 0 {
            return None;
        }
        let first = match self.slots.len() {
            1 => 0,
            slots => spread(key, slots),
        };
        let (before, from_first) = self.slots.split_at(first);
        let in_order = from_first.iter().chain(before).flatten();
        let up = |id: &&LaneId| self.all.get(*id).is_some_and(Connection::is_up);
        in_order.into_iter().find(up).copied()
    }

    /// How many requests are not answered yet, on the pipelined connections and on those that were such before.
    pub(in crate::shard) fn in_flight_pipelined(&self) -> usize {
        self.in_flight_pipelined
    }
}

/// Spreads keys over the pipelined connections. Not as the shards spread them: all keys of one shard may have that in common.
fn spread(key: &Key, slots: usize) -> usize {
    const ODD: u32 = 0x9e37_79b1;
    (crc32fast::hash(key.as_str().as_bytes()).wrapping_mul(ODD) >> 16) as usize % slots
}
