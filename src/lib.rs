//! Client for dflockd.

mod error;
pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
mod sharding;
mod stats;
mod types;

pub use error::{Error, ErrorKind, Result};
pub use sharding::{DEFAULT_SERVERS, ShardingStrategy, stable_hash_shard};
pub use stats::{IdleStats, LockStats, SemaphoreStats, Stats};
pub use types::{Fence, Grant, Key, Kind, Limit, MAX_KEY_BYTES, MAX_SECONDS, Target, Token, Ttl, WaitSecs};
