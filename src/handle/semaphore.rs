//! A semaphore.

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

/// A semaphore on one key: as many holders at once as its limit.
///
/// Made by [`Client::semaphore`](crate::Client::semaphore); cheap to clone and to keep. It holds nothing by itself: each acquire gives a
/// [`SemaphorePermit`] that does. Every user of a key must give the same limit.
///
/// From release 1.14 on, a lock and a semaphore of the same key have nothing to do with each other. Servers before that keep both in one
/// namespace, where a lock is a semaphore of limit 1. There a semaphore of another limit on a key that is in use as a lock, and a lock on
/// a key that is in use as such a semaphore, are refused with [`LimitMismatch`](crate::ErrorKind::LimitMismatch), and a semaphore
/// of limit 1 excludes a lock of the same key. Use different keys for both where such a server may be met.
#[derive(Clone)]
pub struct Semaphore(pub(crate) Handle);

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Semaphore {
    /// How long [`acquire`](Self::acquire) waits; the client's acquire timeout unless it is set here. Kept exactly,
    /// fractions of a second included.
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        Self(self.0.acquire_timeout(timeout))
    }

    /// How long the server keeps a slot without a renewal; the server's default unless it is set here or on the client.
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

    /// Acquires a slot, waiting for up to the acquire timeout. Waiters are served in the order in which they came to
    /// the server.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) if it was not granted in that time and a server had said that it is held,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if no server answered in that time: whether it is held is not known then,
    /// [`Disconnected`](crate::ErrorKind::Disconnected) if the connection was lost after the request was sent,
    /// [`LimitMismatch`](crate::ErrorKind::LimitMismatch) if the key exists with another limit,
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
    /// let guard = client.semaphore("workers", 8)?.acquire().await?;
    /// assert!(guard.is_held());
    /// guard.release().await
    /// # }
    /// ```
    pub async fn acquire(&self) -> Result<SemaphorePermit> {
        self.0.acquire().await.map(SemaphorePermit::new)
    }

    /// Acquires a slot, waiting until a moment: a [`tokio::time::Instant`], or one of the standard library. As [`acquire`](Self::acquire) in
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
    /// let first = client.semaphore("workers", 8)?.acquire_until(deadline).await?;
    /// let second = client.lock("invoices/7")?.acquire_until(deadline).await?;
    /// # second.release().await?;
    /// first.release().await
    /// # }
    /// ```
    pub async fn acquire_until(&self, deadline: impl Into<Instant>) -> Result<SemaphorePermit> {
        self.0.acquire_until(deadline.into()).await.map(SemaphorePermit::new)
    }

    /// Acquires a slot if it is free; `None` if it is not. Does not wait for other holders, only for the server's answer
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

    /// Acquires so many slots, waiting for up to the acquire timeout for all of them: all or none. One guard holds them, and is lost as soon as
    /// one of them is.
    ///
    /// **What is atomic, and what is not.** Servers grant one slot at a time, so these are taken one after the other, up to 16 at once, and
    /// those that were granted already are held and renewed while the rest is waited for, also where [`renew`](Self::renew) is off: others cannot have them meanwhile. If
    /// the rest cannot be had, or one is lost, all are given back. A caller gets all of them, or an error and none.
    ///
    /// **Callers that take several** do not wait for each other's slots in a circle: each first takes its turn, which is a lock on the key
    /// `dflockd-client-many/` with a checksum and the semaphore's key, on the semaphore's shard. It is held until all slots are there, and counts as
    /// one more key of the server's `--max-locks`. So such callers are served in
    /// the order in which they came, whatever numbers they want. Those that take single slots take no turn; they stand in the queue with the rest,
    /// and neither side starves. Other clients that take several slots one by one do not know of turns.
    ///
    /// A caller that holds slots of a key and takes more of it can wait for itself, or for another that does the same: take
    /// all of them at once.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for none, and for more than the limit, before anything is sent; as
    /// [`acquire`](Self::acquire); and [`LeaseLost`](crate::ErrorKind::LeaseLost) if a slot or the turn was lost while the rest was waited
    /// for, which is retryable. Nothing is held after an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives up the waits, and gives back what was granted.
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

    /// As [`acquire_many`](Self::acquire_many), waiting until a moment: a [`tokio::time::Instant`], or one of the standard library.
    ///
    /// # Errors
    ///
    /// As [`acquire_many`](Self::acquire_many). A deadline that has passed already is [`Unavailable`](crate::ErrorKind::Unavailable) at once,
    /// and nothing is sent.
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
    /// // What is left of the two seconds is for the lock.
    /// let report = client.lock("reports/7")?.acquire_until(deadline).await?;
    /// # report.release().await?;
    /// memory.release().await
    /// # }
    /// ```
    pub async fn acquire_many_until(&self, slots: u32, deadline: impl Into<Instant>) -> Result<SemaphorePermits> {
        let taken = many::take(&self.0, slots, Some(deadline.into())).await?;
        taken.or_busy(&self.0.key, slots)
    }

    /// Acquires so many slots if they are free; `None` if there are not so many, or if another caller takes several of them just now. Does
    /// not wait for other holders, only for the server's answers (for up to the request timeout each).
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
    /// // Four are free, and of eight that are asked for none is taken.
    /// assert!(memory.try_acquire_many(8).await?.is_none());
    /// assert!(memory.try_acquire_many(4).await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_acquire_many(&self, slots: u32) -> Result<Option<SemaphorePermits>> {
        Ok(many::take(&self.0, slots, None).await?.all())
    }

    /// First phase of two: takes the slot if it is free, and a place in its queue if not. Does not wait for other holders;
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
    /// let slots = client.semaphore("workers", 1)?;
    /// let guard = match slots.enqueue().await? {
    ///     Enqueued::Acquired(guard) => guard,
    ///     // Tell somebody that it will take a while, and then:
    ///     Enqueued::Queued(ticket) => ticket.wait(Duration::from_secs(30)).await?,
    /// };
    /// guard.release().await
    /// # }
    /// ```
    pub async fn enqueue(&self) -> Result<Enqueued<SemaphorePermit>> {
        self.0.enqueue(SemaphorePermit::new).await
    }

    /// Acquires the slot, waiting for up to the acquire timeout, runs the work, and releases the slot, whatever came of the
    /// work: it succeeds, fails, panics or is dropped. If the lease is lost meanwhile, the work is stopped: its future is
    /// dropped. The server's answer to the release is waited for unless the lease is lost.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire), and then nothing was run; [`LeaseLost`](crate::ErrorKind::LeaseLost) if the
    /// lease was lost before the work was done; the work's own error, whatever comes of the release; and those of
    /// [`SemaphorePermit::release`] if the work succeeded: nobody knows then whether it was alone to the end.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the work and gives the slot back.
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
    ///         // The work that needs it; any error type that `Error` can be turned into will do.
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

    /// [Acquires so many slots](Self::acquire_many), runs the work, and releases them, whatever came of the work: it succeeds, fails,
    /// panics or is dropped. If a lease is lost meanwhile, the work is stopped: its future is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`acquire_many`](Self::acquire_many), and then nothing was run; else as [`with_permit`](Self::with_permit).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the work and gives the slots back.
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
    ///         // The work that needs all of them.
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
