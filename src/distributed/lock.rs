//! The lock as an object.

use super::Holder;
use crate::client::Client;
use crate::client::builder::ClientBuilder;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::handle::guard::{LockGuard, hold};
use crate::handle::lock::Lock;
#[cfg(doc)]
use crate::types::Key;
use crate::types::Target;

/// A lock object as in the Python client: it has `acquire` and `release`, and keeps the lease in between.
///
/// It is a [`Lock`] together with its guard; [`Holder`] has its methods. Prefer [`Lock`]: you cannot forget to release
/// its guard, and one handle can have several guards at once.
///
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let address = server.local_addr().to_string();
/// use dflockd_client::{Client, DistributedLock};
///
/// // With its own client, which is created at the first use:
/// let options = Client::builder().servers([address]).acquire_timeout(Duration::from_secs(10));
/// let mut lock = DistributedLock::with_options("orders/42", options)?;
/// if lock.acquire().await? {
///     // The work that needs the lock.
///     lock.release().await?;
/// }
/// lock.close().await;
/// # Ok(())
/// # }
/// ```
///
/// Many objects can share one client and its connection:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// # use dflockd_client::{Client, DistributedLock};
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// let client = Client::builder().servers([server.local_addr().to_string()]).connect().await?;
/// let mut lock = DistributedLock::from(client.lock("orders/42")?);
/// assert!(lock.acquire().await?);
/// # Ok(())
/// # }
/// ```
pub type DistributedLock = Holder<LockGuard>;

impl Holder<LockGuard> {
    /// Creates a lock on a key, on [`DEFAULT_SERVERS`](crate::DEFAULT_SERVERS), with the defaults of
    /// [`ClientBuilder`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the key is invalid; see [`Key::new`].
    pub fn new(key: impl AsRef<str>) -> Result<Self> {
        Self::with_options(key, Client::builder())
    }

    /// Creates a lock on a key with its own client with these options. The client starts at the first use, in the
    /// current runtime, and connects only to the shard of the key, or to both shards of a key that moves. By default,
    /// it has one pipelined connection to each. It shares nothing with other objects, even if their options are the
    /// same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the key or an option is not acceptable.
    pub fn with_options(key: impl AsRef<str>, options: ClientBuilder) -> Result<Self> {
        Self::with_own_client(Target::Lock, key.as_ref(), options)
    }

    /// Acquires the lock, runs the work, and releases the lock even if the work fails, as `async with` does in Python.
    /// See [`Lock::with_lock`].
    ///
    /// # Errors
    ///
    /// As [`Lock::with_lock`]; [`ErrorKind::Misuse`] if this object holds the lock already.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the work and releases the lock.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # use dflockd_client::{Client, DistributedLock, Error};
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let options = Client::builder().servers([server.local_addr().to_string()]);
    /// let mut lock = DistributedLock::with_options("orders/42", options)?;
    /// let ttl = lock.with_lock(async |guard| Ok::<_, Error>(guard.ttl())).await?;
    /// assert!(ttl.as_secs() == 33 && !lock.is_held());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn with_lock<T, E: From<Error>>(
        &mut self,
        work: impl AsyncFnOnce(&LockGuard) -> Result<T, E>,
    ) -> Result<T, E> {
        let guard = self.acquire_guard().await?;
        hold(guard, work).await
    }
}

/// Creates an object that shares the handle's client.
impl From<Lock> for Holder<LockGuard> {
    fn from(lock: Lock) -> Self {
        Self::with_handle(lock.0)
    }
}
