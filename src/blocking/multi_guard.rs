//! A guard for several leases, for threads.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use super::process::Ours;
use super::runtime::block_on;
use crate::error::{Error, Result};
use crate::handle::guard::Guard;
use crate::handle::multi_guard::MultiGuard;
use crate::lease::state::LostReason;
use crate::types::Key;

/// The guard of several locks that are held together; see [`crate::MultiLockGuard`].
pub type MultiLockGuard = HeldMulti<crate::LockGuard>;

/// The guard of several slots of one semaphore that are held together; see [`crate::SemaphorePermits`].
pub type SemaphorePermits = HeldMulti<crate::SemaphorePermit>;

/// [`MultiLockGuard`] or [`SemaphorePermits`]: several leases that are held together. The guard is lost as soon as one
/// of its leases is lost.
///
/// It dereferences to [`MultiGuard`]. Dropping it, on any thread and inside or outside of a runtime, releases all
/// leases in the background.
#[must_use = "a guard that is dropped releases all its leases at once"]
pub struct HeldMulti<G>(Ours<MultiGuard<G>>);

impl<G: Guard> HeldMulti<G> {
    pub(super) fn new(guard: MultiGuard<G>) -> Self {
        Self(Ours::new(guard))
    }

    /// Returns the guard of the async client, for async code.
    pub fn into_async(self) -> MultiGuard<G> {
        self.0.into_inner()
    }

    /// Waits until one of the leases is lost, for at most `timeout` (`None`: without a limit). Returns its key and the
    /// reason, or `None` if all leases are still held after that time.
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn wait_lost(&self, timeout: impl Into<Option<Duration>>) -> Result<Option<(Key, LostReason)>> {
        match timeout.into() {
            Some(limit) => block_on(|| tokio::time::timeout(limit, self.0.lost())).map(|lost| lost.ok()),
            None => block_on(|| self.0.lost()).map(Some),
        }
    }

    /// Releases all leases at once and waits for the servers' confirmations.
    ///
    /// # Errors
    ///
    /// As [`MultiGuard::release`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block: the
    /// releases then continue in the background.
    pub fn release(self) -> Result<()> {
        block_on(|| self.0.into_inner().release())?
    }
}

/// Runs the work, then releases all leases, even if the work failed. If both fail, returns the error of the work.
pub(super) fn hold_all<G: Guard, T, E: From<Error>>(
    guard: HeldMulti<G>,
    work: impl FnOnce(&HeldMulti<G>) -> Result<T, E>,
) -> Result<T, E> {
    let outcome = work(&guard);
    let released = guard.release();
    let output = outcome?;
    released?;
    Ok(output)
}

impl<G> Deref for HeldMulti<G> {
    type Target = MultiGuard<G>;

    fn deref(&self) -> &MultiGuard<G> {
        &self.0
    }
}

impl<G: fmt::Debug> fmt::Debug for HeldMulti<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
