//! The embedded server: a dflockd for tests, examples and development, inside your process.
//!
//! It listens on a port. For tests of your own code there is a [`TestServer`](crate::testing::TestServer), which needs
//! no port.
//!
//! It imitates a release of the real server: the newest, unless [`release`](ServerBuilder::release) names another. That
//! method lists the differences between the releases. The whole state is in memory and ends with the server. Options
//! have the names and defaults of the real server's flags.
//!
//! Real servers have signals in the releases 1.11 to 1.16, and the embedded server has them when it imitates one of
//! these. A subscriber that does not read is disconnected when [`signal_buffer`](ServerBuilder::signal_buffer) signals
//! wait for it and one more comes.
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
//! With `release("cluster")`, a single server accepts `stable-ref`, but it keeps nothing for a session; a renewal makes
//! its connection the owner of the lease. A [`Cluster`] is several such servers that share one state. Its leader changes on
//! command, and its members can be stopped, to test how clients cope with that.
//!
//! # What differs from a real server
//!
//! The embedded server was compared with release 1.10 in several thousand random conversations, and with the public
//! code of that release and of later ones. The known differences are:
//!
//! - Requests for more than 9,223,372,036 seconds are errors. Releases before 1.15 let such a number overflow and use
//!   the result, which no client can want.
//! - A subscriber that does not read its signals is disconnected. Some builds before 1.11.1 drop its signals instead;
//!   which builds do this, and when, is not known well enough.
//! - A renewal or release with a token that belongs to no lease does not count as a use of the key. Before 1.16.1 it
//!   does, so the key is forgotten later; this shows only after [`gc_max_idle`](ServerBuilder::gc_max_idle).
//! - Leases are swept even while the server shuts down. Real servers stop the sweep then, but at that time no request
//!   can wait for a lease.
//! - The lists of `stats` follow the order of the 64 maps in which real servers keep their keys. Within a map, the
//!   order of a real server changes with each request; the embedded server orders the keys of a map by their bytes, so
//!   that tests can rely on it.
//! - It has no HTTP interface, no caps by IP address and no state file for fences.
//!
//! It does not imitate releases before 1.10 or the Python server 0.5.0: their behaviour is not known well enough.
//!
//! Structure: `state` contains the whole behaviour, without sockets and clocks, and `signals` the subscriptions;
//! `connection` reads requests, passes them to the state, and writes answers and signals; `listen` defines the source
//! of connections; `listener` accepts, sweeps and shuts down; `cluster` runs several servers that share one state. Code whose
//! behaviour depends on the release asks `release` at that point.

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
