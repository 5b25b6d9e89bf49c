//! The client for threads.
//!
//! The same types under the same names as in the async client, of which these are thin wrappers: what is said there
//! about leases, errors and limits is true here. A call waits on its own thread; connections and renewals are driven by
//! two background threads that the whole process shares, so a lease is renewed while its holder computes.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = dflockd_client::server::Server::builder().port(0).start().await?;
//! # let address = server.local_addr().to_string();
//! # std::thread::spawn(move || {
//! use dflockd_client::blocking::Client;
//!
//! let client = Client::builder().servers([address]).connect_blocking()?;
//! let guard = client.lock("orders/42")?.acquire()?;
//! // The work that needs the lock. Long work asks `guard.is_held()` now and then.
//! guard.release()
//! # }).join().unwrap()?;
//! # Ok(())
//! # }
//! ```
//!
//! | here | made by | async |
//! | --- | --- | --- |
//! | [`Client`] | [`Client::builder`], [`connect_blocking`](crate::ClientBuilder::connect_blocking) | [`crate::Client`] |
//! | [`Lock`], [`LockGuard`] | [`Client::lock`] | [`crate::Lock`] |
//! | [`Semaphore`], [`SemaphorePermit`], [`SemaphorePermits`] | [`Client::semaphore`] | [`crate::Semaphore`] |
//! | [`Ticket`], [`Enqueued`] | [`Lock::enqueue`] | [`crate::Ticket`] |
//! | [`MultiLock`], [`MultiLockGuard`] | [`Client::lock_all`] | [`crate::MultiLock`] |
//! | [`DistributedLock`], [`DistributedSemaphore`] | a key, or a [`Lock`] | [`crate::DistributedLock`] |
//! | [`Election`], [`Leadership`] | a [`Lock`] | [`crate::Election`] |
//! | [`Events`] | [`Client::events`] | [`crate::Events`] |
//!
//! The low-level functions over a stream of your own are in [`protocol::blocking`](crate::protocol::blocking).
//!
//! # Where it may be used
//!
//! - **On threads without an async runtime**: everything.
//! - **Inside an async runtime**: what does not wait (building, asking a guard), and dropping anything. What waits gives
//!   [`ErrorKind::Misuse`](crate::ErrorKind::Misuse), because it would stop the runtime's other tasks; on a thread that
//!   may block, [`allow_in_runtime`] allows it.
//! - **While a thread ends** (in the destructors of thread-local values): only dropping; what waits gives `Misuse`.
//! - **In a child that was forked** (without `exec`) after the first use: what waits gives `Misuse`, and dropping does
//!   nothing. What was held stays with the parent; but the child has copies of the parent's connections, so while it
//!   lives the server does not notice that the parent has died.
//!
//! # The end
//!
//! Nothing here keeps a process from ending. Whatever it holds then, servers give to others when they notice that its
//! connections are gone (at once, as a rule), and where they do not, when the lease is over. A guard that is dropped is
//! given back in the background: a process that ends in the same moment may be faster, so call `release` where that
//! matters. A panic drops guards like anything else.

mod client;
mod distributed;
mod election;
mod events;
mod guard;
mod lock;
mod multi_guard;
mod multi_lock;
mod park;
mod process;
mod runtime;
mod semaphore;
mod signal;
mod ticket;

pub use client::Client;
pub use distributed::{DistributedLock, DistributedSemaphore, Holder};
pub use election::{Election, Leadership};
pub use events::Events;
pub use guard::{Held, LockGuard, SemaphorePermit};
pub use lock::Lock;
pub use multi_guard::{HeldMulti, MultiLockGuard, SemaphorePermits};
pub use multi_lock::MultiLock;
pub use runtime::allow_in_runtime;
pub use semaphore::Semaphore;
pub use signal::{SignalConn, SignalHandle};
pub use ticket::{Enqueued, Ticket};
