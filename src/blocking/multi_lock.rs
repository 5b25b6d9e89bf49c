//! Several locks as one, for threads.

use std::fmt;
use std::time::Duration;

use super::process::Ours;
use super::runtime::block_on;
use crate::error::Result;
use crate::handle::multi_lock;
use crate::lease::cell::LostReason;
use crate::lease::policy::RenewPolicy;
use crate::service::Lease;
use crate::types::Key;

/// Locks on several keys, taken all or not at all; see [`crate::MultiLock`].
#[derive(Clone, Debug)]
pub struct MultiLock(Ours<multi_lock::MultiLock>);

impl MultiLock {
    pub(super) fn new(locks: multi_lock::MultiLock) -> Self {
        Self(Ours::new(locks))
    }

    /// As [`crate::MultiLock::acquire_timeout`].
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        Self::new(self.0.into_inner().acquire_timeout(timeout))
    }

    /// As [`crate::MultiLock::lease_ttl`].
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        Self::new(self.0.into_inner().lease_ttl(ttl))
    }

    /// As [`crate::MultiLock::renew_policy`].
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        Self::new(self.0.into_inner().renew_policy(policy))
    }

    /// As [`crate::MultiLock::renew`].
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        Self::new(self.0.into_inner().renew(renew))
    }

    /// As [`crate::MultiLock::renew_ratio`].
    #[must_use]
    pub fn renew_ratio(self, ratio: f64) -> Self {
        Self::new(self.0.into_inner().renew_ratio(ratio))
    }

    /// As [`crate::MultiLock::max_hold`].
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        Self::new(self.0.into_inner().max_hold(max_hold))
    }

    /// The keys, each once, in the order in which they are taken.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.0.keys()
    }

    /// Takes all locks, waiting for up to the acquire timeout in all.
    ///
    /// # Errors
    ///
    /// As [`crate::MultiLock::acquire`], and [`Misuse`](crate::ErrorKind::Misuse) where a thread must not wait.
    pub fn acquire(&self) -> Result<MultiLockGuard> {
        block_on(|| self.0.acquire())?.map(MultiLockGuard::new)
    }

    /// Takes all locks if all are free; `None` if any is not.
    ///
    /// # Errors
    ///
    /// As [`crate::MultiLock::try_acquire`], and [`Misuse`](crate::ErrorKind::Misuse) where a thread must not wait.
    pub fn try_acquire(&self) -> Result<Option<MultiLockGuard>> {
        Ok(block_on(|| self.0.try_acquire())??.map(MultiLockGuard::new))
    }
}

/// Several locks that are held together; see [`crate::MultiLockGuard`].
#[must_use = "a guard that is dropped gives its locks back at once"]
pub struct MultiLockGuard(Ours<multi_lock::MultiLockGuard>);

impl MultiLockGuard {
    fn new(guard: multi_lock::MultiLockGuard) -> Self {
        Self(Ours::new(guard))
    }

    /// The leases of the single locks, in the order of their keys.
    pub fn leases(&self) -> impl ExactSizeIterator<Item = &Lease> {
        self.0.guards().iter().map(|guard| &**guard)
    }

    /// Whether all of them are held, as far as can be known here.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.is_held()
    }

    /// How long all of them are sure to be held if nothing more is heard from any server; zero if one is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.0.remaining()
    }

    /// Waits until one of them is lost, or for `timeout` (`None`: for ever). Its key and the reason, or nothing if all
    /// are still held then.
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) where a thread must not wait.
    pub fn wait_lost(&self, timeout: impl Into<Option<Duration>>) -> Result<Option<(Key, LostReason)>> {
        match timeout.into() {
            Some(limit) => block_on(|| tokio::time::timeout(limit, self.0.lost())).map(|lost| lost.ok()),
            None => block_on(|| self.0.lost()).map(Some),
        }
    }

    /// Gives all of them back, at once, and waits for the servers to say so.
    ///
    /// # Errors
    ///
    /// As [`crate::MultiLockGuard::release`]. With [`Misuse`](crate::ErrorKind::Misuse), too, they are on their way
    /// back.
    pub fn release(self) -> Result<()> {
        block_on(|| self.0.into_inner().release())?
    }
}

impl fmt::Debug for MultiLockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
