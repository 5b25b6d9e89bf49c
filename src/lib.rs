//! A client for dflockd, a server for distributed FIFO locks and semaphores. The client is made for services that hold
//! many keys at once.
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
//! - [`guide`]: from the first lock to failover, fences and sizing, in reading order, with a page of guarantees and a
//!   glossary.
//! - [`Client`] and its [`builder`](Client::builder): servers, timeouts, sharding, health, shutdown. It is a
//!   [`tower::Service`] of [`Request`]s.
//! - [`ClientOptions`]: the same from a URL, the environment or a configuration file; [`ClientBuilder::from_url`] and
//!   [`from_env`](ClientBuilder::from_env).
//! - [`LayeredOptions`]: several of these sources together, and the source of each setting.
//! - [`Lock`] and [`Semaphore`]: handles on a key. An acquire returns a [`LockGuard`] or [`SemaphorePermit`]; both have
//!   the methods of [`Lease`]. [`MultiLock`] acquires several locks, and [`Semaphore::acquire_many`] several slots, all
//!   or none; both return a [`MultiGuard`]. [`RenewPolicy`] sets how the client renews leases.
//! - [`DistributedLock`] and [`DistributedSemaphore`]: lock objects that keep their lease, as in the Python client.
//! - [`Election`]: leader election on a lock.
//! - [`Error`] and [`ErrorKind`]: what failed, and whether to retry. [`RetryPolicy`] retries automatically.
//! - [`ShardingStrategy`]: which shard a key belongs to. [`Shard`]: the servers of a shard, such as a cluster or
//!   standbys; [`ShardHealth`] says which of them serves it.
//! - [`ClientEvent`]: the events of a client, [as a stream](Client::events); [`ClientBuilder::on_lost`] if a callback
//!   is enough.
//! - `blocking` (feature `blocking`): the same API for threads.
//! - [`protocol`]: the wire protocol, typed, without I/O; [`protocol::functions`] uses it over your own stream.
//! - [`ClientBuilder::servers`] describes the forms of addresses, and [`ClientBuilder::auth_token_file`] a source of
//!   the authentication token.
#![cfg_attr(
    feature = "tls",
    doc = "- [`Tls`]: which authorities a client trusts, and which certificate it presents. See [`guide::security`]."
)]
//! - [`TimeoutLayer`], [`ClientBuilder::layer`]: the client as a tower service, and your own layers around it.
//! - [`LockLayer`], [`SemaphoreLayer`]: layers that limit how many requests of one key any tower service runs at once.
#![cfg_attr(
    feature = "server",
    doc = "- [`testing`]: support for tests of your own code: a server in the process, faults on demand, paused time. [`server`]: an embedded server on a port."
)]
#![cfg_attr(
    not(feature = "server"),
    doc = "- `testing` and `server` (feature `server`): a server for tests of your own code, with faults on demand; an embedded server on a port."
)]
//!
//! # Leases
//!
//! The server keeps a lock or slot for its TTL. The client renews it in the background, by default when half of the TTL
//! is over. If the client cannot renew a lease, the holder learns of its loss before the server may grant the key to
//! another holder: the deadline is the time at which the last successful acquire or renewal was *sent*, plus the TTL,
//! less a [margin](ClientBuilder::loss_margin). If the connection over which the lease was acquired ends, the server
//! releases the lease, and the client reports the loss to the holder at once. The server may have granted the key to
//! another holder just before that report. Use a [`Fence`] against that, and against a process that is stopped while it
//! holds a lock. Servers issue fences from release 2.1 on; require them with [`ClientBuilder::fencing`].
//!
//! # Cancel safety
//!
//! You may drop every future of this crate at any await, unless its documentation says otherwise. Only the low-level
//! functions have other rules. Dropping a future ends its wait, and the client releases a lease that is granted
//! meanwhile.
//!
//! # Features
//!
//! | feature | default | |
//! | --- | --- | --- |
//! | `blocking` | no | the client for threads |
//! | `tls-ring` | yes | TLS by rustls, `ClientBuilder::tls`, with ring as the provider of cryptography |
//! | `tls-aws-lc-rs` | no | the same with AWS-LC, which takes precedence over ring if both are on |
//! | `tls` | by `tls-ring` | TLS without a provider of its own: the process installs one, which takes precedence over those of the features |
//! | `tls-platform-verifier` | no | verification of certificates by the operating system: `Tls::platform_verifier` |
//! | `server` | no | the embedded server, and `testing` for tests of your own code |
//! | `prometheus` | no | the Prometheus exporter with buckets for this crate's histograms: `prometheus::install()` |
//! | `cli` | no | the command `dflock`; adds nothing to the library |
//! | `backoff` | no | any `backoff::backoff::Backoff` as [`ReconnectPolicy`] (that crate is unmaintained: RUSTSEC-2025-0012) |

// docs.rs shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
// The order of a hash map differs between processes. A run that depends on it could not be repeated with the same seed.
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

// Re-exports the crates whose types are part of this API, in the releases that it uses.

/// The `backoff` crate, whose policies can become a [`ReconnectPolicy`].
#[cfg(feature = "backoff")]
pub use backoff;
/// The `bytes` crate, whose buffers [`protocol`] uses.
pub use bytes;
/// The `futures-core` crate, whose `Stream` trait [`SignalConn`] and [`Signals`] implement.
pub use futures_core;
/// The `metrics` crate, whose recorders [`ClientBuilder::metrics_recorder`] takes.
pub use metrics;
/// The `rustls` crate, whose configurations [`Tls::config`] and the embedded server's `ServerBuilder::tls` take.
#[cfg(feature = "tls")]
pub use rustls;
/// The `tokio` crate, whose instants, channels and I/O traits this API uses.
pub use tokio;
/// The `tokio-util` crate, whose `CancellationToken` [`Lease::cancellation_token`] returns.
pub use tokio_util;
/// The `tower` crate, whose `Service` trait [`Client`] implements and whose layers [`ClientBuilder::layer`] takes.
pub use tower;

/// The version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub use client::builder::ClientBuilder;
pub use client::{Client, HealthWatch, ResponseFuture, WeakClient};
pub use config::{
    ClientOptions, IgnoredVariable, LayeredOptions, OnUnavailable, SettingSource, SettingValue, parse_duration,
};
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
pub use tls::{Tls, TlsStream};
pub use types::{Fence, Grant, Key, Kind, Limit, MAX_KEY_BYTES, MAX_SECONDS, Target, Token, Ttl, WaitSecs};
