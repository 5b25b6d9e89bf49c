//! Lock and semaphore objects like the blocking classes of the Python client.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::guard::{Held, LockGuard, SemaphorePermit, hold};
use super::lock::Lock;
use super::process::Ours;
use super::runtime::block_on;
use super::semaphore::Semaphore;
use crate::client::builder::ClientBuilder;
use crate::distributed::{self, EnqueueStatus};
use crate::error::{Error, Result};
use crate::handle::guard::Guard;
use crate::service::Lease;
use crate::types::{Fence, Key, Token, Ttl};

/// A lock object as in the Python client; see [`crate::DistributedLock`].
///
/// ```
/// # let runtime = tokio::runtime::Runtime::new().unwrap();
/// # let server = runtime.block_on(dflockd_client::server::Server::builder().port(0).start())?;
/// # let address = server.local_addr().to_string();
/// use dflockd_client::blocking::{Client, DistributedLock};
///
/// let mut lock = DistributedLock::with_options("orders/42", Client::builder().servers([address]))?;
/// if lock.acquire()? {
///     // The work that needs the lock.
///     lock.release()?;
/// }
/// lock.close()?;
/// # Ok::<_, dflockd_client::Error>(())
/// ```
pub type DistributedLock = Holder<crate::LockGuard>;

/// A semaphore slot object as in the Python client; see [`crate::DistributedSemaphore`].
pub type DistributedSemaphore = Holder<crate::SemaphorePermit>;

/// [`DistributedLock`] or [`DistributedSemaphore`]; see [`crate::Holder`], which has the same methods. `G` is the
/// guard of the async client.
///
/// Methods that wait also fail with [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block; see the
/// [module](super).
pub struct Holder<G>(Ours<distributed::Holder<G>>);

impl Holder<crate::LockGuard> {
    /// Creates the object as [`crate::DistributedLock::new`](distributed::Holder::<crate::LockGuard>::new) does.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key is invalid.
    pub fn new(key: impl AsRef<str>) -> Result<Self> {
        distributed::DistributedLock::new(key).map(Self::of)
    }

    /// Creates the object as
    /// [`crate::DistributedLock::with_options`](distributed::Holder::<crate::LockGuard>::with_options) does.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key or an option is invalid.
    pub fn with_options(key: impl AsRef<str>, options: ClientBuilder) -> Result<Self> {
        distributed::DistributedLock::with_options(key, options).map(Self::of)
    }

    /// Acquires the lock, runs the work, and releases the lock even if the work fails, as `with` does in Python. See
    /// [`Lock::with_lock`].
    ///
    /// # Errors
    ///
    /// As [`Lock::with_lock`]; [`Misuse`](crate::ErrorKind::Misuse) if this object holds the lock already.
    pub fn with_lock<T, E: From<Error>>(&mut self, work: impl FnOnce(&LockGuard) -> Result<T, E>) -> Result<T, E> {
        hold(self.acquire_guard()?, work)
    }
}

impl Holder<crate::SemaphorePermit> {
    /// Creates the object as [`crate::DistributedSemaphore::new`](distributed::Holder::<crate::SemaphorePermit>::new)
    /// does.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key is invalid, or the limit is 0.
    pub fn new(key: impl AsRef<str>, limit: u32) -> Result<Self> {
        distributed::DistributedSemaphore::new(key, limit).map(Self::of)
    }

    /// Creates the object as
    /// [`crate::DistributedSemaphore::with_options`](distributed::Holder::<crate::SemaphorePermit>::with_options)
    /// does.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key, the limit or an option is invalid.
    pub fn with_options(key: impl AsRef<str>, limit: u32, options: ClientBuilder) -> Result<Self> {
        distributed::DistributedSemaphore::with_options(key, limit, options).map(Self::of)
    }

    /// Acquires a slot, runs the work, and releases the slot even if the work fails. See [`Semaphore::with_permit`].
    ///
    /// # Errors
    ///
    /// As [`Semaphore::with_permit`]; [`Misuse`](crate::ErrorKind::Misuse) if this object holds a slot already.
    pub fn with_permit<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&SemaphorePermit) -> Result<T, E>,
    ) -> Result<T, E> {
        hold(self.acquire_guard()?, work)
    }
}

impl<G: Guard> Holder<G> {
    fn of(holder: distributed::Holder<G>) -> Self {
        Self(Ours::new(holder))
    }

    /// Acquires the lock or slot; see [`crate::Holder::acquire`].
    ///
    /// # Errors
    ///
    /// As [`crate::Holder::acquire`].
    pub fn acquire(&mut self) -> Result<bool> {
        block_on(|| self.0.acquire())?
    }

    /// Acquires the lock or slot, waiting until a deadline; see [`crate::Holder::acquire_until`].
    ///
    /// # Errors
    ///
    /// As [`crate::Holder::acquire_until`].
    pub fn acquire_until(&mut self, deadline: impl Into<Instant>) -> Result<bool> {
        block_on(|| self.0.acquire_until(deadline))?
    }

    /// Starts a two-phase acquire; see [`crate::Holder::enqueue`].
    ///
    /// # Errors
    ///
    /// As [`crate::Holder::enqueue`].
    pub fn enqueue(&mut self) -> Result<EnqueueStatus> {
        block_on(|| self.0.enqueue())?
    }

    /// Completes a two-phase acquire; see [`crate::Holder::wait`].
    ///
    /// # Errors
    ///
    /// As [`crate::Holder::wait`].
    pub fn wait(&mut self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        block_on(|| self.0.wait(timeout))?
    }

    /// Releases the lock or slot; see [`crate::Holder::release`].
    ///
    /// # Errors
    ///
    /// As [`crate::Holder::release`].
    pub fn release(&mut self) -> Result<bool> {
        block_on(|| self.0.release())?
    }

    /// Releases the lock or slot, and shuts the object's own client down; see [`crate::Holder::close`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn close(&mut self) -> Result<()> {
        block_on(|| self.0.close())
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.0.key()
    }

    /// Returns the guard, including one whose lease is lost.
    #[must_use]
    pub fn guard(&self) -> Option<&G> {
        self.0.guard()
    }

    /// Returns whether the lock or slot is held, as far as this client knows.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.is_held()
    }

    /// Returns the lease's token, the secret by which the server identifies it.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.0.token()
    }

    /// Returns the lease's fence, if the server is known to issue fences; see [`Lease::fence`](crate::Lease::fence).
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.0.fence()
    }

    /// Returns the lease, including a lost one.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.0.lease()
    }

    /// Returns the lease's TTL: how long the server keeps the lease after each renewal.
    #[must_use]
    pub fn ttl(&self) -> Option<Ttl> {
        self.0.ttl()
    }

    fn acquire_guard(&mut self) -> Result<Held<G>> {
        block_on(|| self.0.acquire_guard())?.map(Held::new)
    }
}

/// Creates an object that shares the client of the handle.
impl From<Lock> for Holder<crate::LockGuard> {
    fn from(lock: Lock) -> Self {
        Self::of(lock.as_async().clone().into())
    }
}

/// Creates an object that shares the client of the handle.
impl From<Semaphore> for Holder<crate::SemaphorePermit> {
    fn from(semaphore: Semaphore) -> Self {
        Self::of(semaphore.as_async().clone().into())
    }
}

impl<G: fmt::Debug> fmt::Debug for Holder<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
