//! Which shard a request goes to, for code that only needs to name it.

use super::request::Request;
use crate::sharding::CheckedStrategy;
use crate::telemetry::client_name::ClientName;
use crate::types::Key;

/// The sharding rule and the number of shards.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    pub(crate) strategy: CheckedStrategy,
    pub(crate) shards: usize,
    /// The name of the client, for its spans.
    pub(crate) client: ClientName,
}

impl Routes {
    /// Returns the index of the shard, or `None` if there is no such shard.
    pub(crate) fn shard_of(&self, request: &Request) -> Option<usize> {
        let routed = match request {
            Request::Emit { channel, .. } => Some(channel.as_str()),
            other => other.key().map(Key::as_str),
        };
        let index = match (request.shard(), routed) {
            (Some(shard), _) => shard,
            (None, Some(routed)) => self.strategy.shard(routed, self.shards).ok()?,
            (None, None) => return None,
        };
        (index < self.shards).then_some(index)
    }
}
