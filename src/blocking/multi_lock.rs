//! Several locks as one, for threads.

use std::time::Duration;

use tokio::time::Instant;

use super::multi_guard::{MultiLockGuard, hold_all};
use super::process::Ours;
use super::runtime::block_on;
use crate::error::{Error, Result};
use crate::handle::multi_lock;
use crate::lease::policy::RenewPolicy;
use crate::types::Key;

/// A lock on several keys. An acquire gets all of the keys or none; see [`crate::MultiLock`].
#[derive(Clone, Debug)]
pub struct MultiLock(Ours<multi_lock::MultiLock>);

impl MultiLock {
    pub(super) fn new(locks: multi_lock::MultiLock) -> Self {
        Self(Ours::new(locks))
    }

    /// Returns the handle of the async client, for async code.
    #[must_use]
    pub fn as_async(&self) -> &multi_lock::MultiLock {
        &self.0
    }

    /// Sets the acquire timeout; see [`crate::MultiLock::acquire_timeout`].
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        Self::new(self.0.into_inner().acquire_timeout(timeout))
    }

    /// Sets the lease TTL; see [`crate::MultiLock::lease_ttl`].
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        Self::new(self.0.into_inner().lease_ttl(ttl))
    }

    /// Sets the renewal policy; see [`crate::MultiLock::renew_policy`].
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        Self::new(self.0.into_inner().renew_policy(policy))
    }

    /// Sets whether leases are renewed; see [`crate::MultiLock::renew`].
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        Self::new(self.0.into_inner().renew(renew))
    }

    /// Sets the renewal ratio; see [`crate::MultiLock::renew_ratio`].
    #[must_use]
    pub fn renew_ratio(self, ratio: f64) -> Self {
        Self::new(self.0.into_inner().renew_ratio(ratio))
    }

    /// Sets the maximum hold time; see [`crate::MultiLock::max_hold`].
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        Self::new(self.0.into_inner().max_hold(max_hold))
    }

    /// Returns the keys, each once, in the order in which they are acquired.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.0.keys()
    }

    /// Acquires all locks, waiting for up to the acquire timeout in all.
    ///
    /// # Errors
    ///
    /// As [`crate::MultiLock::acquire`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn acquire(&self) -> Result<MultiLockGuard> {
        block_on(|| self.0.acquire())?.map(MultiLockGuard::new)
    }

    /// Acquires all locks, waiting until a deadline; see [`crate::MultiLock::acquire_until`].
    ///
    /// # Errors
    ///
    /// As [`crate::MultiLock::acquire_until`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not
    /// block.
    pub fn acquire_until(&self, deadline: impl Into<Instant>) -> Result<MultiLockGuard> {
        block_on(|| self.0.acquire_until(deadline))?.map(MultiLockGuard::new)
    }

    /// Acquires all locks if all are free; returns `None` if one is not.
    ///
    /// # Errors
    ///
    /// As [`crate::MultiLock::try_acquire`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn try_acquire(&self) -> Result<Option<MultiLockGuard>> {
        Ok(block_on(|| self.0.try_acquire())??.map(MultiLockGuard::new))
    }

    /// Reclaims the locks that an earlier process held under the same [name](crate::Shard::stable_ref); see
    /// [`crate::MultiLock::reclaim`].
    ///
    /// # Errors
    ///
    /// As [`crate::MultiLock::reclaim`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn reclaim(&self) -> Result<Option<MultiLockGuard>> {
        Ok(block_on(|| self.0.reclaim())??.map(MultiLockGuard::new))
    }

    /// Acquires all locks, runs the work, and releases the locks, whether the work succeeds, fails or panics. Unlike
    /// the async client, this does not stop the work if a lease is lost. Long work should check
    /// [`is_held`](crate::MultiGuard::is_held) now and then.
    ///
    /// # Errors
    ///
    /// The errors of [`acquire`](Self::acquire): the work did not run. The error of the work, whether or not the
    /// releases succeed. The errors of [`release`](super::HeldMulti::release) if the work succeeded: it is not known
    /// then whether the locks protected the work to its end.
    pub fn with_locks<T, E: From<Error>>(&self, work: impl FnOnce(&MultiLockGuard) -> Result<T, E>) -> Result<T, E> {
        hold_all(self.acquire()?, work)
    }
}
