//! A lock.

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
/// Made by [`Client::lock`](crate::Client::lock); cheap to clone and to keep. It holds nothing by itself: each acquire gives a
/// [`LockGuard`] that does. Not reentrant: a second acquire waits like anybody's.
#[derive(Clone)]
pub struct Lock(pub(crate) Handle);

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Lock {
    /// How long [`acquire`](Self::acquire) waits; the client's acquire timeout unless it is set here. Kept exactly,
    /// fractions of a second included.
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        Self(self.0.acquire_timeout(timeout))
    }

    /// How long the server keeps the lock without a renewal; the server's default unless it is set here or on the client.
    /// Rounded up to whole seconds; less than one second is refused when it is acquired.
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        Self(self.0.lease_ttl(ttl))
    }

    /// How leases are renewed; as the [client](crate::ClientBuilder::renew_policy) says unless it is set here. The next three change
    /// parts of it. What is invalid is refused when it is acquired.
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        Self(self.0.renew_policy(policy))
    }

    /// Whether leases are renewed in the background (they are, by default). Without, a lease is lost when its TTL is over.
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        Self(self.0.renewing(|policy| policy.renew = renew))
    }

    /// Which part of its TTL passes before a lease is renewed, more than 0 and less than 1.
    #[must_use]
    pub fn renew_ratio(self, ratio: f64) -> Self {
        Self(self.0.renewing(|policy| policy.ratio = ratio))
    }

    /// Stops renewing once a lease was held for so long: it is lost at most a TTL later, however alive its holder is.
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        Self(self.0.renewing(|policy| policy.max_hold = Some(max_hold)))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// Acquires the lock, waiting for up to the acquire timeout. Waiters are served in the order in which they came to
    /// the server.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) if it was not granted in that time and a server had said that it is held,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if no server answered in that time: whether it is held is not known then,
    /// [`Disconnected`](crate::ErrorKind::Disconnected) if the connection was lost after the request was sent,
    /// and the server's refusals. Nothing is held after an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives up the wait, and gives back what was granted meanwhile.
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

    /// Acquires the lock, waiting until a moment: a [`tokio::time::Instant`], or one of the standard library. As [`acquire`](Self::acquire) in
    /// all else.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). A deadline that has passed already is [`Unavailable`](crate::ErrorKind::Unavailable) at once:
    /// nothing is sent, so whether it is held is not known. To ask without waiting there is [`try_acquire`](Self::try_acquire).
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
    /// // All that a request needs has to be there in time.
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

    /// Acquires the lock if it is free; `None` if it is not. Does not wait for other holders, only for the server's answer
    /// (for up to the request timeout).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire); [`Unavailable`](crate::ErrorKind::Unavailable) if no server answered within the request
    /// timeout.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives back what was granted meanwhile.
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

    /// Takes back the lock that a process before this one held under the same [name](crate::Shard::stable_ref), if the cluster keeps it
    /// still; otherwise takes it if it is free. `None`: another holder has it, or this client holds it already.
    ///
    /// The answer does not say which of the two happened. [The fence](crate::Lease::fence) does: a lock that is taken back keeps its fence. A
    /// process that must know stores the fence where the next one can read it. The lease begins anew, with the TTL that is asked for now.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire); [`InvalidInput`](crate::ErrorKind::InvalidInput) if the shard of this key has no such name.
    ///
    /// # Cancel safety
    ///
    /// Safe: what is granted after the future was dropped is given back.
    pub async fn reclaim(&self) -> Result<Option<LockGuard>> {
        self.0.require_stable_ref()?;
        self.try_acquire().await
    }

    /// First phase of two: takes the lock if it is free, and a place in its queue if not. Does not wait for other holders;
    /// [`Ticket::wait`](crate::Ticket::wait) does, when you are ready to. A place keeps a connection to itself, so there can only
    /// be as many as [`exclusive_connections_per_key`](crate::ClientBuilder::exclusive_connections_per_key) for one key, and
    /// [`exclusive_connections`](crate::ClientBuilder::exclusive_connections) for all. Where none is free, this waits for one, and
    /// meanwhile takes what becomes free.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire); [`Timeout`](crate::ErrorKind::Timeout) means that no connection was free for it
    /// within the request timeout, [`Unavailable`](crate::ErrorKind::Unavailable) that the server took no more of them.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives up the place, and gives back what was granted meanwhile.
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
    ///     // Tell somebody that it will take a while, and then:
    ///     Enqueued::Queued(ticket) => ticket.wait(Duration::from_secs(30)).await?,
    /// };
    /// guard.release().await
    /// # }
    /// ```
    pub async fn enqueue(&self) -> Result<Enqueued<LockGuard>> {
        self.0.enqueue(LockGuard::new).await
    }

    /// Acquires the lock, waiting for up to the acquire timeout, runs the work, and releases the lock, whatever came of the
    /// work: it succeeds, fails, panics or is dropped. If the lease is lost meanwhile, the work is stopped: its future is
    /// dropped. The server's answer to the release is waited for unless the lease is lost.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire), and then nothing was run; [`LeaseLost`](crate::ErrorKind::LeaseLost) if the
    /// lease was lost before the work was done; the work's own error, whatever comes of the release; and those of
    /// [`LockGuard::release`] if the work succeeded: nobody knows then whether it was alone to the end.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the work and gives the lock back.
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
    ///         // The work that needs it; any error type that `Error` can be turned into will do.
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
