//! Which shard a request goes to, for those who only want to name it.

use super::request::Request;
use crate::sharding::CheckedStrategy;

/// The rule, and how many shards there are.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    pub(crate) strategy: CheckedStrategy,
    pub(crate) shards: usize,
}

impl Routes {
    /// The index of the shard; none if there is no such shard.
    pub(crate) fn shard_of(&self, request: &Request) -> Option<usize> {
        let index = match (request, request.key()) {
            (Request::Stats { shard } | Request::Barrier { shard } | Request::Failback { shard }, _) => *shard,
            (Request::Emit { channel, .. }, _) => self.strategy.shard(channel.as_str(), self.shards).ok()?,
            (_, Some(key)) => self.strategy.shard(key.as_str(), self.shards).ok()?,
            (_, None) => return None,
        };
        (index < self.shards).then_some(index)
    }
}
