//! A strategy whose results are checked.

use std::fmt;
use std::sync::Arc;

use super::{ShardingStrategy, rendezvous_hash_shard, stable_hash_shard};
use crate::error::{Error, Result};

/// A shared strategy whose results are checked.
#[derive(Clone)]
pub(crate) struct CheckedStrategy {
    strategy: Arc<dyn ShardingStrategy>,
    /// The name in settings, if this is a strategy of this crate.
    name: Option<&'static str>,
}

/// The name of [`stable_hash_shard`].
const STABLE_HASH: &str = "stable_hash_shard";
/// The name of [`rendezvous_hash_shard`].
const RENDEZVOUS_HASH: &str = "rendezvous_hash_shard";

impl CheckedStrategy {
    /// The names of the strategies, for messages.
    pub(crate) const NAMES: &str = "stable_hash_shard or rendezvous_hash_shard";

    pub(crate) fn new(strategy: impl ShardingStrategy + 'static) -> Self {
        Self {
            strategy: Arc::new(strategy),
            name: None,
        }
    }

    /// Returns the strategy of this crate with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            STABLE_HASH => Some(Self::default()),
            RENDEZVOUS_HASH => Some(Self {
                name: Some(RENDEZVOUS_HASH),
                ..Self::new(rendezvous_hash_shard)
            }),
            _ => None,
        }
    }

    /// Returns the name of the strategy in settings, if it is a strategy of this crate.
    pub(crate) fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// Returns the shard of `key`, or an error that shows the strategy's result.
    pub(crate) fn shard(&self, key: &str, servers: usize) -> Result<usize> {
        let index = self.strategy.shard(key, servers);
        if index < servers {
            return Ok(index);
        }
        Err(Error::invalid(
            "shard index",
            index,
            &format!(
                "the sharding strategy returned it for key {key:?}, but there are {servers} servers: return an index below {servers}"
            ),
        ))
    }
}

impl Default for CheckedStrategy {
    fn default() -> Self {
        Self {
            name: Some(STABLE_HASH),
            ..Self::new(stable_hash_shard)
        }
    }
}

impl fmt::Debug for CheckedStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardingStrategy({})", self.name.unwrap_or("custom"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_out_of_range_is_an_error_that_shows_the_index() {
        let strategy = CheckedStrategy::new(|_: &str, servers: usize| servers);
        let text = strategy.shard("k", 3).map_err(|e| e.to_string());
        assert!(
            text.as_ref()
                .is_err_and(|t| t.contains("index 3") && t.contains("\"k\"") && t.contains("below 3")),
            "{text:?}"
        );
        assert_eq!(
            CheckedStrategy::default().shard("my-key", 4).ok(),
            Some(3_605_215_937 % 4)
        );
    }

    #[test]
    fn each_name_stands_for_its_strategy() {
        for (name, strategy) in [
            (STABLE_HASH, stable_hash_shard as fn(&str, usize) -> usize),
            (RENDEZVOUS_HASH, rendezvous_hash_shard),
        ] {
            let named = CheckedStrategy::named(name).unwrap();
            assert_eq!(named.name(), Some(name));
            assert!(CheckedStrategy::NAMES.contains(name));
            for key in ["a", "my-key", "orders/42"] {
                assert_eq!(named.shard(key, 16).ok(), Some(strategy(key, 16)));
            }
        }
        assert!(CheckedStrategy::named("mine").is_none());
    }
}
