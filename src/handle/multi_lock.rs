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

/// A lock on several keys, which acquires all or none.
///
/// Made by [`Client::lock_all`](crate::Client::lock_all). The locks are acquired one after the other, sorted by key,
/// regardless of the given order. All callers that acquire several locks this way use the same order, so they cannot
/// deadlock.
///
/// It has the methods of [`Lock`], for all keys, except `enqueue`: with positions in several queues, a lock that is
/// granted early would be held, unused, until the others are granted.
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

    /// Sets how long [`acquire`](Self::acquire) waits for all of them together. Default: the client's acquire timeout.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets how long the servers keep each lock without a renewal, rounded up to whole seconds. The acquire refuses
    /// less than one second. Default: the client's TTL, or the servers' if the client sets none.
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        self.each(|lock| lock.lease_ttl(ttl))
    }

    /// Sets how the leases are renewed. Default: the [client's policy](crate::ClientBuilder::renew_policy). The next
    /// three methods change parts of it. An invalid policy is refused by the acquire.
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

    /// Sets whether the leases are renewed in the background (they are, by default). Leases that are not renewed are
    /// lost when their TTL is over.
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        self.each(|lock| lock.renew(renew))
    }

    /// Sets the fraction of the TTL after which a lease is renewed: more than 0 and less than 1.
    #[must_use]
    pub fn renew_ratio(self, ratio: f64) -> Self {
        self.each(|lock| lock.renew_ratio(ratio))
    }

    /// Stops renewing each lease that has been held for `max_hold`: it is lost at most a TTL later, even if its holder
    /// still runs.
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

    /// Acquires all locks, waiting for up to the acquire timeout in all. Locks that are granted early are renewed
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`] for the first key that was not granted, and [`ErrorKind::LeaseLost`] if a lock that was
    /// granted early was lost meanwhile. Nothing is held after an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future releases what was acquired.
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

    /// Acquires all locks, waiting until a deadline, which is a [`tokio::time::Instant`] or a [`std::time::Instant`].
    /// Otherwise as [`acquire`](Self::acquire).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). If the deadline has passed already,
    /// [`Unavailable`](crate::ErrorKind::Unavailable), and nothing is sent.
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

    /// Acquires one after the other. Without a deadline, it does not wait for other holders.
    async fn take(&self, until: Option<Instant>) -> Result<MultiLockGuard> {
        let mut held = MultiLockGuard::empty();
        for lock in &self.locks {
            let handle = lock.0.clone().while_holding(!held.is_empty()).kept();
            let lease = async {
                match until {
                    Some(until) => handle.acquire_until(until).await,
                    None => handle.acquire_timeout(Duration::ZERO).acquire().await,
                }
            };
            tokio::select! {
                biased;
                (key, reason) = held.lost() => return Err(lost_meanwhile(&key, reason).passing()),
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
    /// Safe: dropping the future releases what was acquired.
    pub async fn try_acquire(&self) -> Result<Option<MultiLockGuard>> {
        self.all_or_none(async |lock| lock.try_acquire().await).await
    }

    /// Reclaims the locks that an earlier process held under the same [name](crate::Shard::stable_ref), and acquires
    /// those that are free. Returns `None`, and releases what it has acquired, if another holder or this client holds
    /// one of them. See [`Lock::reclaim`].
    ///
    /// # Errors
    ///
    /// As [`Lock::reclaim`].
    ///
    /// # Cancel safety
    ///
    /// Safe: a lease that is granted after the future was dropped is released.
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

    /// Acquires all locks, waiting for up to the acquire timeout in all, runs the work, and releases them, whether the
    /// work succeeds, fails, panics or is dropped. If a lease is lost meanwhile, the work is stopped: its future is
    /// dropped.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire), in which case the work was not run;
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) if a lease was lost before the work was done; the work's own error,
    /// whether or not the releases succeed; and those of [`MultiLockGuard::release`] if the work succeeded: it is not
    /// known then whether the work was protected to its end.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the work and releases the locks.
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
