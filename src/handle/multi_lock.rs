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

/// Locks on several keys, taken all or not at all.
///
/// Made by [`Client::lock_all`](crate::Client::lock_all). They are taken one after the other in the order of their keys,
/// whatever order they were given in: all callers that take several locks this way take them in the same order, so that
/// none waits in a circle.
///
/// It has the methods of [`Lock`], for all of them, but for one: a place in several queues cannot be taken first and waited at later, since
/// a turn that comes in one of them would be waited with while it does not come in the others.
#[derive(Clone, Debug)]
pub struct MultiLock {
    /// In order, each key once. Never empty.
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

    /// How long [`acquire`](Self::acquire) waits for all of them together; the client's acquire timeout unless it is set here.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// How long the servers keep each lock without a renewal; the servers' default unless it is set here or on the client.
    /// Rounded up to whole seconds; less than one second is refused when they are acquired.
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        self.each(|lock| lock.lease_ttl(ttl))
    }

    /// How the leases are renewed; as the [client](crate::ClientBuilder::renew_policy) says unless it is set here. The next three change
    /// parts of it. What is invalid is refused when they are acquired.
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
    /// // Renewed early, and for an hour at most.
    /// let policy = RenewPolicy::default().ratio(0.3).max_hold(Duration::from_secs(3600));
    /// let accounts = client.lock_all(["accounts/7", "accounts/3"])?.renew_policy(policy);
    /// let guard = accounts.acquire().await?;
    /// # guard.release().await?;
    /// // The same with another bound.
    /// let guard = accounts.clone().max_hold(Duration::from_secs(60)).acquire().await?;
    /// guard.release().await
    /// # }
    /// ```
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        self.each(|lock| lock.renew_policy(policy))
    }

    /// Whether the leases are renewed in the background (they are, by default). Without, they are lost when their TTL is over.
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        self.each(|lock| lock.renew(renew))
    }

    /// Which part of its TTL passes before a lease is renewed, more than 0 and less than 1.
    #[must_use]
    pub fn renew_ratio(self, ratio: f64) -> Self {
        self.each(|lock| lock.renew_ratio(ratio))
    }

    /// Stops renewing each lease once it was held for so long: it is lost at most a TTL later, however alive its holder is.
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        self.each(|lock| lock.max_hold(max_hold))
    }

    fn each(mut self, change: impl Fn(Lock) -> Lock) -> Self {
        self.locks = self.locks.into_iter().map(change).collect();
        self
    }

    /// The keys, each once, in the order in which they are taken.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.locks.iter().map(Lock::key)
    }

    /// Takes all locks, waiting for up to the acquire timeout in all. Those that are taken early are renewed while the others
    /// are waited for.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`] for the first key that could not be had, and [`ErrorKind::LeaseLost`] if one that was
    /// taken early was lost meanwhile. Nothing is held after an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives back what was taken.
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

    /// Takes all locks, waiting until a moment: a [`tokio::time::Instant`], or one of the standard library. As [`acquire`](Self::acquire)
    /// in all else.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). A deadline that has passed already is [`Unavailable`](crate::ErrorKind::Unavailable) at once, and
    /// nothing is sent.
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

    /// Takes one after the other, each of them at once if there is no deadline.
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
        // All of them have one policy.
        if let Some(lock) = self.locks.first() {
            held.renew_on(lock.0.renew_terms()?);
        }
        held.check()
    }

    /// Takes all locks if all are free; `None` if any is not.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_acquire`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives back what was taken.
    pub async fn try_acquire(&self) -> Result<Option<MultiLockGuard>> {
        self.all_or_none(async |lock| lock.try_acquire().await).await
    }

    /// Takes back the locks that a process before this one held under the same [name](crate::Shard::stable_ref), and those of them that are
    /// free; `None` if any is held by another holder, or by this client. See [`Lock::reclaim`]; what was taken back until then is given back.
    ///
    /// # Errors
    ///
    /// As [`Lock::reclaim`].
    ///
    /// # Cancel safety
    ///
    /// Safe: what is granted after the future was dropped is given back.
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

    /// Takes all locks, waiting for up to the acquire timeout in all, runs the work, and releases them, whatever came of the work: it
    /// succeeds, fails, panics or is dropped. If a lease is lost meanwhile, the work is stopped: its future is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire), and then nothing was run; [`LeaseLost`](crate::ErrorKind::LeaseLost) if a lease was lost
    /// before the work was done; the work's own error, whatever comes of the releases; and those of [`MultiLockGuard::release`] if the
    /// work succeeded: whether it was alone to the end is not known then.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the work and gives the locks back.
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
    ///         // From one to the other.
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
