//! Spreads keys over several pipelined connections.

use crate::shard::ids::LaneId;
use crate::types::Key;

/// The number of key groups.
const GROUPS: usize = 1024;

/// A group of keys with the same reduced hash.
#[derive(Clone, Copy)]
pub(super) struct KeyGroup(usize);

/// A request that was sent over a pipelined connection.
#[derive(Clone, Copy, Default)]
pub(super) struct SentRequest {
    pub(super) lane: LaneId,
    /// The number of requests sent over that connection, including this one.
    pub(super) number: u64,
}

/// The last request of each group of keys.
pub(super) struct LastRequests(Box<[SentRequest]>);

impl LastRequests {
    pub(super) fn new(connections: usize) -> Self {
        let groups = if connections > 1 { GROUPS } else { 0 };
        Self(vec![SentRequest::default(); groups].into())
    }

    /// Returns the group of a key, or `None` with a single connection, where there is no choice.
    pub(super) fn group(&self, key: &Key) -> Option<KeyGroup> {
        // The default sharding strategy takes the same CRC modulo the number of shards, so the last bits of the CRC may
        // be the same for all keys of one shard. So the group is not simply the CRC modulo the number of groups.
        const ODD: u32 = 0x9e37_79b1;
        if self.0.is_empty() {
            return None;
        }
        let hash = crc32fast::hash(key.as_str().as_bytes()).wrapping_mul(ODD) >> 16;
        Some(KeyGroup(hash as usize % GROUPS))
    }

    pub(super) fn of(&self, group: KeyGroup) -> SentRequest {
        self.0.get(group.0).copied().unwrap_or_default()
    }

    pub(super) fn note(&mut self, group: KeyGroup, sent: SentRequest) {
        if let Some(last) = self.0.get_mut(group.0) {
            *last = sent;
        }
    }
}

impl KeyGroup {
    /// Returns the group's preferred index among this number of connections.
    pub(super) fn among(self, connections: usize) -> usize {
        self.0 % connections
    }
}
