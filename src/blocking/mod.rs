//! The client for threads.
//!
//! These types are thin wrappers around the async client's types of the same names. The documentation of those types on
//! leases, errors and limits applies here, too. A call blocks the calling thread. The whole process shares two
//! background threads, which drive connections and renewals. So a lease is renewed while its holder computes.
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
//! // The work that needs the lock. Long work checks `guard.is_held()` now and then.
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
//! The low-level functions, which use your own stream, are in [`protocol::blocking`](crate::protocol::blocking).
//!
//! # Where it may be used
//!
//! - **On threads without an async runtime**: all calls.
//! - **Inside an async runtime**: calls that do not wait (building, querying a guard), and dropping any value. Calls
//!   that wait fail with [`ErrorKind::Misuse`](crate::ErrorKind::Misuse), because they would stop other tasks of the
//!   runtime. On a thread that may block, [`allow_in_runtime`] allows them.
//! - **While a thread ends** (in the destructors of thread-local values): only dropping values. Calls that wait fail
//!   with `Misuse`.
//! - **In a child that was forked** (without `exec`) after the first use: calls that wait fail with `Misuse`, and
//!   dropping a value does nothing. The leases stay with the parent. But the child has copies of the parent's
//!   connections. If the parent dies, the server does not notice this while the child lives.
//!
//! # The end
//!
//! The client does not keep a process from ending. After the end, the servers grant the keys of the process to other
//! clients when they notice the end of its connections (usually at once), and otherwise when the leases end. Dropping a
//! guard releases its lease in the background. If the process ends right after that, the release may not be sent: call
//! `release` where that matters. A panic drops guards like other values.

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
