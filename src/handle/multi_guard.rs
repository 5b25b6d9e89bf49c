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
use crate::service::tell_stopped;
#[cfg(feature = "blocking")]
use crate::take::Take;
use crate::types::{Fence, Key, Ttl};

/// Several locks that are held together: see [`MultiLock`](crate::MultiLock), and [`MultiGuard`] for what can be asked of it.
pub type MultiLockGuard = MultiGuard<LockGuard>;

/// Several slots of one semaphore that are held together: see [`Semaphore::acquire_many`](crate::Semaphore::acquire_many), and
/// [`MultiGuard`] for what can be asked of it.
pub type SemaphorePermits = MultiGuard<SemaphorePermit>;

/// [`MultiLockGuard`] or [`SemaphorePermits`]: several leases that are held together, lost as soon as one of them is.
///
/// It has what a [`Lease`](crate::Lease) has, for all of them; the tokens, which are secrets, are those of its [`guards`](Self::guards). Dropping it gives all of them back. When one is lost the others are kept
/// until it is released or dropped: what they protect may not be in order yet.
#[must_use = "a guard that is dropped gives back at once all that it holds"]
pub struct MultiGuard<G> {
    guards: Vec<G>,
    /// Cancelled when the first is lost. Made when it is first asked for.
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

    /// All are there: from now on they are renewed on these terms.
    pub(crate) fn renew_on(&self, terms: RenewTerms) {
        self.guards.iter().for_each(|guard| guard.renew_on(terms));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.guards.is_empty()
    }

    /// The guards of the single leases: of locks in the order of their keys.
    pub fn guards(&self) -> &[G] {
        &self.guards
    }

    /// Takes it apart into the guards of the single leases, which are held by themselves from then on.
    pub fn into_guards(self) -> Vec<G> {
        self.guards
    }

    /// What is held: the keys of the locks, each once, or the key of the semaphore once for each slot.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.guards.iter().map(|guard| guard.key())
    }

    /// The fences of the single leases, in their order: see [`Lease::fence`](crate::Lease::fence).
    pub fn fences(&self) -> impl ExactSizeIterator<Item = Option<Fence>> {
        self.guards.iter().map(|guard| guard.fence())
    }

    /// Both fences of each lease whose key moves from one shard to another: see
    /// [`Lease::transition_fences`](crate::Lease::transition_fences).
    pub fn transition_fences(&self) -> impl ExactSizeIterator<Item = Option<TransitionFences>> {
        self.guards.iter().map(|guard| guard.transition_fences())
    }

    /// The moment at which the first of them is reported lost if nothing more is heard from any server: see
    /// [`Lease::held_until`](crate::Lease::held_until).
    #[must_use]
    pub fn held_until(&self) -> Instant {
        let all = self.guards.iter().map(|guard| guard.held_until());
        all.min().unwrap_or_else(Instant::now)
    }

    /// Returns the [`fences`](Self::fences), or an error that says what is missing.
    ///
    /// # Errors
    ///
    /// As [`Lease::require_fence`](crate::Lease::require_fence) for the first lease without one.
    pub fn require_fences(&self) -> Result<Vec<Fence>> {
        self.guards.iter().map(|guard| guard.require_fence()).collect()
    }

    /// How long the servers keep the leases after each renewal: the shortest of them.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        let all = self.guards.iter().map(|guard| guard.ttl());
        all.min().unwrap_or(Ttl::DEFAULT)
    }

    /// Whether all of them are held, as far as can be known here. See [`Lease::is_held`](crate::Lease::is_held).
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.guards.iter().all(|guard| guard.is_held())
    }

    /// How long all of them are sure to be held if nothing more is heard from any server; zero if one is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let remaining = self.guards.iter().map(|guard| guard.remaining());
        remaining.min().unwrap_or_default()
    }

    /// What is known about them: that one is lost, if one is; that one is suspect, if none is lost.
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

    /// Whether any of them was held when it was asked for, so that it had to be waited for.
    #[must_use]
    pub fn was_contended(&self) -> bool {
        self.guards.iter().any(|guard| guard.was_contended())
    }

    /// Resolves with the key and the reason when the first of them is lost. See [`Lease::lost`](crate::Lease::lost), which
    /// it is like in all else.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping it changes nothing.
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
                // Only a loss cancels the token.
                None => std::future::pending().await,
            }
        }
    }

    /// A token that is cancelled when the first of them is lost.
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
    ///     // Work that needs both locks, and that would take for ever.
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
        // One that holds may be cancelled by its user: that is no loss.
        token.child_token()
    }

    /// Runs a future for as long as all of them are held.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`], naming the key, if one was lost before the future was done; the future is dropped then.
    ///
    /// # Cancel safety
    ///
    /// As the future's; the leases stay held.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output> {
        tokio::select! {
            biased;
            (key, reason) = self.lost() => {
                if let Some(guard) = self.guards.first() {
                    tell_stopped(guard, &key, reason);
                }
                Err(lost_meanwhile(&key, reason))
            }
            output = future => Ok(output),
        }
    }

    /// Gives all of them back, at once, and waits for the servers to say so.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`] for the first that failed, after all were sent and answered.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves the releases on their way.
    pub async fn release(self) -> Result<()> {
        // Together, so that all are on their way before the first answer is waited for. What a dropped future has not sent
        // yet is dropped with it, and a guard that is dropped is given back.
        let releases = self.guards.into_iter().map(Guard::release);
        join_all(releases).await.into_iter().collect()
    }

    /// All or nothing: one that was lost while others were taken gives all of them back.
    pub(crate) fn check(self) -> Result<Self> {
        let lost = self.guards.iter().find(|guard| !guard.is_held());
        match lost.map(|guard| (guard.key(), guard.state())) {
            // The same call may well succeed later.
            Some((key, LeaseState::Lost(reason))) => Err(lost_meanwhile(key, reason).passing()),
            _ => Ok(self),
        }
    }
}

/// Runs the work for as long as all are held, then gives all back, whatever came of the work. The work's own error goes before one of
/// the release.
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
