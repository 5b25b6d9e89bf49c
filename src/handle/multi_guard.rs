//! A guard for several leases.

use std::fmt;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::handle::guard::{Guard, LockGuard, SemaphorePermit};
use crate::join::join_all;
use crate::lease::policy::RenewTerms;
use crate::lease::state::{LeaseState, LostReason};
use crate::service::TransitionFences;
use crate::service::log_stopped;
#[cfg(feature = "blocking")]
use crate::take::Take;
use crate::types::{Fence, Key, Ttl};

/// The guard of several locks that are held together: see [`MultiLock`](crate::MultiLock). It has the methods of
/// [`MultiGuard`].
pub type MultiLockGuard = MultiGuard<LockGuard>;

/// The guard of several slots of one semaphore that are held together: see
/// [`Semaphore::acquire_many`](crate::Semaphore::acquire_many). It has the methods of [`MultiGuard`].
pub type SemaphorePermits = MultiGuard<SemaphorePermit>;

/// [`MultiLockGuard`] or [`SemaphorePermits`]: several leases that are held together. The guard is lost as soon as one
/// of its leases is lost.
///
/// It has the methods of a [`Lease`](crate::Lease), applied to all of its leases. Their tokens are available from its
/// [`guards`](Self::guards). Dropping it releases all leases. When one lease is lost, the client keeps the other leases
/// until the guard is released or dropped, because the state that they protect may still be inconsistent.
#[must_use = "a guard that is dropped releases all its leases at once"]
pub struct MultiGuard<G> {
    guards: Vec<G>,
    /// Cancelled when the first lease is lost. Created on first use.
    loss: OnceLock<CancellationToken>,
}

impl<G: Guard> MultiGuard<G> {
    pub(crate) fn empty() -> Self {
        Self {
            guards: Vec::new(),
            loss: OnceLock::new(),
        }
    }

    pub(crate) fn push(&mut self, guard: G) {
        if let Some(token) = self.loss.get() {
            guard.cells().for_each(|cell| cell.cancels_too(token));
        }
        self.guards.push(guard);
    }

    /// Sets the renewal terms of the leases, after all are granted.
    pub(crate) fn renew_on(&self, terms: RenewTerms) {
        self.guards.iter().for_each(|guard| guard.renew_on(terms));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.guards.is_empty()
    }

    /// Returns the guards of the single leases. Guards of locks are in the order of their keys.
    pub fn guards(&self) -> &[G] {
        &self.guards
    }

    /// Splits this guard into the guards of the single leases, which are then independent.
    pub fn into_guards(self) -> Vec<G> {
        self.guards
    }

    /// Returns the keys of the leases: each key of the locks once, or the key of the semaphore once for each slot.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.guards.iter().map(|guard| guard.key())
    }

    /// Returns the fences of the single leases, in their order: see [`Lease::fence`](crate::Lease::fence).
    pub fn fences(&self) -> impl ExactSizeIterator<Item = Option<Fence>> {
        self.guards.iter().map(|guard| guard.fence())
    }

    /// Returns both fences of each lease whose key moves from one shard to another: see
    /// [`Lease::transition_fences`](crate::Lease::transition_fences).
    pub fn transition_fences(&self) -> impl ExactSizeIterator<Item = Option<TransitionFences>> {
        self.guards.iter().map(|guard| guard.transition_fences())
    }

    /// Returns the earliest time at which the client reports one of the leases as lost if no server answers any more:
    /// see [`Lease::held_until`](crate::Lease::held_until).
    #[must_use]
    pub fn held_until(&self) -> Instant {
        let all = self.guards.iter().map(|guard| guard.held_until());
        all.min().unwrap_or_else(Instant::now)
    }

    /// Returns the [`fences`](Self::fences), or an error if one is missing.
    ///
    /// # Errors
    ///
    /// As [`Lease::require_fence`](crate::Lease::require_fence) for the first lease without one.
    pub fn require_fences(&self) -> Result<Vec<Fence>> {
        self.guards.iter().map(|guard| guard.require_fence()).collect()
    }

    /// Returns the shortest of the TTLs.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        let all = self.guards.iter().map(|guard| guard.ttl());
        all.min().unwrap_or(Ttl::DEFAULT)
    }

    /// Returns whether all leases are held, as far as this client knows. See [`Lease::is_held`](crate::Lease::is_held).
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.guards.iter().all(|guard| guard.is_held())
    }

    /// Returns for how long all leases are certainly held if no server answers any more. Zero if one is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let remaining = self.guards.iter().map(|guard| guard.remaining());
        remaining.min().unwrap_or_default()
    }

    /// Returns the common state of the leases: lost if one is lost, otherwise suspect if one is suspect, otherwise
    /// held.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        let mut all = LeaseState::Held;
        for guard in &self.guards {
            match guard.state() {
                LeaseState::Lost(reason) => return LeaseState::Lost(reason),
                LeaseState::Held => {}
                other => all = other,
            }
        }
        all
    }

    /// Returns whether the acquire had to wait for another holder of at least one key.
    #[must_use]
    pub fn was_contended(&self) -> bool {
        self.guards.iter().any(|guard| guard.was_contended())
    }

    /// Waits until one of the leases is lost, and returns its key and the reason. See
    /// [`Lease::lost`](crate::Lease::lost).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future changes nothing.
    pub fn lost(&self) -> impl Future<Output = (Key, LostReason)> + Send + 'static + use<G> {
        let token = self.cancellation_token();
        let cells: Vec<_> = self.guards.iter().flat_map(|guard| guard.cells().cloned()).collect();
        async move {
            token.cancelled().await;
            let lost = cells.iter().find_map(|cell| match cell.state() {
                LeaseState::Lost(reason) => Some((cell.key.clone(), reason)),
                _ => None,
            });
            match lost {
                Some(lost) => lost,
                // Not expected: only a loss cancels this token.
                None => std::future::pending().await,
            }
        }
    }

    /// Returns a token that is cancelled when one of the leases is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::testing::TestServer;
    ///
    /// let server = TestServer::start().await?;
    /// let client = server.client().await?;
    /// let accounts = client.lock_all(["accounts/7", "accounts/3"])?.acquire().await?;
    /// let token = accounts.cancellation_token();
    /// let work = tokio::spawn(token.run_until_cancelled_owned(async {
    ///     // Work that needs both locks and does not end by itself.
    ///     std::future::pending::<()>().await
    /// }));
    /// server.lose("accounts/3")?;
    /// assert_eq!(work.await.ok(), Some(None));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        let token = self.loss.get_or_init(|| {
            let token = CancellationToken::new();
            for guard in &self.guards {
                guard.cells().for_each(|cell| cell.cancels_too(&token));
            }
            token
        });
        // The caller may cancel the returned token. It is a child token, so this does not count as a loss.
        token.child_token()
    }

    /// Runs a future while all leases are held.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if a lease is lost before the future completes. The message names the key, and the
    /// future is dropped.
    ///
    /// # Cancel safety
    ///
    /// As cancel-safe as the given future. The leases stay held.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output> {
        tokio::select! {
            biased;
            (key, reason) = self.lost() => {
                if let Some(guard) = self.guards.first() {
                    log_stopped(guard, &key, reason);
                }
                Err(lost_meanwhile(&key, reason))
            }
            output = future => Ok(output),
        }
    }

    /// Releases all leases at once and waits for the servers' confirmations.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`]. Returns the first error, after the servers have answered all releases.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future does not stop the releases.
    pub async fn release(self) -> Result<()> {
        // All futures run together, so the client sends all releases before it waits for the first answer. A future
        // that is dropped before it has sent its release drops its guard, which releases the lease.
        let releases = self.guards.into_iter().map(Guard::release);
        join_all(releases).await.into_iter().collect()
    }

    /// Returns the guard if all leases are still held. If one was lost while others were acquired, releases all and
    /// returns an error.
    pub(crate) fn check(self) -> Result<Self> {
        let lost = self.guards.iter().find(|guard| !guard.is_held());
        match lost.map(|guard| (guard.key(), guard.state())) {
            // The same call may succeed later.
            Some((key, LeaseState::Lost(reason))) => Err(lost_meanwhile(key, reason).retryable()),
            _ => Ok(self),
        }
    }
}

/// Runs the work while all leases are held, then releases them, even if the work failed. If both fail, returns the
/// error of the work.
pub(crate) async fn hold_all<G: Guard, T, E: From<Error>>(
    guard: MultiGuard<G>,
    work: impl AsyncFnOnce(&MultiGuard<G>) -> Result<T, E>,
) -> Result<T, E> {
    let outcome = guard.run(work(&guard)).await?;
    let released = guard.release().await;
    let output = outcome?;
    released?;
    Ok(output)
}

pub(crate) fn lost_meanwhile(key: &Key, reason: LostReason) -> Error {
    Error::new(ErrorKind::LeaseLost, format!("the lease of {key:?} was lost: {reason}"))
}

#[cfg(feature = "blocking")]
impl<G> Take for MultiGuard<G> {
    fn take(&mut self) -> Self {
        Self {
            guards: std::mem::take(&mut self.guards),
            loss: std::mem::take(&mut self.loss),
        }
    }
}

impl<G: fmt::Debug> fmt::Debug for MultiGuard<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MultiGuard").field(&self.guards).finish()
    }
}
