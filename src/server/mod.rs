//! The embedded server: a dflockd for tests, examples and development, inside your process.
//!
//! It plays a release of the real server, the newest unless [`release`](ServerBuilder::release) names another: there is what
//! differs from one to the next. All state is in memory and ends with it. Options carry the names and defaults of the real
//! server's flags.
//!
//! Signals, which real servers had from 1.11 to 1.16, it has with one of those releases. A subscriber that does not read is
//! disconnected when [`signal_buffer`](ServerBuilder::signal_buffer) signals wait for it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), dflockd_client::Error> {
//! use dflockd_client::{Client, server::Server};
//!
//! let server = Server::builder().port(0).start().await?;
//! let client = Client::builder().servers([server.local_addr().to_string()]).connect().await?;
//! let guard = client.lock("orders/42")?.acquire().await?;
//! assert_eq!(server.stats().locks.len(), 1);
//! # drop(guard);
//! # Ok(())
//! # }
//! ```
//!
//! With `release("cluster")` it takes `stable-ref`, and gives nothing back for it; a renewal moves the ownership of a lease. [`Cluster`] is several of
//! them on one state, with a leader that changes on command and members that stop, for tests of clients that have to cope.
//!
//! # What differs from a real server
//!
//! It was compared with release 1.10 over some thousand random conversations, and with the public code of that and later releases.
//! Known to differ:
//!
//! - Requests for more than 9,223,372,036 seconds are errors. Releases before 1.15 compute with what is left of such a number after an
//!   overflow, which no client can want.
//! - A subscriber that does not read its signals is disconnected. Some builds before 1.11.1 drop its signals instead; which ones and
//!   when is not known well enough.
//! - A renewal or release with a token that holds nothing is no use of the key. Before 1.16.1 it counts as one, so that the key is
//!   forgotten later; this only shows after [`gc_max_idle`](ServerBuilder::gc_max_idle).
//! - Leases are swept while the server shuts down, too. Real servers stop that, but then nothing waits for them any more.
//! - The lists of `stats` are in the order of the 64 maps in which real servers keep their keys. Within each map they have an order of
//!   their own at each request; here it is that of the bytes, so that tests can rely on it.
//! - The HTTP interface, the caps by IP address and the state file of fences are not there.
//!
//! Releases before 1.10, and the Python server 0.5.0, are not played: their behaviour is not known well enough.
//!
//! How it is made: `state` is the whole behaviour, without sockets and clocks, and `signals` the part of it that knows
//! who hears what; `connection` reads requests, asks the state, and writes answers and signals; `listen` says where
//! connections come from; `listener` accepts, sweeps and shuts down; `cluster` runs several servers on one state. What differs
//! from release to release is asked of `release`, at the place where it matters.

mod builder;
mod cluster;
mod connection;
pub(crate) mod control;
mod event;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(crate) mod fuzzing;
mod ids;
mod listen;
mod listener;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(crate) mod model;
mod name;
mod options;
mod pace;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod pause;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "pause_absent.rs"]
mod pause;
mod random;
mod release;
mod shared;
mod signals;
mod state;
#[cfg(feature = "tls")]
mod tls;
mod turns;

pub use builder::ServerBuilder;
pub use cluster::{Cluster, ClusterBuilder};
pub use event::{Event, EventKind};
pub use listen::Listener;
pub use listener::Server;
pub use release::Release;
#[cfg(feature = "tls")]
pub use tls::ServerTls;
