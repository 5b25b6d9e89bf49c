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
//! With `release("cluster")` it takes `stable-ref`, and a renewal moves the ownership of a lease. [`Cluster`] is several of
//! them on one state, with a leader that changes on command and members that stop, for tests of clients that have to cope.
//!
//! How it is made: `state` is the whole behaviour, without sockets and clocks, and `signals` the part of it that knows
//! who hears what; `connection` reads requests, asks the state, and writes answers and signals; `listener` accepts,
//! sweeps and shuts down; `cluster` runs several servers on one state.

mod builder;
mod cluster;
mod connection;
mod event;
mod ids;
mod listener;
mod name;
mod options;
mod random;
mod release;
mod shared;
mod signals;
mod state;
#[cfg(feature = "tls")]
mod tls;

pub use builder::ServerBuilder;
pub use cluster::{Cluster, ClusterBuilder};
pub use event::{Event, EventKind};
pub use listener::Server;
pub use release::Release;
#[cfg(feature = "tls")]
pub use tls::ServerTls;
