//! The shards of requests, for code that needs only the index of a shard.

use super::request::Request;
use crate::sharding::Placement;
use crate::telemetry::client_name::ClientName;

/// The shards of keys, and the number of shards.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    pub(crate) placement: Placement,
    pub(crate) shards: usize,
    /// The name of the client, for its spans.
    pub(crate) client: ClientName,
}

impl Routes {
    /// Returns the index of the shard, or `None` if there is no such shard. For a key that moves, this is the current
    /// shard.
    pub(crate) fn shard_of(&self, request: &Request) -> Option<usize> {
        let index = match (request, request.shard(), request.key()) {
            (_, Some(shard), _) => shard,
            (Request::Emit { channel, .. }, None, _) => self.placement.emits_at(channel.as_str()).ok()?,
            (Request::Acquire(acquire), None, _) => self.placement.place(acquire.routed_by().as_str()).ok()?.shard,
            (_, None, Some(key)) => self.placement.place(key.as_str()).ok()?.shard,
            (_, None, None) => return None,
        };
        (index < self.shards).then_some(index)
    }
}
