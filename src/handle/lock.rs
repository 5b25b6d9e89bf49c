//! The lock.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::handle::guard::{LockGuard, hold};
use crate::handle::terms::Handle;
use crate::handle::ticket::Enqueued;
use crate::lease::policy::RenewPolicy;
use crate::types::Key;

/// A lock on one key.
///
/// [`Client::lock`](crate::Client::lock) creates it. It is cheap to clone and to keep. The handle itself holds nothing:
/// each acquire returns a [`LockGuard`]. The lock is not reentrant: a second acquire waits like any other.
#[derive(Clone)]
pub struct Lock(pub(crate) Handle);

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Lock {
    /// Sets how long [`acquire`](Self::acquire) waits. Default: the client's acquire timeout. The client keeps the
    /// timeout exactly, including fractions of a second.
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        Self(self.0.acquire_timeout(timeout))
    }

    /// Sets how long the server keeps the lock without a renewal, rounded up to whole seconds. An acquire fails if the
    /// TTL is below one second. Default: the client's TTL, or the server's if the client sets none.
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        Self(self.0.lease_ttl(ttl))
    }

    /// Sets how leases are renewed. Default: the [client's policy](crate::ClientBuilder::renew_policy).
    /// [`renew`](Self::renew), [`renew_ratio`](Self::renew_ratio) and [`max_hold`](Self::max_hold) change parts of the
    /// policy. An acquire with an invalid policy fails.
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        Self(self.0.renew_policy(policy))
    }

    /// Sets whether the client renews leases in the background. Without renewals, a lease is lost when its TTL is over.
    /// Default: true.
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        Self(self.0.renewing(|policy| policy.renew = renew))
    }

    /// Sets the fraction of the TTL after which the client renews a lease: more than 0 and less than 1.
    #[must_use]
    pub fn renew_ratio(self, ratio: f64) -> Self {
        Self(self.0.renewing(|policy| policy.ratio = ratio))
    }

    /// Sets after which time the client stops renewing a lease. The lease is lost at most a TTL later, even if its
    /// holder still runs.
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        Self(self.0.renewing(|policy| policy.max_hold = Some(max_hold)))
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// Acquires the lock, waiting for up to the acquire timeout. The server grants the lock to waiters in the order of
    /// their arrival.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) if a server reported the key as held and did not grant it in that time,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if no server answered in that time (so it is not known whether
    /// the key is held), [`Disconnected`](crate::ErrorKind::Disconnected) if the connection was lost after the request
    /// was sent, and the server's refusals. After an error, the caller holds nothing.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future ends the wait. The client releases a lease that is granted meanwhile.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// assert!(guard.is_held());
    /// guard.release().await
    /// # }
    /// ```
    pub async fn acquire(&self) -> Result<LockGuard> {
        self.0.acquire().await.map(LockGuard::new)
    }

    /// Acquires the lock as [`acquire`](Self::acquire) does, waiting until a deadline. The deadline is a
    /// [`tokio::time::Instant`] or a [`std::time::Instant`].
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). [`Unavailable`](crate::ErrorKind::Unavailable) if the deadline has passed
    /// already: the client sends nothing, so it is not known whether the key is held. To ask without waiting, use
    /// [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// use std::time::{Duration, Instant};
    ///
    /// // Both locks must be acquired before the deadline of the request.
    /// let deadline = Instant::now() + Duration::from_secs(2);
    /// let first = client.lock("orders/42")?.acquire_until(deadline).await?;
    /// let second = client.lock("invoices/7")?.acquire_until(deadline).await?;
    /// # second.release().await?;
    /// first.release().await
    /// # }
    /// ```
    pub async fn acquire_until(&self, deadline: impl Into<Instant>) -> Result<LockGuard> {
        self.0.acquire_until(deadline.into()).await.map(LockGuard::new)
    }

    /// Acquires the lock if it is free; returns `None` if it is not. This does not wait for other holders. It waits
    /// only for the server's answer, for up to the request timeout.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire); [`Unavailable`](crate::ErrorKind::Unavailable) if no server answered within the
    /// request timeout.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, the client releases a lease that is granted meanwhile.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let lock = client.lock("orders/42")?;
    /// let held = lock.try_acquire().await?;
    /// assert!(held.is_some());
    /// assert!(lock.try_acquire().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        Ok(self.0.try_acquire().await?.map(LockGuard::new))
    }

    /// Reclaims the lock that an earlier process held under the same [name](crate::Shard::stable_ref), if the cluster
    /// still keeps that lease. Otherwise acquires the lock if it is free. Returns `None` if another holder has the
    /// lock, or if this client already holds it.
    ///
    /// The result does not say whether the lock was reclaimed or acquired. The [fence](crate::Lease::fence) shows this:
    /// a reclaimed lock keeps its fence. If the next process must know, store the fence where that process can read it.
    /// The lease starts again, with the TTL of this handle.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire); [`InvalidInput`](crate::ErrorKind::InvalidInput) if the shard of this
    /// key has no stable name.
    ///
    /// # Cancel safety
    ///
    /// Safe: the client releases a lease that is granted after the future was dropped.
    pub async fn reclaim(&self) -> Result<Option<LockGuard>> {
        self.0.require_stable_ref()?;
        self.try_acquire().await
    }

    /// Starts a two-phase acquire: takes the lock if it is free, and otherwise a queue position. This does not wait for
    /// other holders. [`Ticket::wait`](crate::Ticket::wait) waits for them later. Each queue position occupies a
    /// connection. So the number of queue positions is limited to
    /// [`exclusive_connections_per_key`](crate::ClientBuilder::exclusive_connections_per_key) for one key, and to
    /// [`exclusive_connections`](crate::ClientBuilder::exclusive_connections) for all keys. If no connection is free,
    /// this waits for one. It takes the key if the key becomes free meanwhile.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire). [`Timeout`](crate::ErrorKind::Timeout) means that no connection was free
    /// for the queue position within the request timeout; [`Unavailable`](crate::ErrorKind::Unavailable) can also mean
    /// that the server accepted no more connections.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, the client gives up the queue position and releases a lease that is granted
    /// meanwhile.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// use dflockd_client::Enqueued;
    ///
    /// let lock = client.lock("orders/42")?;
    /// let guard = match lock.enqueue().await? {
    ///     Enqueued::Acquired(guard) => guard,
    ///     // Tell the user that it will take a while, and then:
    ///     Enqueued::Queued(ticket) => ticket.wait(Duration::from_secs(30)).await?,
    /// };
    /// guard.release().await
    /// # }
    /// ```
    pub async fn enqueue(&self) -> Result<Enqueued<LockGuard>> {
        self.0.enqueue(LockGuard::new).await
    }

    /// Acquires the lock, waiting for up to the acquire timeout, runs the work, and releases the lock. It releases the
    /// lock whether the work succeeds, fails, panics or is dropped. If the lease is lost while the work runs, this
    /// stops the work by dropping its future. Otherwise it waits for the server's answer to the release.
    ///
    /// # Errors
    ///
    /// The errors of [`acquire`](Self::acquire): the work did not run. [`LeaseLost`](crate::ErrorKind::LeaseLost) if
    /// the lease was lost before the work ended. The error of the work, whether or not the release succeeds. The errors
    /// of [`LockGuard::release`] if the work succeeded: it is not known then whether the lock protected the work to its
    /// end.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the work, and the client releases the lock.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// use dflockd_client::Error;
    ///
    /// let lock = client.lock("orders/42")?;
    /// let ttl = lock
    ///     .with_lock(async |guard| {
    ///         // The protected work. Its error may be any type that implements `From<Error>`.
    ///         Ok::<_, Error>(guard.ttl())
    ///     })
    ///     .await?;
    /// assert_eq!(ttl.as_secs(), 33);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn with_lock<T, E: From<Error>>(
        &self,
        work: impl AsyncFnOnce(&LockGuard) -> Result<T, E>,
    ) -> Result<T, E> {
        let guard = self.acquire().await?;
        hold(guard, work).await
    }
}
