//! Client for dflockd.

mod actor;
mod builder;
mod client;
mod clock;
mod config;
mod error;
mod guard;
mod handle;
mod health;
mod lease;
mod lock;
mod net;
pub mod protocol;
mod semaphore;
#[cfg(feature = "server")]
pub mod server;
mod service;
mod sharding;
mod stats;
mod types;

pub use actor::message::ShutdownReport;
pub use builder::ClientBuilder;
pub use client::Client;
pub use config::OnUnavailable;
pub use error::{Error, ErrorKind, Result};
pub use guard::{Lease, LockGuard, SemaphorePermit};
pub use health::{ConnectionState, ShardHealth};
pub use lease::cell::{LeaseState, LostReason};
pub use lock::DistributedLock;
pub use net::backoff::ReconnectPolicy;
pub use semaphore::DistributedSemaphore;
pub use service::{AcquireRequest, Request, Response, ResponseFuture};
pub use sharding::{DEFAULT_SERVERS, ShardingStrategy, stable_hash_shard};
pub use stats::{IdleStats, LockStats, SemaphoreStats, Stats};
pub use types::{Fence, Grant, Key, Kind, Limit, MAX_KEY_BYTES, MAX_SECONDS, Target, Token, Ttl, WaitSecs};
