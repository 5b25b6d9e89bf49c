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

/// Several locks that are held together; see [`crate::MultiLockGuard`].
pub type MultiLockGuard = HeldMulti<crate::LockGuard>;

/// Several slots of one semaphore that are held together; see [`crate::SemaphorePermits`].
pub type SemaphorePermits = HeldMulti<crate::SemaphorePermit>;

/// [`MultiLockGuard`] or [`SemaphorePermits`]: several leases that are held together, lost as soon as one of them is.
///
/// It dereferences to [`MultiGuard`], which tells all that can be asked of it. Dropping it gives all of them back in the background, from any
/// thread, inside a runtime or not.
#[must_use = "a guard that is dropped releases all its leases at once"]
pub struct HeldMulti<G>(Ours<MultiGuard<G>>);

impl<G: Guard> HeldMulti<G> {
    pub(super) fn new(guard: MultiGuard<G>) -> Self {
        Self(Ours::new(guard))
    }

    /// The guard of the async client, for code that awaits.
    pub fn into_async(self) -> MultiGuard<G> {
        self.0.into_inner()
    }

    /// Waits until one of them is lost, or for `timeout` (`None`: for ever). Its key and the reason, or nothing if all
    /// are still held then.
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

    /// Gives all of them back, at once, and waits for the servers to say so.
    ///
    /// # Errors
    ///
    /// As [`MultiGuard::release`]. With [`Misuse`](crate::ErrorKind::Misuse), too, they are on their way back.
    pub fn release(self) -> Result<()> {
        block_on(|| self.0.into_inner().release())?
    }
}

/// Runs the work, then gives all back, whatever came of the work. The work's own error goes before one of the release.
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
