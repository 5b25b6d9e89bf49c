//! The semaphore, for threads.

use std::time::Duration;

use tokio::time::Instant;

use super::guard::{SemaphorePermit, hold};
use super::multi_guard::{SemaphorePermits, hold_all};
use super::process::Ours;
use super::runtime::block_on;
use super::ticket::Enqueued;
use crate::error::{Error, Result};
use crate::handle::semaphore;
use crate::lease::policy::RenewPolicy;
use crate::types::Key;

/// A semaphore on one key; see [`crate::Semaphore`].
///
/// [`Client::semaphore`](super::Client::semaphore) creates it. It is cheap to clone and to keep. Each acquire returns a
/// [`SemaphorePermit`].
#[derive(Clone, Debug)]
pub struct Semaphore(Ours<semaphore::Semaphore>);

impl Semaphore {
    pub(super) fn new(handle: semaphore::Semaphore) -> Self {
        Self(Ours::new(handle))
    }

    /// Returns the handle of the async client, for async code.
    #[must_use]
    pub fn as_async(&self) -> &semaphore::Semaphore {
        &self.0
    }

    /// Sets the acquire timeout; see [`crate::Semaphore::acquire_timeout`].
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        Self::new(self.0.into_inner().acquire_timeout(timeout))
    }

    /// Sets the lease TTL; see [`crate::Semaphore::lease_ttl`].
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        Self::new(self.0.into_inner().lease_ttl(ttl))
    }

    /// Sets the renewal policy; see [`crate::Semaphore::renew_policy`].
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        Self::new(self.0.into_inner().renew_policy(policy))
    }

    /// Sets whether leases are renewed; see [`crate::Semaphore::renew`].
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        Self::new(self.0.into_inner().renew(renew))
    }

    /// Sets the renewal ratio; see [`crate::Semaphore::renew_ratio`].
    #[must_use]
    pub fn renew_ratio(self, ratio: f64) -> Self {
        Self::new(self.0.into_inner().renew_ratio(ratio))
    }

    /// Sets the maximum hold time; see [`crate::Semaphore::max_hold`].
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        Self::new(self.0.into_inner().max_hold(max_hold))
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.0.key()
    }

    /// Acquires a slot, waiting for up to the acquire timeout.
    ///
    /// # Errors
    ///
    /// As [`crate::Semaphore::acquire`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn acquire(&self) -> Result<SemaphorePermit> {
        block_on(|| self.0.acquire())?.map(SemaphorePermit::new)
    }

    /// Acquires a slot, waiting until a deadline; see [`crate::Semaphore::acquire_until`].
    ///
    /// # Errors
    ///
    /// As the method of the async client, and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn acquire_until(&self, deadline: impl Into<Instant>) -> Result<SemaphorePermit> {
        block_on(|| self.0.acquire_until(deadline))?.map(SemaphorePermit::new)
    }

    /// Acquires a slot if one is free; returns `None` if none is.
    ///
    /// # Errors
    ///
    /// As [`crate::Semaphore::try_acquire`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn try_acquire(&self) -> Result<Option<SemaphorePermit>> {
        Ok(block_on(|| self.0.try_acquire())??.map(SemaphorePermit::new))
    }

    /// Acquires `slots` slots, all or none, waiting for up to the acquire timeout in all.
    ///
    /// # Errors
    ///
    /// As [`crate::Semaphore::acquire_many`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not
    /// block.
    pub fn acquire_many(&self, slots: u32) -> Result<SemaphorePermits> {
        block_on(|| self.0.acquire_many(slots))?.map(SemaphorePermits::new)
    }

    /// Acquires `slots` slots, waiting until a deadline; see [`crate::Semaphore::acquire_many_until`].
    ///
    /// # Errors
    ///
    /// As the method of the async client, and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn acquire_many_until(&self, slots: u32, deadline: impl Into<Instant>) -> Result<SemaphorePermits> {
        block_on(|| self.0.acquire_many_until(slots, deadline))?.map(SemaphorePermits::new)
    }

    /// Acquires `slots` slots if that many are free. Returns `None` if fewer are free, or if another caller is
    /// acquiring several slots at that moment.
    ///
    /// # Errors
    ///
    /// As [`crate::Semaphore::try_acquire_many`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not
    /// block.
    pub fn try_acquire_many(&self, slots: u32) -> Result<Option<SemaphorePermits>> {
        Ok(block_on(|| self.0.try_acquire_many(slots))??.map(SemaphorePermits::new))
    }

    /// Starts a two-phase acquire: takes a slot if one is free, and otherwise a queue position.
    ///
    /// # Errors
    ///
    /// As [`crate::Semaphore::enqueue`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn enqueue(&self) -> Result<Enqueued<crate::SemaphorePermit>> {
        block_on(|| self.0.enqueue())?.map(Enqueued::new)
    }

    /// Acquires a slot, runs the work, and releases the slot, whether the work succeeds, fails or panics. Unlike the
    /// async client, this does not stop the work if the lease is lost. Long work should check
    /// [`is_held`](crate::Lease::is_held) now and then.
    ///
    /// # Errors
    ///
    /// The errors of [`acquire`](Self::acquire): the work did not run. The error of the work, whether or not the
    /// release succeeds. The errors of [`release`](super::Held::release) if the work succeeded: it is not known then
    /// whether the slot protected the work to its end.
    pub fn with_permit<T, E: From<Error>>(&self, work: impl FnOnce(&SemaphorePermit) -> Result<T, E>) -> Result<T, E> {
        hold(self.acquire()?, work)
    }

    /// [Acquires `slots` slots](Self::acquire_many), runs the work, and releases the slots, whether the work succeeds,
    /// fails or panics. Unlike the async client, this does not stop the work if a lease is lost. Long work should check
    /// [`is_held`](crate::MultiGuard::is_held) now and then.
    ///
    /// # Errors
    ///
    /// The errors of [`acquire_many`](Self::acquire_many): the work did not run. Otherwise as
    /// [`with_permit`](Self::with_permit).
    pub fn with_permits<T, E: From<Error>>(
        &self,
        slots: u32,
        work: impl FnOnce(&SemaphorePermits) -> Result<T, E>,
    ) -> Result<T, E> {
        hold_all(self.acquire_many(slots)?, work)
    }
}
