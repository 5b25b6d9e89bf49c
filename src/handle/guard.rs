//! The guards of held locks and slots.

use std::fmt;
use std::future::Future;
use std::ops::Deref;

#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::service::{Lease, release};

/// The guard of a held lock. It has the methods of [`Lease`].
#[derive(Debug)]
#[must_use = "a guard that is dropped releases its lock at once"]
pub struct LockGuard(Lease);

/// The guard of a held slot of a semaphore. It has the methods of [`Lease`].
#[derive(Debug)]
#[must_use = "a permit that is dropped releases its slot at once"]
pub struct SemaphorePermit(Lease);

/// The trait of [`LockGuard`] and [`SemaphorePermit`], for code that accepts either.
///
/// It dereferences to [`Lease`], and can be a trait object:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
/// use dflockd_client::Guard;
///
/// let mut held: Vec<Box<dyn Guard>> = Vec::new();
/// held.push(Box::new(client.lock("orders/42")?.acquire().await?));
/// held.push(Box::new(client.semaphore("workers", 8)?.acquire().await?));
/// assert!(held.iter().all(|guard| guard.is_held()));
/// for guard in held {
///     guard.release().await?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a guard that is dropped releases its lease at once"]
pub trait Guard: sealed::OfLease + Deref<Target = Lease> + fmt::Debug + Send + Sync + 'static {
    /// Releases the lease and waits for the server's confirmation. The client sends no further renewal.
    ///
    /// A `Box<dyn Guard>` has the same method.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future does not stop the release.
    fn release(self) -> impl Future<Output = Result<()>> + Send
    where
        Self: Sized,
    {
        release(self.into_lease())
    }
}

impl Guard for LockGuard {}
impl Guard for SemaphorePermit {}

impl dyn Guard {
    /// Releases the lease and waits for the server's confirmation. The client sends no further renewal.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future does not stop the release.
    pub async fn release(self: Box<Self>) -> Result<()> {
        release(self.unbox()).await
    }
}

/// Seals [`Guard`], and gives this crate access to the lease.
mod sealed {
    use super::{Lease, LockGuard, SemaphorePermit};

    pub trait OfLease {
        fn of(lease: Lease) -> Self
        where
            Self: Sized;

        fn into_lease(self) -> Lease
        where
            Self: Sized;

        fn unbox(self: Box<Self>) -> Lease;
    }

    impl OfLease for LockGuard {
        fn of(lease: Lease) -> Self {
            Self(lease)
        }

        fn into_lease(self) -> Lease {
            self.0
        }

        fn unbox(self: Box<Self>) -> Lease {
            self.0
        }
    }

    impl OfLease for SemaphorePermit {
        fn of(lease: Lease) -> Self {
            Self(lease)
        }

        fn into_lease(self) -> Lease {
            self.0
        }

        fn unbox(self: Box<Self>) -> Lease {
            self.0
        }
    }
}

/// Runs the work while the lease is held, then releases the lease, even if the work failed. If both fail, returns the
/// error of the work.
pub(crate) async fn hold<G: Guard, T, E: From<Error>>(
    guard: G,
    work: impl AsyncFnOnce(&G) -> Result<T, E>,
) -> Result<T, E> {
    // If the lease is lost, this returns the error. Dropping the guard then releases a grant that the server may still
    // keep.
    let outcome = guard.run(work(&guard)).await?;
    let released = guard.release().await;
    let output = outcome?;
    released?;
    Ok(output)
}

impl LockGuard {
    pub(crate) fn new(lease: Lease) -> Self {
        Self(lease)
    }

    /// Releases the lock and waits for the server's confirmation. The client sends no further renewal.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if the lease was lost before, [`ErrorKind::NotHeld`] if the server answers that the
    /// lock is not held, [`ErrorKind::Unavailable`] if no server answered within the request timeout,
    /// [`ErrorKind::Timeout`] if an added layer delayed the answer. In the last two cases the client repeats the
    /// release in the background, across reconnects, until a server answers or the TTL is over.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future does not stop the release.
    pub async fn release(self) -> Result<()> {
        release(self.0).await
    }
}

impl SemaphorePermit {
    pub(crate) fn new(lease: Lease) -> Self {
        Self(lease)
    }

    /// Releases the slot and waits for the server's confirmation. The client sends no further renewal.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future does not stop the release.
    pub async fn release(self) -> Result<()> {
        release(self.0).await
    }
}

impl Deref for LockGuard {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.0
    }
}

impl Deref for SemaphorePermit {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.0
    }
}
