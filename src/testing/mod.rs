//! Support for tests of your own code: a server in this process, faults on demand, and a service that grants without a
//! server.
//!
//! A [`TestServer`] is the [embedded server](crate::server) on connections in memory. It uses no port and no
//! environment variables, and its time is tokio's: with `#[tokio::test(start_paused = true)]`, leases expire, renewals
//! run and waits time out in virtual time, without delay.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), dflockd_client::Error> {
//! use dflockd_client::LostReason;
//! use dflockd_client::testing::TestServer;
//!
//! // In a `#[tokio::test(start_paused = true)]`:
//! let server = TestServer::start().await?;
//! let client = server.client().await?;
//! let guard = client.lock("orders/42")?.acquire().await?;
//!
//! server.lose("orders/42")?;
//! assert_eq!(guard.lost().await, LostReason::Rejected);
//! # Ok(())
//! # }
//! ```
//!
//! [`guide::testing_your_code`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/testing_your_code/index.html)
//! has examples with test servers, faults and mock services. Copy them from `tests/it/testing_your_code.rs`.
//!
//! # Paused time
//!
//! Paused time advances by itself when every task of the runtime waits. So it works with connections in memory, but
//! not with anything outside the runtime: a real server, the embedded one on a port, threads and processes, the
//! blocking client. While a client waits for these, no task of the runtime can run, and time jumps: requests time out
//! and leases are lost at once. If the machine is really suspended during a test, leases are lost with paused time,
//! too.

mod gate;
mod mock;
mod network;
mod server;

pub use self::mock::{GivenBack, MockAnswer, MockLease, MockRequest, MockService};
pub use self::server::TestServer;
pub use crate::server::control::ObservedLease;
