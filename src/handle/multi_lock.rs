//! Several locks as one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::after;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::handle::guard::LockGuard;
use crate::handle::lock::Lock;
use crate::handle::multi_guard::{MultiLockGuard, hold_all, lost_meanwhile};
use crate::handle::terms::Handle;
use crate::lease::policy::RenewPolicy;
use crate::service::Core;
use crate::types::{Key, Target};

/// A lock on several keys. An acquire gets all of the keys or none.
///
/// [`Client::lock_all`](crate::Client::lock_all) creates it. An acquire takes the locks one after the other, sorted by
/// key, regardless of the given order. All callers of this type use the same order, so they cannot deadlock.
///
/// It has the methods of [`Lock`], applied to all keys, except `enqueue`. With positions in several queues, a lock that
/// is granted early would be held without use until the other locks are granted.
#[derive(Clone, Debug)]
pub struct MultiLock {
    /// Sorted by key, each key once. Never empty.
    locks: Vec<Lock>,
    acquire_timeout: Duration,
}

impl MultiLock {
    pub(crate) fn new<K: AsRef<str>>(core: &Arc<Core>, keys: impl IntoIterator<Item = K>) -> Result<Self> {
        let mut locks = BTreeMap::new();
        for key in keys {
            let handle = Handle::new(core, Target::Lock, key.as_ref())?;
            locks.insert(handle.key.as_str().to_owned(), Lock(handle));
        }
        if locks.is_empty() {
            return Err(Error::invalid("list of keys", [""; 0], "give at least one"));
        }
        Ok(Self {
            locks: locks.into_values().collect(),
            acquire_timeout: core.config.acquire_timeout,
        })
    }

    /// Sets how long [`acquire`](Self::acquire) waits for all locks together. Default: the client's acquire timeout.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets how long the servers keep each lock without a renewal, rounded up to whole seconds. An acquire fails if the
    /// TTL is below one second. Default: the client's TTL, or the servers' if the client sets none.
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        self.each(|lock| lock.lease_ttl(ttl))
    }

    /// Sets how the leases are renewed. Default: the [client's policy](crate::ClientBuilder::renew_policy).
    /// [`renew`](Self::renew), [`renew_ratio`](Self::renew_ratio) and [`max_hold`](Self::max_hold) change parts of the
    /// policy. An acquire with an invalid policy fails.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// use std::time::Duration;
    ///
    /// use dflockd_client::RenewPolicy;
    ///
    /// // Renews early, and for an hour at most.
    /// let policy = RenewPolicy::default().ratio(0.3).max_hold(Duration::from_secs(3600));
    /// let accounts = client.lock_all(["accounts/7", "accounts/3"])?.renew_policy(policy);
    /// let guard = accounts.acquire().await?;
    /// # guard.release().await?;
    /// // The same with another limit.
    /// let guard = accounts.clone().max_hold(Duration::from_secs(60)).acquire().await?;
    /// guard.release().await
    /// # }
    /// ```
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        self.each(|lock| lock.renew_policy(policy))
    }

    /// Sets whether the client renews the leases in the background. Without renewals, leases are lost when their TTL is
    /// over. Default: true.
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        self.each(|lock| lock.renew(renew))
    }

    /// Sets the fraction of the TTL after which the client renews a lease: more than 0 and less than 1.
    #[must_use]
    pub fn renew_ratio(self, ratio: f64) -> Self {
        self.each(|lock| lock.renew_ratio(ratio))
    }

    /// Sets after which time the client stops renewing a lease. The lease is lost at most a TTL later, even if its
    /// holder still runs.
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        self.each(|lock| lock.max_hold(max_hold))
    }

    fn each(mut self, change: impl Fn(Lock) -> Lock) -> Self {
        self.locks = self.locks.into_iter().map(change).collect();
        self
    }

    /// Returns the keys, each once, in the order in which they are acquired.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.locks.iter().map(Lock::key)
    }

    /// Acquires all locks, waiting for up to the acquire timeout in all. Meanwhile the client renews the locks that are
    /// granted early.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`] for the first key that was not granted, and [`ErrorKind::LeaseLost`] if a lock that was
    /// granted early was lost before the last grant. After an error, the caller holds nothing.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, the client releases the locks that it has acquired.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let accounts = client.lock_all(["accounts/7", "accounts/3"])?.acquire().await?;
    /// assert_eq!(server.stats().locks.len(), 2);
    /// accounts.release().await
    /// # }
    /// ```
    pub async fn acquire(&self) -> Result<MultiLockGuard> {
        match self.acquire_timeout {
            Duration::ZERO => self.take(None).await,
            timeout => self.take(Some(after(Instant::now(), timeout))).await,
        }
    }

    /// Acquires all locks as [`acquire`](Self::acquire) does, waiting until a deadline. The deadline is a
    /// [`tokio::time::Instant`] or a [`std::time::Instant`].
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). [`Unavailable`](crate::ErrorKind::Unavailable) if the deadline has passed
    /// already; the client then sends nothing.
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
    /// let deadline = Instant::now() + Duration::from_secs(2);
    /// let accounts = client.lock_all(["accounts/7", "accounts/3"])?.acquire_until(deadline).await?;
    /// assert!(accounts.is_held());
    /// accounts.release().await
    /// # }
    /// ```
    pub async fn acquire_until(&self, deadline: impl Into<Instant>) -> Result<MultiLockGuard> {
        self.take(Some(deadline.into())).await
    }

    /// Acquires the locks one after the other. Without a deadline, this does not wait for other holders.
    async fn take(&self, until: Option<Instant>) -> Result<MultiLockGuard> {
        let mut held = MultiLockGuard::empty();
        for lock in &self.locks {
            let handle = lock.0.clone().while_holding(!held.is_empty()).renewed_while_held();
            let lease = async {
                match until {
                    Some(until) => handle.acquire_until(until).await,
                    None => handle.acquire_timeout(Duration::ZERO).acquire().await,
                }
            };
            tokio::select! {
                biased;
                (key, reason) = held.lost() => return Err(lost_meanwhile(&key, reason).retryable()),
                lease = lease => held.push(LockGuard::new(lease?)),
            }
        }
        // All locks have the same policy.
        if let Some(lock) = self.locks.first() {
            held.renew_on(lock.0.renew_terms()?);
        }
        held.check()
    }

    /// Acquires all locks if all are free; returns `None` if one is not.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_acquire`].
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, the client releases the locks that it has acquired.
    pub async fn try_acquire(&self) -> Result<Option<MultiLockGuard>> {
        self.all_or_none(async |lock| lock.try_acquire().await).await
    }

    /// Reclaims the locks that an earlier process held under the same [name](crate::Shard::stable_ref), and acquires
    /// the locks that are free. If another holder or this client holds one of the locks, releases the acquired ones and
    /// returns `None`. See [`Lock::reclaim`].
    ///
    /// # Errors
    ///
    /// As [`Lock::reclaim`].
    ///
    /// # Cancel safety
    ///
    /// Safe: the client releases a lease that is granted after the future was dropped.
    pub async fn reclaim(&self) -> Result<Option<MultiLockGuard>> {
        for lock in &self.locks {
            lock.0.require_stable_ref()?;
        }
        self.all_or_none(async |lock| lock.reclaim().await).await
    }

    async fn all_or_none(
        &self,
        take: impl AsyncFn(&Lock) -> Result<Option<LockGuard>>,
    ) -> Result<Option<MultiLockGuard>> {
        let mut held = MultiLockGuard::empty();
        for lock in &self.locks {
            match take(lock).await? {
                Some(guard) => held.push(guard),
                None => return Ok(None),
            }
        }
        held.check().map(Some)
    }

    /// Acquires all locks, waiting for up to the acquire timeout in all, runs the work, and releases the locks. It
    /// releases them whether the work succeeds, fails, panics or is dropped. If a lease is lost while the work runs,
    /// this stops the work by dropping its future.
    ///
    /// # Errors
    ///
    /// The errors of [`acquire`](Self::acquire): the work did not run. [`LeaseLost`](crate::ErrorKind::LeaseLost) if a
    /// lease was lost before the work ended. The error of the work, whether or not the releases succeed. The errors of
    /// [`MultiLockGuard::release`] if the work succeeded: it is not known then whether the locks protected the work to
    /// its end.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the work, and the client releases the locks.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// use dflockd_client::Error;
    ///
    /// let accounts = client.lock_all(["accounts/7", "accounts/3"])?;
    /// let moved = accounts
    ///     .with_locks(async |guard| {
    ///         // Transfer between the two accounts.
    ///         Ok::<_, Error>(guard.keys().len())
    ///     })
    ///     .await?;
    /// assert_eq!(moved, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn with_locks<T, E: From<Error>>(
        &self,
        work: impl AsyncFnOnce(&MultiLockGuard) -> Result<T, E>,
    ) -> Result<T, E> {
        let guard = self.acquire().await?;
        hold_all(guard, work).await
    }
}
