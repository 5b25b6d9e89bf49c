//! A client for dflockd, a server for distributed FIFO locks and semaphores, made for services that hold many keys at
//! once.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), dflockd_client::Error> {
//! use dflockd_client::Client;
//!
//! # let server = dflockd_client::server::Server::builder().port(0).start().await?;
//! # let address = server.local_addr().to_string();
//! let client = Client::builder().servers([address]).connect().await?;
//! let guard = client.lock("orders/42")?.acquire().await?;
//! tokio::select! {
//!     reason = guard.lost() => eprintln!("stop: {reason}"),
//!     () = async { /* the work that needs the lock */ } => {}
//! }
//! guard.release().await
//! # }
//! ```
//!
//! # Where to look
//!
//! - [`guide`]: from the first lock to failover, fences and sizing, in reading order, with a page of guarantees and a glossary.
//! - [`Client`] and its [`builder`](Client::builder): servers, timeouts, sharding, health, shutdown. It is a
//!   [`tower::Service`] of [`Request`]s.
//! - [`ClientOptions`]: the same from a URL, the environment or a configuration file; [`ClientBuilder::from_url`] and
//!   [`from_env`](ClientBuilder::from_env).
//! - [`LayeredOptions`]: several of these at once, and where each setting comes from.
//! - [`Lock`] and [`Semaphore`]: handles on a key. Acquiring gives a [`LockGuard`] or
//!   [`SemaphorePermit`]; what both can do is [`Lease`]. [`MultiLock`] takes several locks, and [`Semaphore::acquire_many`] several slots, all
//!   or none: their guards are [`MultiGuard`]s. [`RenewPolicy`] says how leases are renewed.
//! - [`DistributedLock`] and [`DistributedSemaphore`]: the same as objects that hold what they acquire, as in the Python
//!   client.
//! - [`Election`]: leader election on a lock.
//! - [`Error`] and [`ErrorKind`]: what went wrong, and whether to try again. [`RetryPolicy`] does that by itself.
//! - [`ShardingStrategy`]: which shard a key belongs to. [`Shard`]: which servers may serve one, a cluster or servers in reserve;
//!   [`ShardHealth`] tells which of them does.
//! - [`ClientEvent`]: what happens to a client, [as a stream](Client::events); [`ClientBuilder::on_lost`] where a callback is enough.
//! - `blocking` (feature `blocking`): all of it for threads.
//! - [`protocol`]: the wire, typed, without I/O; [`protocol::functions`] over a stream of your own.
//! - [`ClientBuilder::servers`] says which addresses there are, [`ClientBuilder::auth_token_file`] where the servers' secret may come from.
#![cfg_attr(
    feature = "tls",
    doc = "- [`Tls`]: whom a client trusts, and what it presents. What is protected against whom: [`guide::security`]."
)]
//! - [`TimeoutLayer`], [`ClientBuilder::layer`]: the client as a tower service, and layers of your own around it.
//! - [`LockLayer`], [`SemaphoreLayer`]: any other tower service, whose requests of one key run one at a time, or so many at once.
#![cfg_attr(
    feature = "server",
    doc = "- [`testing`]: tests of your own code: a server in the process, faults on demand, paused time. [`server`]: an embedded server on a port."
)]
#![cfg_attr(
    not(feature = "server"),
    doc = "- `testing` and `server` (feature `server`): a server for tests of your own code, with faults on demand; an embedded server on a port."
)]
//!
//! # Leases
//!
//! A lock or slot is held for its TTL and renewed in the background, by default when half of it is over. The holder is
//! told of its loss before time lets the server grant it to anybody else: what counts is the moment at which the request
//! that got or renewed the lease was *sent*, plus the TTL, less a [margin](ClientBuilder::loss_margin). If the connection
//! over which it was acquired ends, the server gives it up, and the holder is told at once; what the server did in the
//! moment before nobody can know. For that, and for a process that is stopped while it holds a lock, there is the
//! [`Fence`], which servers make from release 2.1 on: what needs it says so with [`ClientBuilder::fencing`].
//!
//! # Cancel safety
//!
//! Every future of this crate may be dropped at any await, unless its documentation says otherwise (only the low-level
//! functions do): a wait is given up, a grant that nobody got is given back.
//!
//! # Features
//!
//! | feature | default | |
//! | --- | --- | --- |
//! | `blocking` | no | the client for threads |
//! | `tls-ring` | yes | TLS by rustls, `ClientBuilder::tls`, with ring as the provider of cryptography |
//! | `tls-aws-lc-rs` | no | the same with AWS-LC, which counts before ring where both are on |
//! | `tls` | by `tls-ring` | TLS with the provider that the process has installed, and none of its own. One that is installed counts before those of the features, too |
//! | `tls-platform-verifier` | no | certificates can be verified as the operating system does it: `Tls::platform_verifier` |
//! | `server` | no | the embedded server, and `testing` for tests of your own code |
//! | `prometheus` | no | the Prometheus exporter with fitting buckets: `prometheus::install()` |
//! | `cli` | no | the command `dflock`; nothing of the library |
//! | `backoff` | no | any `backoff::backoff::Backoff` as [`ReconnectPolicy`] (that crate is unmaintained: RUSTSEC-2025-0012) |

// The order of a hash map is another in each process. What it decided would not happen again with the same seed.
#![cfg_attr(not(test), deny(clippy::iter_over_hash_type))]

mod actor;
#[cfg(feature = "blocking")]
pub mod blocking;
mod channel;
mod client;
mod clock;
mod config;
mod distributed;
#[cfg(doctest)]
mod doctests;
mod ending;
mod error;
mod escape;
mod events;
#[cfg(all(feature = "server", feature = "tls"))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handle;
mod human;
mod io_words;
mod join;
mod keyed;
mod lease;
#[cfg(feature = "__measure")]
#[doc(hidden)]
pub mod measure;
mod net;
mod own_signals;
mod percent;
#[cfg(feature = "prometheus")]
pub mod prometheus;
pub mod protocol;
mod runtime;
#[cfg(feature = "server")]
pub mod server;
mod service;
mod shard;
mod sharding;
mod shards;
mod signal;
mod small_file;
mod stats;
#[cfg(feature = "blocking")]
mod take;
mod telemetry;
#[cfg(feature = "server")]
pub mod testing;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls/absent.rs"]
mod tls;
mod types;
mod unwind;

// The crates whose types are a part of this API, in the releases that it takes.

/// Its policies can be a [`ReconnectPolicy`].
#[cfg(feature = "backoff")]
pub use backoff;
/// Its buffers are what [`protocol`] encodes into and decodes from.
pub use bytes;
/// Its `Stream` is what [`SignalConn`] and [`Signals`] are.
pub use futures_core;
/// Its recorders take the client's metrics: [`ClientBuilder::metrics_recorder`].
pub use metrics;
/// The release of rustls whose configurations [`Tls::config`], and `ServerBuilder::tls` of the embedded server, take.
#[cfg(feature = "tls")]
pub use rustls;
/// Its instants, channels and I/O traits appear throughout.
pub use tokio;
/// Its `CancellationToken` tells of the loss of a lease: [`Lease::cancellation_token`].
pub use tokio_util;
/// A client is a `Service` of tower, and takes its layers: [`ClientBuilder::layer`].
pub use tower;

/// The version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub use client::builder::ClientBuilder;
pub use client::{Client, HealthWatch, ResponseFuture, WeakClient};
pub use config::{ClientOptions, LayeredOptions, OnUnavailable, SettingSource, SettingValue, parse_duration};
pub use distributed::{DistributedLock, DistributedSemaphore, EnqueueStatus, Holder};
pub use error::{Budget, Error, ErrorKind, Result};
pub use events::{ClientEvent, Events, LeaseLost, RenewalFailed, WaitBound};
pub use handle::election::{Election, Leadership};
pub use handle::guard::{Guard, LockGuard, SemaphorePermit};
pub use handle::lock::Lock;
pub use handle::multi_guard::{MultiGuard, MultiLockGuard, SemaphorePermits};
pub use handle::multi_lock::MultiLock;
pub use handle::semaphore::Semaphore;
pub use handle::ticket::{Enqueued, Ticket};
pub use keyed::{Keyed, KeyedError, KeyedFuture, KeyedLayer, LockLayer, RequestKey, SemaphoreLayer};
pub use lease::policy::RenewPolicy;
pub use lease::state::{LeaseState, LostReason};
pub use net::backoff::ReconnectPolicy;
pub use net::endpoint::Endpoint;
pub use net::failover::FailoverReason;
pub use net::fencing::Fencing;
pub use net::health::{ConnectionState, ShardHealth};
pub use protocol::{Channel, Group, Pattern, Payload, Signal};
pub use service::{
    AcquireRequest, ClientService, Lease, Operation, QueuePlace, Request, Response, RetryPolicy, SubscribeRequest,
    Timeout, TimeoutFuture, TimeoutLayer, TransitionFences,
};
pub use shard::input::ShutdownReport;
pub use sharding::{DEFAULT_SERVERS, ShardingStrategy, rendezvous_hash_shard, stable_hash_shard};
pub use shards::Shard;
pub use signal::{Overflow, SignalConn, SignalEvent, SignalHandle, SignalOptions, Signals};
pub use stats::{ClusterStats, IdleStats, LockStats, SemaphoreStats, SignalChannelStats, Stats};
pub use telemetry::key_class::MAX_KEY_CLASSES;
#[cfg(feature = "tls")]
pub use tls::Tls;
pub use types::{Fence, Grant, Key, Kind, Limit, MAX_KEY_BYTES, MAX_SECONDS, Target, Token, Ttl, WaitSecs};
