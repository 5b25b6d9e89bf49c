//! The embedded server: a dflockd for tests, examples and development, inside your process.
//!
//! It speaks the protocol of release 1.14 and later: strict FIFO, separate namespaces for locks and semaphores, fencing
//! tokens, `ping`. All state is in memory and ends with it. Options carry the names and defaults of the real server's
//! flags.
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
//! How it is made: `state` is the whole behaviour, without sockets and clocks; `connection` reads requests, asks the
//! state, and writes the answers; `listener` accepts, sweeps and shuts down.

mod builder;
mod connection;
mod event;
mod listener;
mod random;
mod state;

pub use builder::ServerBuilder;
pub use event::{Event, EventKind};
pub use listener::Server;
