//! How keys are spread over several pipelined connections.

use crate::shard::ids::LaneId;
use crate::types::Key;

/// How many groups of keys are told apart.
const GROUPS: usize = 1024;

/// Keys with the same hash.
#[derive(Clone, Copy)]
pub(super) struct KeyGroup(usize);

/// A request that was sent over a pipelined connection.
#[derive(Clone, Copy, Default)]
pub(super) struct SentRequest {
    pub(super) lane: LaneId,
    /// How many requests were sent over that connection up to this one.
    pub(super) number: u64,
}

/// The last request of each group of keys.
pub(super) struct LastRequests(Box<[SentRequest]>);

impl LastRequests {
    pub(super) fn new(connections: usize) -> Self {
        let groups = if connections > 1 { GROUPS } else { 0 };
        Self(vec![SentRequest::default(); groups].into())
    }

    /// The group of a key; `None` with a single connection, where nothing is chosen.
    pub(super) fn group(&self, key: &Key) -> Option<KeyGroup> {
        // Not the hash by which shards spread keys: all keys of one shard may have that in common.
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
    /// Which of so many connections the group is given among equals.
    pub(super) fn among(self, connections: usize) -> usize {
        self.0 % connections
    }
}
