//! Guards: leases in the hands of holders.

use std::fmt;
use std::future::Future;
use std::ops::Deref;

#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::service::{Lease, release};

/// A lock that is held. See [`Lease`] for what can be asked of it.
#[derive(Debug)]
#[must_use = "a guard that is dropped gives its lock back at once"]
pub struct LockGuard(Lease);

/// A slot of a semaphore that is held. See [`Lease`] for what can be asked of it.
#[derive(Debug)]
#[must_use = "a permit that is dropped gives its slot back at once"]
pub struct SemaphorePermit(Lease);

/// [`LockGuard`] or [`SemaphorePermit`]: where it does not matter which.
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
#[must_use = "a guard that is dropped gives back at once what it holds"]
pub trait Guard: sealed::OfLease + Deref<Target = Lease> + fmt::Debug + Send + Sync + 'static {
    /// Gives it back and waits for the server to say so. Once it has, no renewal is sent any more.
    ///
    /// A `Box<dyn Guard>` has the same method.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves the release on its way.
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
    /// Gives it back and waits for the server to say so. Once it has, no renewal is sent any more.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves the release on its way.
    pub async fn release(self: Box<Self>) -> Result<()> {
        release(self.unbox()).await
    }
}

/// What only this crate needs to know of guards, and only its guards can be.
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

/// Runs the work for as long as its lease is held, then gives the lease back, whatever came of the work. The work's own
/// error goes before one of the release.
pub(crate) async fn hold<G: Guard, T, E: From<Error>>(
    guard: G,
    work: impl AsyncFnOnce(&G) -> Result<T, E>,
) -> Result<T, E> {
    // Lost: dropping the guard gives back what the server may still hold.
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

    /// Gives the lock back and waits for the server to say so. Once it has, no renewal is sent any more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if the lease was lost before, [`ErrorKind::NotHeld`] if the server says so now,
    /// [`ErrorKind::Unavailable`] if no server answered within the request timeout ([`ErrorKind::Timeout`] if a layer of yours kept
    /// the answer). In the last two cases the release goes on in the background, over reconnects, until it is answered or the TTL is over.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves the release on its way.
    pub async fn release(self) -> Result<()> {
        release(self.0).await
    }
}

impl SemaphorePermit {
    pub(crate) fn new(lease: Lease) -> Self {
        Self(lease)
    }

    /// Gives the slot back and waits for the server to say so. Once it has, no renewal is sent any more.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves the release on its way.
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
