//! Assigns keys to servers.

mod checked;
mod placement;
mod rendezvous;

use std::sync::Arc;

pub(crate) use self::checked::CheckedStrategy;
pub(crate) use self::placement::Placement;
pub use self::rendezvous::rendezvous_hash_shard;

/// The default servers of a client: one server on this machine, on the default port.
pub const DEFAULT_SERVERS: &[&str] = &["127.0.0.1:6388"];

/// Maps a key to the index of the server that serves it, in `0..servers`.
///
/// Any `Fn(&str, usize) -> usize` implements this trait, as do an `Arc` of a strategy and a `Box<dyn
/// ShardingStrategy>`. A strategy must return the same shard for the same key in every process that shares the locks;
/// otherwise two processes can hold the same lock on two servers. It runs in the caller's task on every operation, so
/// it must be fast.
///
/// ```
/// use dflockd_client::ShardingStrategy;
///
/// // Shards by the part before the first dot, so that related keys share a server.
/// let by_tenant = |key: &str, servers: usize| {
///     let tenant = key.split('.').next().unwrap_or(key);
///     dflockd_client::stable_hash_shard(tenant, servers)
/// };
/// assert_eq!(by_tenant.shard("acme.invoices", 4), by_tenant.shard("acme.orders", 4));
/// ```
///
/// A strategy that is chosen at run time:
///
/// ```
/// use std::sync::Arc;
///
/// use dflockd_client::{Client, ShardingStrategy, rendezvous_hash_shard, stable_hash_shard};
///
/// # let few_keys_move = true;
/// let strategy: Arc<dyn ShardingStrategy> = match few_keys_move {
///     true => Arc::new(rendezvous_hash_shard),
///     false => Arc::new(stable_hash_shard),
/// };
/// let builder = Client::builder().sharding_strategy(strategy);
/// ```
pub trait ShardingStrategy: Send + Sync {
    /// Returns the index of the server for `key`, which must be less than `servers`. `servers` is at least 1.
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

/// A strategy that several clients share, or that is chosen at run time.
impl<S: ShardingStrategy + ?Sized> ShardingStrategy for Arc<S> {
    fn shard(&self, key: &str, servers: usize) -> usize {
        (**self).shard(key, servers)
    }
}

/// A strategy that is chosen at run time.
impl ShardingStrategy for Box<dyn ShardingStrategy> {
    fn shard(&self, key: &str, servers: usize) -> usize {
        (**self).shard(key, servers)
    }
}

/// The default strategy: CRC-32 (IEEE, as zlib) of the key's UTF-8 bytes, modulo the number of servers.
///
/// The public Python, Go and TypeScript clients shard the same way, so processes in different languages agree. When
/// the number of servers changes, nearly all keys move; under [`rendezvous_hash_shard`] few do. Returns 0 if `servers`
/// is 0.
///
/// ```
/// assert_eq!(dflockd_client::stable_hash_shard("my-key", 1), 0);
/// ```
#[must_use]
pub fn stable_hash_shard(key: &str, servers: usize) -> usize {
    crc32fast::hash(key.as_bytes()) as usize % servers.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python: `zlib.crc32(key.encode())`.
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
    fn zero_servers_do_not_panic() {
        assert_eq!(stable_hash_shard("k", 0), 0);
    }
}
