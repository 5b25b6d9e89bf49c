//! The lock, for threads.

use std::time::Duration;

use tokio::time::Instant;

use super::guard::{LockGuard, hold};
use super::process::Ours;
use super::runtime::block_on;
use super::ticket::Enqueued;
use crate::error::{Error, Result};
use crate::handle::lock;
use crate::lease::policy::RenewPolicy;
use crate::types::Key;

/// A lock on one key; see [`crate::Lock`].
///
/// [`Client::lock`](super::Client::lock) creates it. It is cheap to clone and to keep. Each acquire returns a
/// [`LockGuard`].
#[derive(Clone, Debug)]
pub struct Lock(Ours<lock::Lock>);

impl Lock {
    pub(super) fn new(handle: lock::Lock) -> Self {
        Self(Ours::new(handle))
    }

    /// Returns the handle of the async client, for async code.
    #[must_use]
    pub fn as_async(&self) -> &lock::Lock {
        &self.0
    }

    /// Sets the acquire timeout; see [`crate::Lock::acquire_timeout`].
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        Self::new(self.0.into_inner().acquire_timeout(timeout))
    }

    /// Sets the lease TTL; see [`crate::Lock::lease_ttl`].
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        Self::new(self.0.into_inner().lease_ttl(ttl))
    }

    /// Sets the renewal policy; see [`crate::Lock::renew_policy`].
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        Self::new(self.0.into_inner().renew_policy(policy))
    }

    /// Sets whether leases are renewed; see [`crate::Lock::renew`].
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        Self::new(self.0.into_inner().renew(renew))
    }

    /// Sets the renewal ratio; see [`crate::Lock::renew_ratio`].
    #[must_use]
    pub fn renew_ratio(self, ratio: f64) -> Self {
        Self::new(self.0.into_inner().renew_ratio(ratio))
    }

    /// Sets the maximum hold time; see [`crate::Lock::max_hold`].
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        Self::new(self.0.into_inner().max_hold(max_hold))
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.0.key()
    }

    /// Acquires the lock, waiting for up to the acquire timeout.
    ///
    /// # Errors
    ///
    /// As [`crate::Lock::acquire`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn acquire(&self) -> Result<LockGuard> {
        block_on(|| self.0.acquire())?.map(LockGuard::new)
    }

    /// Acquires the lock, waiting until a deadline; see [`crate::Lock::acquire_until`].
    ///
    /// # Errors
    ///
    /// As [`crate::Lock::acquire_until`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn acquire_until(&self, deadline: impl Into<Instant>) -> Result<LockGuard> {
        block_on(|| self.0.acquire_until(deadline))?.map(LockGuard::new)
    }

    /// Acquires the lock if it is free; returns `None` if it is not.
    ///
    /// # Errors
    ///
    /// As [`crate::Lock::try_acquire`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn try_acquire(&self) -> Result<Option<LockGuard>> {
        Ok(block_on(|| self.0.try_acquire())??.map(LockGuard::new))
    }

    /// Reclaims the lock that an earlier process held under the same [name](crate::Shard::stable_ref); see
    /// [`crate::Lock::reclaim`].
    ///
    /// # Errors
    ///
    /// As [`crate::Lock::reclaim`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn reclaim(&self) -> Result<Option<LockGuard>> {
        Ok(block_on(|| self.0.reclaim())??.map(LockGuard::new))
    }

    /// Starts a two-phase acquire: takes the lock if it is free, and otherwise a queue position.
    ///
    /// # Errors
    ///
    /// As [`crate::Lock::enqueue`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn enqueue(&self) -> Result<Enqueued<crate::LockGuard>> {
        block_on(|| self.0.enqueue())?.map(Enqueued::new)
    }

    /// Acquires the lock, runs the work, and releases the lock, whether the work succeeds, fails or panics. Unlike the
    /// async client, this does not stop the work if the lease is lost. Long work should check
    /// [`is_held`](crate::Lease::is_held) now and then.
    ///
    /// # Errors
    ///
    /// The errors of [`acquire`](Self::acquire): the work did not run. The error of the work, whether or not the
    /// release succeeds. The errors of [`release`](super::Held::release) if the work succeeded: it is not known then
    /// whether the lock protected the work to its end.
    pub fn with_lock<T, E: From<Error>>(&self, work: impl FnOnce(&LockGuard) -> Result<T, E>) -> Result<T, E> {
        hold(self.acquire()?, work)
    }
}
