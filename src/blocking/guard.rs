//! Guards, for threads.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::{AbortHandle, spawn_blocking};

use super::process::Ours;
use super::runtime::{allow_in_runtime, block_on, spawn};
use crate::error::{Error, Result};
use crate::handle::guard::Guard;
use crate::lease::state::LostReason;
use crate::service::{Lease, release};
use crate::take::Take;

/// The guard of a held lock; see [`crate::LockGuard`].
pub type LockGuard = Held<crate::LockGuard>;

/// The guard of a held slot of a semaphore; see [`crate::SemaphorePermit`].
pub type SemaphorePermit = Held<crate::SemaphorePermit>;

/// [`LockGuard`] or [`SemaphorePermit`]: the guard of a held lease. The client renews the lease in the background.
///
/// It dereferences to [`Lease`]; [`is_held`](Lease::is_held) answers without waiting. Dropping the guard, on any thread
/// and inside or outside of a runtime, releases the lease in the background, even if the thread panics.
#[must_use = "a guard that is dropped releases its lease at once"]
pub struct Held<G: ?Sized> {
    /// Created when the first callback is added.
    callbacks: OnceLock<Ours<Callbacks>>,
    lease: Ours<Lease>,
    kind: PhantomData<fn() -> Box<G>>,
}

/// The background tasks that wait for the loss and call the callbacks. They end with the guard.
#[derive(Default)]
struct Callbacks(Mutex<Vec<AbortHandle>>);

impl<G: Guard> Held<G> {
    pub(super) fn new(guard: G) -> Self {
        Self {
            callbacks: OnceLock::new(),
            lease: Ours::new(guard.into_lease()),
            kind: PhantomData,
        }
    }

    /// Returns the guard of the async client, for async code.
    pub fn into_async(self) -> G {
        G::of(self.lease.into_inner())
    }

    /// Converts this guard into a trait object, for code that accepts both types of guards.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # let server = runtime.block_on(dflockd_client::server::Server::builder().port(0).start())?;
    /// # use dflockd_client::blocking::Client;
    /// # let client = Client::builder().servers([server.local_addr().to_string()]).connect_blocking()?;
    /// use dflockd_client::Guard;
    /// use dflockd_client::blocking::Held;
    ///
    /// let held: Vec<Held<dyn Guard>> = vec![
    ///     client.lock("orders/42")?.acquire()?.into_dyn(),
    ///     client.semaphore("workers", 8)?.acquire()?.into_dyn(),
    /// ];
    /// held.into_iter().try_for_each(Held::release)?;
    /// # Ok::<_, dflockd_client::Error>(())
    /// ```
    pub fn into_dyn(self) -> Held<dyn Guard> {
        Held {
            callbacks: self.callbacks,
            lease: self.lease,
            kind: PhantomData,
        }
    }
}

impl<G: Guard + ?Sized> Held<G> {
    /// Releases the lease and waits for the server's confirmation. The client sends no further renewal.
    ///
    /// # Errors
    ///
    /// As [`crate::LockGuard::release`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block: the
    /// release then continues in the background.
    pub fn release(self) -> Result<()> {
        block_on(|| {
            drop(self.callbacks);
            release(self.lease.into_inner())
        })?
    }

    /// Waits until the lease is lost, for at most `timeout` (`None`: without a limit). Returns the reason, or `None` if
    /// the lease is still held after that time.
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block; see the [module](super).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # let server = runtime.block_on(dflockd_client::server::Server::builder().port(0).start())?;
    /// # use dflockd_client::blocking::Client;
    /// # let client = Client::builder().servers([server.local_addr().to_string()]).connect_blocking()?;
    /// let guard = client.lock("orders/42")?.acquire()?;
    /// assert_eq!(guard.wait_lost(Duration::from_millis(20))?, None);
    /// # Ok::<_, dflockd_client::Error>(())
    /// ```
    pub fn wait_lost(&self, timeout: impl Into<Option<Duration>>) -> Result<Option<LostReason>> {
        match timeout.into() {
            Some(limit) => block_on(|| tokio::time::timeout(limit, self.lost())).map(|lost| lost.ok()),
            None => block_on(|| self.lost()).map(Some),
        }
    }

    /// Calls `callback` when the lease is lost, or at once if it is lost already. The callback runs on a separate
    /// thread, where blocking calls are allowed. It is not called if this guard is released or dropped before the
    /// loss. It may run after the guard was dropped if the loss came shortly before.
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) in a forked child.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # let server = runtime.block_on(dflockd_client::server::Server::builder().port(0).start())?;
    /// # use dflockd_client::blocking::Client;
    /// # let client = Client::builder().servers([server.local_addr().to_string()]).connect_blocking()?;
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// let guard = client.lock("orders/42")?.acquire()?;
    /// let stop = Arc::new(AtomicBool::new(false));
    /// guard.when_lost({
    ///     let stop = Arc::clone(&stop);
    ///     move |reason| {
    ///         eprintln!("stop: {reason}");
    ///         stop.store(true, Ordering::SeqCst);
    ///     }
    /// })?;
    /// # Ok::<_, dflockd_client::Error>(())
    /// ```
    pub fn when_lost(&self, callback: impl FnOnce(LostReason) + Send + 'static) -> Result<()> {
        let lost = self.lost();
        let waiting = spawn(async move {
            let reason = lost.await;
            // Dropping the handle detaches the task: a callback that has begun continues after the guard is dropped.
            drop(spawn_blocking(move || allow_in_runtime(|| callback(reason))));
        })?;
        let callbacks = self.callbacks.get_or_init(|| Ours::new(Callbacks::default()));
        let mut callbacks = callbacks.0.lock().unwrap_or_else(PoisonError::into_inner);
        callbacks.push(waiting);
        Ok(())
    }
}

/// Runs the work, then releases the lease, even if the work failed. If both fail, returns the error of the work.
pub(super) fn hold<G: Guard, T, E: From<Error>>(
    guard: Held<G>,
    work: impl FnOnce(&Held<G>) -> Result<T, E>,
) -> Result<T, E> {
    let outcome = work(&guard);
    let released = guard.release();
    let output = outcome?;
    released?;
    Ok(output)
}

impl Take for Callbacks {
    fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        let callbacks = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        callbacks.drain(..).for_each(|waiting| waiting.abort());
    }
}

impl<G: ?Sized> Deref for Held<G> {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}

impl<G: ?Sized> fmt::Debug for Held<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.lease, f)
    }
}
