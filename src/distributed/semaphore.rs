//! A slot of a semaphore as an object.

#[cfg(doc)]
use super::DistributedLock;
use super::Holder;
use crate::client::Client;
use crate::client::builder::ClientBuilder;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
#[cfg(doc)]
use crate::handle::guard::LockGuard;
use crate::handle::guard::{SemaphorePermit, hold};
use crate::handle::semaphore::Semaphore;
#[cfg(doc)]
use crate::types::Key;
use crate::types::{Limit, Target};

/// An object for one slot of a semaphore, as in the Python client. In all else it is like [`DistributedLock`].
pub type DistributedSemaphore = Holder<SemaphorePermit>;

impl Holder<SemaphorePermit> {
    /// Creates a slot object for the semaphore on a key, on [`DEFAULT_SERVERS`](crate::DEFAULT_SERVERS), with the
    /// defaults of [`ClientBuilder`]. Every user of the key must give the same limit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the key is invalid (see [`Key::new`]), or the limit is 0.
    pub fn new(key: impl AsRef<str>, limit: u32) -> Result<Self> {
        Self::with_options(key, limit, Client::builder())
    }

    /// Creates a slot object for the semaphore on a key, with its own client with these options; see
    /// [`DistributedLock::with_options`](Holder::<LockGuard>::with_options).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the key, the limit or an option is not acceptable.
    pub fn with_options(key: impl AsRef<str>, limit: u32, options: ClientBuilder) -> Result<Self> {
        Self::with_own_client(Target::Semaphore(Limit::new(limit)?), key.as_ref(), options)
    }

    /// Acquires a slot, runs the work, and releases the slot even if the work fails. See [`Semaphore::with_permit`].
    ///
    /// # Errors
    ///
    /// As [`Semaphore::with_permit`]; [`ErrorKind::Misuse`] if this object holds a slot already.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the work and releases the slot.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # use dflockd_client::{Client, DistributedSemaphore, Error};
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let options = Client::builder().servers([server.local_addr().to_string()]);
    /// let mut slots = DistributedSemaphore::with_options("workers", 8, options)?;
    /// slots.with_permit(async |permit| Ok::<_, Error>(assert!(permit.is_held()))).await
    /// # }
    /// ```
    pub async fn with_permit<T, E: From<Error>>(
        &mut self,
        work: impl AsyncFnOnce(&SemaphorePermit) -> Result<T, E>,
    ) -> Result<T, E> {
        let permit = self.acquire_guard().await?;
        hold(permit, work).await
    }
}

/// Creates an object that shares the handle's client.
impl From<Semaphore> for Holder<SemaphorePermit> {
    fn from(semaphore: Semaphore) -> Self {
        Self::with_handle(semaphore.0)
    }
}
