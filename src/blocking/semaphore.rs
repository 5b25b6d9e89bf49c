//! A semaphore, for threads.

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
/// Made by [`Client::semaphore`](super::Client::semaphore); cheap to clone and to keep. Each acquire gives a
/// [`SemaphorePermit`].
#[derive(Clone, Debug)]
pub struct Semaphore(Ours<semaphore::Semaphore>);

impl Semaphore {
    pub(super) fn new(handle: semaphore::Semaphore) -> Self {
        Self(Ours::new(handle))
    }

    /// The handle of the async client, for code that awaits.
    #[must_use]
    pub fn as_async(&self) -> &semaphore::Semaphore {
        &self.0
    }

    /// As [`crate::Semaphore::acquire_timeout`].
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        Self::new(self.0.into_inner().acquire_timeout(timeout))
    }

    /// As [`crate::Semaphore::lease_ttl`].
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        Self::new(self.0.into_inner().lease_ttl(ttl))
    }

    /// As [`crate::Semaphore::renew_policy`].
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        Self::new(self.0.into_inner().renew_policy(policy))
    }

    /// As [`crate::Semaphore::renew`].
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        Self::new(self.0.into_inner().renew(renew))
    }

    /// As [`crate::Semaphore::renew_ratio`].
    #[must_use]
    pub fn renew_ratio(self, ratio: f64) -> Self {
        Self::new(self.0.into_inner().renew_ratio(ratio))
    }

    /// As [`crate::Semaphore::max_hold`].
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        Self::new(self.0.into_inner().max_hold(max_hold))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.0.key()
    }

    /// Acquires a slot, waiting for up to the acquire timeout.
    ///
    /// # Errors
    ///
    /// As [`crate::Semaphore::acquire`], and [`Misuse`](crate::ErrorKind::Misuse) where a thread must not wait.
    pub fn acquire(&self) -> Result<SemaphorePermit> {
        block_on(|| self.0.acquire())?.map(SemaphorePermit::new)
    }

    /// As [`acquire`](Self::acquire), waiting until a moment; see [`crate::Semaphore::acquire_until`].
    ///
    /// # Errors
    ///
    /// As there, and [`Misuse`](crate::ErrorKind::Misuse) where a thread must not wait.
    pub fn acquire_until(&self, deadline: impl Into<Instant>) -> Result<SemaphorePermit> {
        block_on(|| self.0.acquire_until(deadline))?.map(SemaphorePermit::new)
    }

    /// Acquires a slot if it is free; `None` if it is not.
    ///
    /// # Errors
    ///
    /// As [`crate::Semaphore::try_acquire`], and [`Misuse`](crate::ErrorKind::Misuse) where a thread must not wait.
    pub fn try_acquire(&self) -> Result<Option<SemaphorePermit>> {
        Ok(block_on(|| self.0.try_acquire())??.map(SemaphorePermit::new))
    }

    /// Acquires so many slots, waiting for up to the acquire timeout for all of them: all or none.
    ///
    /// # Errors
    ///
    /// As [`crate::Semaphore::acquire_many`], and [`Misuse`](crate::ErrorKind::Misuse) where a thread must not wait.
    pub fn acquire_many(&self, slots: u32) -> Result<SemaphorePermits> {
        block_on(|| self.0.acquire_many(slots))?.map(SemaphorePermits::new)
    }

    /// As [`acquire_many`](Self::acquire_many), waiting until a moment; see [`crate::Semaphore::acquire_many_until`].
    ///
    /// # Errors
    ///
    /// As there, and [`Misuse`](crate::ErrorKind::Misuse) where a thread must not wait.
    pub fn acquire_many_until(&self, slots: u32, deadline: impl Into<Instant>) -> Result<SemaphorePermits> {
        block_on(|| self.0.acquire_many_until(slots, deadline))?.map(SemaphorePermits::new)
    }

    /// Acquires so many slots if they are free; `None` if there are not so many, or if another caller takes several just now.
    ///
    /// # Errors
    ///
    /// As [`crate::Semaphore::try_acquire_many`], and [`Misuse`](crate::ErrorKind::Misuse) where a thread must not wait.
    pub fn try_acquire_many(&self, slots: u32) -> Result<Option<SemaphorePermits>> {
        Ok(block_on(|| self.0.try_acquire_many(slots))??.map(SemaphorePermits::new))
    }

    /// First phase of two: takes a slot if it is free, and a place in its queue if not.
    ///
    /// # Errors
    ///
    /// As [`crate::Semaphore::enqueue`], and [`Misuse`](crate::ErrorKind::Misuse) where a thread must not wait.
    pub fn enqueue(&self) -> Result<Enqueued<crate::SemaphorePermit>> {
        block_on(|| self.0.enqueue())?.map(Enqueued::new)
    }

    /// Acquires a slot, runs the work, and releases the slot, whatever came of the work: it succeeds, fails or panics.
    /// Other than in the async client nothing stops the work if the lease is lost; it should ask the guard now and
    /// then.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire), and then nothing was run; the work's own error, whatever comes of the
    /// release; and those of [`release`](super::Held::release) if the work succeeded: nobody knows then whether it was
    /// alone to the end.
    pub fn with_permit<T, E: From<Error>>(&self, work: impl FnOnce(&SemaphorePermit) -> Result<T, E>) -> Result<T, E> {
        hold(self.acquire()?, work)
    }

    /// [Acquires so many slots](Self::acquire_many), runs the work, and releases them, whatever came of the work: it succeeds, fails
    /// or panics. Other than in the async client nothing stops the work if a lease is lost; it should ask the guard now and then.
    ///
    /// # Errors
    ///
    /// As [`with_permit`](Self::with_permit).
    pub fn with_permits<T, E: From<Error>>(
        &self,
        slots: u32,
        work: impl FnOnce(&SemaphorePermits) -> Result<T, E>,
    ) -> Result<T, E> {
        hold_all(self.acquire_many(slots)?, work)
    }
}
