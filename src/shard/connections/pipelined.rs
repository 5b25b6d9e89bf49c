//! The pipelined connections of a shard, and their slots.

use super::Connections;
use super::spread::SentRequest;
use crate::protocol::Request;
use crate::shard::connection::Connection;
use crate::shard::ids::LaneId;
use crate::types::Key;

impl Connections {
    /// Whether any pipelined connection is up and has a slot.
    pub(in crate::shard) fn is_serving(&self) -> bool {
        self.serving > 0
    }

    /// Whether this pipelined connection has a slot: it serves, or is opening to serve.
    pub(in crate::shard) fn has_slot(&self, id: LaneId) -> bool {
        self.slots.contains(&Some(id))
    }

    /// Whether another pipelined connection may be opened.
    pub(in crate::shard) fn has_vacancy(&self) -> bool {
        self.slots.contains(&None)
    }

    /// Puts a pipelined connection into a free slot.
    pub(in crate::shard) fn fill_slot(&mut self, id: LaneId) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(id);
        }
    }

    /// Returns the pipelined connections that have a slot.
    pub(in crate::shard) fn in_slots(&self) -> Vec<LaneId> {
        self.slots.iter().flatten().copied().collect()
    }

    /// Returns the oldest pipelined connection that serves.
    pub(in crate::shard) fn oldest_serving(&self) -> Option<LaneId> {
        let up = |id: &&LaneId| self.all.get(*id).is_some_and(Connection::is_up);
        self.slots.iter().flatten().filter(up).min().copied()
    }

    /// Returns the pipelined connection for the next request of a key. While a request of the key's group may be under
    /// way, the next one goes over the same connection, so that the requests keep their order. Otherwise it goes over
    /// the connection with the fewest unanswered requests. Among equals, it goes over the first one in the order of the
    /// slots, beginning with the slot that the key's group prefers.
    pub(in crate::shard) fn serving(&self, key: &Key) -> Option<LaneId> {
        if self.serving == 0 {
            return None;
        }
        let Some(group) = self.last_requests.group(key) else {
            return self.slots.iter().flatten().copied().find(|id| self.serves(*id));
        };
        let last = self.last_requests.of(group);
        if self.is_under_way(last) {
            return Some(last.lane);
        }
        let (before, from_first) = self.slots.split_at(group.among(self.slots.len()));
        let in_order = from_first.iter().chain(before).flatten().copied();
        let serving = in_order.filter(|id| self.serves(*id));
        serving.min_by_key(|id| self.all.get(id).map(|connection| connection.in_flight))
    }

    /// Returns the pipelined connection for the renewal of a lease: the lease's owner, while that serves. An answer
    /// over another connection does not show that the owner is still open. Moreover, in a cluster the connection that
    /// renews a lease becomes its owner, even before the answer arrives.
    pub(in crate::shard) fn renewing(&self, key: &Key, owner: Option<LaneId>) -> Option<LaneId> {
        owner
            .filter(|owner| self.has_slot(*owner) && self.serves(*owner))
            .or_else(|| self.serving(key))
    }

    fn serves(&self, id: LaneId) -> bool {
        self.all.get(&id).is_some_and(Connection::is_up)
    }

    /// Whether a request may still be unanswered.
    fn is_under_way(&self, sent: SentRequest) -> bool {
        let sent_over = self.all.get(&sent.lane).filter(|connection| connection.is_up());
        self.has_slot(sent.lane) && sent_over.is_some_and(|connection| !connection.numbers.is_over(sent.number))
    }

    /// Notes a request that was sent over a pipelined connection, and its number there. A renewal is not noted if an
    /// unanswered request of its group is on another connection. So later requests of the group still use that other
    /// connection.
    pub(super) fn note_sent(&mut self, lane: LaneId, number: u64, request: &Request) {
        let Some(group) = request_key(request).and_then(|key| self.last_requests.group(key)) else {
            return;
        };
        let last = self.last_requests.of(group);
        if last.lane == lane || !self.is_under_way(last) {
            self.last_requests.note(group, SentRequest { lane, number });
        }
    }

    /// Returns the number of unanswered requests on connections that are or were pipelined.
    pub(in crate::shard) fn in_flight_pipelined(&self) -> usize {
        self.in_flight_pipelined
    }
}

/// Returns the key of a request that a pipelined connection carries.
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
