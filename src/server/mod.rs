//! The embedded server: a dflockd for tests, examples and development, inside your process.
//!
//! It speaks the protocol of release 1.14 and later: strict FIFO, separate namespaces for locks and semaphores, fencing
//! tokens, `ping`. All state is in memory and ends with it. Options carry the names and defaults of the real server's
//! flags.
//!
//! It has signals too, which real servers had from 1.11 to 1.16 and dropped in 2.0: with
//! [`signals(false)`](ServerBuilder::signals) it is like one of the latter. A subscriber that does not read is
//! disconnected when [`signal_buffer`](ServerBuilder::signal_buffer) signals wait for it, as the last of those releases
//! do; earlier ones drop its signals silently.
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
//! Two things of the releases that can form clusters (3.x) it has for the asking: with
//! [`cluster_release`](ServerBuilder::cluster_release) it takes `stable-ref`, and a renewal moves the ownership of a lease.
//! (`barrier` it answers in any case, at once, as a single server of those releases does.) [`Cluster`] is several of them
//! on one state, with a leader that changes on command and members that stop, for tests of clients that have to cope.
//!
//! How it is made: `state` is the whole behaviour, without sockets and clocks, and `signals` the part of it that knows
//! who hears what; `connection` reads requests, asks the state, and writes answers and signals; `listener` accepts,
//! sweeps and shuts down; `cluster` runs several servers on one state.

mod builder;
mod cluster;
mod connection;
mod event;
mod listener;
mod random;
mod signals;
mod state;
#[cfg(feature = "tls")]
mod tls;

pub use builder::ServerBuilder;
pub use cluster::{Cluster, ClusterBuilder};
pub use event::{Event, EventKind};
pub use listener::Server;
#[cfg(feature = "tls")]
pub use tls::ServerTls;
