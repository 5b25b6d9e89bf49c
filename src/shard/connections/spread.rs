//! How keys are spread over several pipelined connections.

use crate::shard::ids::LaneId;
use crate::types::Key;

/// How many groups of keys are told apart.
const GROUPS: usize = 1024;

/// A request that was sent over a pipelined connection.
#[derive(Clone, Copy, Default)]
pub(super) struct SentRequest {
    pub(super) lane: LaneId,
    /// How many requests were sent over that connection up to this one.
    pub(super) number: u64,
}

/// The last request of each key, or rather of each group of keys with the same hash. Empty if there is nothing to choose between.
pub(super) struct LastRequests(Box<[SentRequest]>);

impl LastRequests {
    pub(super) fn new(connections: usize) -> Self {
        let groups = if connections > 1 { GROUPS } else { 0 };
        Self(vec![SentRequest::default(); groups].into())
    }

    pub(super) fn of(&self, key: &Key) -> Option<SentRequest> {
        self.0.get(scatter(key) % GROUPS).copied()
    }

    pub(super) fn note(&mut self, key: &Key, sent: SentRequest) {
        if let Some(last) = self.0.get_mut(scatter(key) % GROUPS) {
            *last = sent;
        }
    }
}

/// A number below 2^16 for a key. Not that by which shards spread keys: all keys of one shard may have that in common.
pub(super) fn scatter(key: &Key) -> usize {
    const ODD: u32 = 0x9e37_79b1;
    (crc32fast::hash(key.as_str().as_bytes()).wrapping_mul(ODD) >> 16) as usize
}
