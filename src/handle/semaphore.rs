//! The semaphore.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::after;
use crate::error::{Error, Result};
use crate::handle::guard::{SemaphorePermit, hold};
use crate::handle::many;
use crate::handle::multi_guard::{SemaphorePermits, hold_all};
use crate::handle::terms::Handle;
use crate::handle::ticket::Enqueued;
use crate::lease::policy::RenewPolicy;
use crate::types::Key;

/// A semaphore on one key. Its limit is the number of slots that can be held at the same time.
///
/// [`Client::semaphore`](crate::Client::semaphore) creates it. It is cheap to clone and to keep. The handle itself
/// holds nothing: each acquire returns a [`SemaphorePermit`]. Every user of a key must give the same limit.
///
/// From server release 1.14 on, a lock and a semaphore of the same key are independent. Older servers keep both in one
/// namespace, where a lock is a semaphore of limit 1. On such a server, while a key is in use as a lock, requests for a
/// semaphore of a limit above 1 on it fail with [`LimitMismatch`](crate::ErrorKind::LimitMismatch), and the other way
/// round. A semaphore of limit 1 and a lock on the same key exclude each other. If you may have such servers, use
/// different keys for locks and semaphores.
#[derive(Clone)]
pub struct Semaphore(pub(crate) Handle);

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Semaphore {
    /// Sets how long [`acquire`](Self::acquire) waits. Default: the client's acquire timeout. The client keeps the
    /// timeout exactly, including fractions of a second.
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        Self(self.0.acquire_timeout(timeout))
    }

    /// Sets how long the server keeps a slot without a renewal, rounded up to whole seconds. An acquire fails if the
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

    /// Acquires a slot, waiting for up to the acquire timeout. The server grants slots to waiters in the order of
    /// their arrival.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) if a server reported that no slot is free and granted none in that time,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if no server answered in that time (so it is not known whether a
    /// slot is free), [`Disconnected`](crate::ErrorKind::Disconnected) if the connection was lost after the request was
    /// sent, [`LimitMismatch`](crate::ErrorKind::LimitMismatch) if the key exists with another limit, and the server's
    /// refusals. After an error, the caller holds nothing.
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
    /// let guard = client.semaphore("workers", 8)?.acquire().await?;
    /// assert!(guard.is_held());
    /// guard.release().await
    /// # }
    /// ```
    pub async fn acquire(&self) -> Result<SemaphorePermit> {
        self.0.acquire().await.map(SemaphorePermit::new)
    }

    /// Acquires a slot as [`acquire`](Self::acquire) does, waiting until a deadline. The deadline is a
    /// [`tokio::time::Instant`] or a [`std::time::Instant`].
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). [`Unavailable`](crate::ErrorKind::Unavailable) if the deadline has passed
    /// already: the client sends nothing, so it is not known whether a slot is free. To ask without waiting, use
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
    /// // Both must be acquired before the deadline of the request.
    /// let deadline = Instant::now() + Duration::from_secs(2);
    /// let first = client.semaphore("workers", 8)?.acquire_until(deadline).await?;
    /// let second = client.lock("invoices/7")?.acquire_until(deadline).await?;
    /// # second.release().await?;
    /// first.release().await
    /// # }
    /// ```
    pub async fn acquire_until(&self, deadline: impl Into<Instant>) -> Result<SemaphorePermit> {
        self.0.acquire_until(deadline.into()).await.map(SemaphorePermit::new)
    }

    /// Acquires a slot if one is free; returns `None` if none is. This does not wait for other holders. It waits only
    /// for the server's answer, for up to the request timeout.
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
    /// let semaphore = client.semaphore("printer", 1)?;
    /// let held = semaphore.try_acquire().await?;
    /// assert!(held.is_some());
    /// assert!(semaphore.try_acquire().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_acquire(&self) -> Result<Option<SemaphorePermit>> {
        Ok(self.0.try_acquire().await?.map(SemaphorePermit::new))
    }

    /// Acquires `slots` slots, all or none, waiting for up to the acquire timeout in all. One guard holds all of them.
    /// It is lost as soon as one slot is lost.
    ///
    /// **What is atomic, and what is not.** Servers grant one slot at a time, so the client requests the slots
    /// individually, up to 16 at once. The client holds and renews the slots that are granted early until the rest is
    /// granted, even if [`renew`](Self::renew) is off. Other callers cannot get these slots meanwhile. If one slot is
    /// not granted, or one is lost, the client releases all. A caller gets all slots, or an error and none.
    ///
    /// **Callers that take several slots** cannot deadlock: each first acquires a lock, its turn. The turn is on the
    /// semaphore's shard, and its key is `dflockd-client-many/`, a checksum and the semaphore's key. The caller holds
    /// the turn until it has all slots. So these callers get their slots in the order of their arrival, regardless of
    /// how many slots they want. The turn counts as one more key towards the server's `--max-locks`. Callers that take
    /// single slots take no turn. Their requests are in the semaphore's queue together with those of the caller that
    /// has the turn, so neither kind of caller starves. Other client libraries that take several slots one by one do
    /// not use turns.
    ///
    /// A caller that holds slots of a key and acquires more slots of that key can deadlock with itself or with another
    /// such caller. Acquire all slots at once.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). [`InvalidInput`](crate::ErrorKind::InvalidInput) if `slots` is 0 or more than the
    /// limit: the client then sends nothing. [`LeaseLost`](crate::ErrorKind::LeaseLost) if a slot or the turn was lost
    /// before all slots were granted; this error is retryable. After an error, the caller holds nothing.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future ends the waits. The client releases the slots that are granted.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let memory = client.semaphore("gigabytes", 64)?;
    /// let permits = memory.acquire_many(12).await?;
    /// assert!(permits.is_held() && permits.guards().len() == 12);
    /// permits.release().await
    /// # }
    /// ```
    pub async fn acquire_many(&self, slots: u32) -> Result<SemaphorePermits> {
        let until = match self.0.wait {
            Duration::ZERO => None,
            wait => Some(after(Instant::now(), wait)),
        };
        many::take(&self.0, slots, until).await?.or_busy(&self.0.key, slots)
    }

    /// Acquires `slots` slots as [`acquire_many`](Self::acquire_many) does, waiting until a deadline. The deadline is a
    /// [`tokio::time::Instant`] or a [`std::time::Instant`].
    ///
    /// # Errors
    ///
    /// As [`acquire_many`](Self::acquire_many). [`Unavailable`](crate::ErrorKind::Unavailable) if the deadline has
    /// passed already; the client then sends nothing.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire_many`](Self::acquire_many).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// use std::time::{Duration, Instant};
    ///
    /// let deadline = Instant::now() + Duration::from_secs(2);
    /// let memory = client.semaphore("gigabytes", 64)?.acquire_many_until(12, deadline).await?;
    /// // The rest of the two seconds is for the lock.
    /// let report = client.lock("reports/7")?.acquire_until(deadline).await?;
    /// # report.release().await?;
    /// memory.release().await
    /// # }
    /// ```
    pub async fn acquire_many_until(&self, slots: u32, deadline: impl Into<Instant>) -> Result<SemaphorePermits> {
        let taken = many::take(&self.0, slots, Some(deadline.into())).await?;
        taken.or_busy(&self.0.key, slots)
    }

    /// Acquires `slots` slots if that many are free. Returns `None` if fewer are free, or if another caller is
    /// acquiring several slots at that moment. This does not wait for other holders. It waits only for the server's
    /// answers, for up to the request timeout each.
    ///
    /// # Errors
    ///
    /// As [`acquire_many`](Self::acquire_many) and [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    ///
    /// As [`acquire_many`](Self::acquire_many).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let memory = client.semaphore("gigabytes", 16)?;
    /// let most = memory.try_acquire_many(12).await?;
    /// assert!(most.is_some());
    /// // Four are free; of eight that are asked for, none is acquired.
    /// assert!(memory.try_acquire_many(8).await?.is_none());
    /// assert!(memory.try_acquire_many(4).await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_acquire_many(&self, slots: u32) -> Result<Option<SemaphorePermits>> {
        Ok(many::take(&self.0, slots, None).await?.all())
    }

    /// Starts a two-phase acquire: takes a slot if one is free, and otherwise a queue position. This does not wait for
    /// other holders. [`Ticket::wait`](crate::Ticket::wait) waits for them later. Each queue position occupies a
    /// connection. So the number of queue positions is limited to
    /// [`exclusive_connections_per_key`](crate::ClientBuilder::exclusive_connections_per_key) for one key, and to
    /// [`exclusive_connections`](crate::ClientBuilder::exclusive_connections) for all keys. If no connection is free,
    /// this waits for one. It takes a slot if one becomes free meanwhile.
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
    /// let slots = client.semaphore("workers", 1)?;
    /// let guard = match slots.enqueue().await? {
    ///     Enqueued::Acquired(guard) => guard,
    ///     // Tell the user that it will take a while, and then:
    ///     Enqueued::Queued(ticket) => ticket.wait(Duration::from_secs(30)).await?,
    /// };
    /// guard.release().await
    /// # }
    /// ```
    pub async fn enqueue(&self) -> Result<Enqueued<SemaphorePermit>> {
        self.0.enqueue(SemaphorePermit::new).await
    }

    /// Acquires a slot, waiting for up to the acquire timeout, runs the work, and releases the slot. It releases the
    /// slot whether the work succeeds, fails, panics or is dropped. If the lease is lost while the work runs, this
    /// stops the work by dropping its future. Otherwise it waits for the server's answer to the release.
    ///
    /// # Errors
    ///
    /// The errors of [`acquire`](Self::acquire): the work did not run. [`LeaseLost`](crate::ErrorKind::LeaseLost) if
    /// the lease was lost before the work ended. The error of the work, whether or not the release succeeds. The errors
    /// of [`SemaphorePermit::release`] if the work succeeded: it is not known then whether the slot protected the work
    /// to its end.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the work, and the client releases the slot.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// use dflockd_client::Error;
    ///
    /// let slots = client.semaphore("workers", 8)?;
    /// let ttl = slots
    ///     .with_permit(async |permit| {
    ///         // The protected work. Its error may be any type that implements `From<Error>`.
    ///         Ok::<_, Error>(permit.ttl())
    ///     })
    ///     .await?;
    /// assert_eq!(ttl.as_secs(), 33);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn with_permit<T, E: From<Error>>(
        &self,
        work: impl AsyncFnOnce(&SemaphorePermit) -> Result<T, E>,
    ) -> Result<T, E> {
        let permit = self.acquire().await?;
        hold(permit, work).await
    }

    /// [Acquires `slots` slots](Self::acquire_many), runs the work, and releases the slots. It releases them whether
    /// the work succeeds, fails, panics or is dropped. If a lease is lost while the work runs, this stops the work by
    /// dropping its future.
    ///
    /// # Errors
    ///
    /// The errors of [`acquire_many`](Self::acquire_many): the work did not run. Otherwise as
    /// [`with_permit`](Self::with_permit).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the work, and the client releases the slots.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// use dflockd_client::Error;
    ///
    /// let memory = client.semaphore("gigabytes", 64)?;
    /// let taken = memory
    ///     .with_permits(12, async |permits| {
    ///         // The work that needs all slots.
    ///         Ok::<_, Error>(permits.guards().len())
    ///     })
    ///     .await?;
    /// assert_eq!(taken, 12);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn with_permits<T, E: From<Error>>(
        &self,
        slots: u32,
        work: impl AsyncFnOnce(&SemaphorePermits) -> Result<T, E>,
    ) -> Result<T, E> {
        let permits = self.acquire_many(slots).await?;
        hold_all(permits, work).await
    }
}
