//! Which server a key belongs to.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Where a client connects unless it is told otherwise: one server on this machine, on the default port.
pub const DEFAULT_SERVERS: &[&str] = &["127.0.0.1:6388"];

/// Maps a key to the index of the server that serves it, in `0..servers`.
///
/// Any `Fn(&str, usize) -> usize` is one. It must answer the same for the same key in every process that shares
/// the locks, or two of them will hold "the same" lock on two servers. It runs in the caller's task on every
/// operation: keep it quick.
///
/// ```
/// use dflockd_client::ShardingStrategy;
///
/// // Everything before the first dot decides, so that related keys share a server.
/// let by_tenant = |key: &str, servers: usize| {
///     let tenant = key.split('.').next().unwrap_or(key);
///     dflockd_client::stable_hash_shard(tenant, servers)
/// };
/// assert_eq!(by_tenant.shard("acme.invoices", 4), by_tenant.shard("acme.orders", 4));
/// ```
pub trait ShardingStrategy: Send + Sync {
    /// The index of the server for `key`, below `servers`. `servers` is at least 1.
    fn shard(&self, key: &str, servers: usize) -> usize;
}

impl<F> ShardingStrategy for F
where
    F: Fn(&str, usize) -> usize + Send + Sync,
{
    fn shard(&self, key: &str, servers: usize) -> usize {
        self(key, servers)
    }
}

/// The default strategy: CRC-32 (IEEE, as zlib) of the key's UTF-8 bytes, modulo the number of servers.
///
/// The public Python, Go and TypeScript clients shard the same way, so processes in different languages agree.
/// With no servers at all the answer is 0.
///
/// ```
/// assert_eq!(dflockd_client::stable_hash_shard("my-key", 1), 0);
/// ```
#[must_use]
pub fn stable_hash_shard(key: &str, servers: usize) -> usize {
    crc32fast::hash(key.as_bytes()) as usize % servers.max(1)
}

/// A strategy behind an `Arc`, whose answers are checked.
#[derive(Clone)]
pub(crate) struct CheckedStrategy {
    strategy: Arc<dyn ShardingStrategy>,
    /// How a strategy of this crate is called where it is not given as code.
    name: Option<&'static str>,
}

/// The name of [`stable_hash_shard`].
pub(crate) const STABLE_HASH: &str = "stable_hash_shard";

impl CheckedStrategy {
    pub(crate) fn new(strategy: impl ShardingStrategy + 'static) -> Self {
        Self {
            strategy: Arc::new(strategy),
            name: None,
        }
    }

    /// The strategy of this crate that has that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        (name == STABLE_HASH).then(Self::default)
    }

    /// Its name, if it is one of this crate's.
    pub(crate) fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// The shard of `key`, or an error that shows what the strategy answered.
    pub(crate) fn shard(&self, key: &str, servers: usize) -> Result<usize> {
        let index = self.strategy.shard(key, servers);
        if index < servers {
            return Ok(index);
        }
        Err(Error::invalid(
            "shard index",
            index,
            &format!(
                "the sharding strategy gave it for key {key:?}, but there are {servers} servers: answer below {servers}"
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

    /// Made with Python: `zlib.crc32(key.encode())`.
    const VECTORS: &[(&str, usize)] = &[
        ("", 0),
        ("a", 3_904_355_907),
        ("my-key", 3_605_215_937),
        ("orders/42", 370_287_966),
        ("ключ", 212_833_818),
        ("鍵-7", 2_815_950_670),
        ("clé", 113_715_828),
        ("🔒", 1_514_244_864),
        ("user:Ünïcödé:1", 1_339_925_047),
    ];

    #[test]
    fn agrees_with_zlib_for_every_number_of_servers() {
        for (key, crc) in VECTORS {
            for servers in 1..=17 {
                assert_eq!(stable_hash_shard(key, servers), crc % servers, "{key} over {servers}");
            }
        }
        let long = "x".repeat(256);
        assert_eq!(stable_hash_shard(&long, 1_000_003), 1_944_984_080 % 1_000_003);
    }

    #[test]
    fn no_servers_is_not_a_panic() {
        assert_eq!(stable_hash_shard("k", 0), 0);
    }

    #[test]
    fn an_index_out_of_range_is_an_error_that_shows_it() {
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
}
