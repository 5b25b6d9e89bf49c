//! What a holder has in its hands.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::lease::cell::{LeaseState, LostReason};
use crate::service::{Core, Request, Response, execute};
use crate::shard::input::Lease as ActorLease;
#[cfg(feature = "blocking")]
use crate::take::Take;
use crate::types::{Fence, Key, Kind, Token, Ttl};

/// A lease that is held: renewed in the background until it is released, dropped or lost.
///
/// [`LockGuard`] and [`SemaphorePermit`] dereference to it. It keeps its client alive. Dropping it gives the lease back
/// in the background, from any thread, inside a runtime or not.
pub struct Lease {
    held: ActorLease,
    /// The key was held when it was asked for.
    contended: bool,
    // Dropped after `held`, so that the release is on its way before the client may end.
    core: Arc<Core>,
}

impl Lease {
    pub(crate) fn new(held: ActorLease, contended: bool, core: Arc<Core>) -> Self {
        Self { held, contended, core }
    }

    /// Sends the release at once; the receiver gets the server's answer.
    pub(crate) fn give_back(self) -> (Key, oneshot::Receiver<Result<()>>) {
        let key = self.held.cell.key.clone();
        (key, self.held.release())
    }

    /// What is held.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.held.cell.key
    }

    /// Whether it is a lock or a slot of a semaphore.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.held.cell.kind
    }

    /// The secret with which the server knows this grant.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.held.cell.token
    }

    /// A number that grows with every grant of this key: hand it to whatever the lock protects, and have it refuse what comes
    /// with a smaller one. `None` if the server is not known to make fences, as servers do from release 2.1 on; see [`Fencing`].
    ///
    /// By default the first grant over a new connection may have none. What depends on fences insists on them:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let address = server.local_addr().to_string();
    /// use dflockd_client::{Client, Fencing};
    ///
    /// let client = Client::builder()
    ///     .servers([address])
    ///     .fencing(Fencing::Required)
    ///     .connect()
    ///     .await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// let fence = guard.require_fence()?;
    /// # assert_eq!(guard.fence(), Some(fence));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`Fencing`]: crate::Fencing
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.held.cell.fence
    }

    /// Returns the [`fence`](Self::fence), or an error that says what is missing. With
    /// [`Fencing::Required`](crate::Fencing::Required) every lease has one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the server is not known to make fences.
    pub fn require_fence(&self) -> Result<Fence> {
        self.fence().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the lease of {:?} has no fence, because its server is not known to make fences (servers do from release 2.1 on): \
                     insist on them with ClientBuilder::fencing(Fencing::Required)",
                    self.key()
                ),
            )
        })
    }

    /// How long the server keeps the lease after each renewal.
    #[must_use]
    pub fn lease_ttl(&self) -> Ttl {
        self.held.cell.ttl
    }

    /// How long it is sure to be held if nothing more is heard from the server; zero if it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match self.state() {
            LeaseState::Held | LeaseState::Suspect => self.held.cell.remaining(),
            LeaseState::Lost(_) | LeaseState::Released => Duration::ZERO,
        }
    }

    /// Whether it is held, as far as can be known here. Looks at the clock, so it is right even while the runtime is
    /// stalled.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self.state(), LeaseState::Held | LeaseState::Suspect)
    }

    /// What is known about it.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.held.cell.state()
    }

    /// Whether the key was held when this lease was asked for, so that it had to be waited for.
    #[must_use]
    pub fn was_contended(&self) -> bool {
        self.contended
    }

    /// Resolves with the reason when the lease is lost: before time lets the server grant it to anybody else. A
    /// connection that is cut is told at once, but what the server did in the moment before nobody can know: that is
    /// what [`fence`](Self::fence) is for.
    ///
    /// The future does not borrow the guard. It can be had any number of times, also after the fact, and never resolves
    /// once the lease was released.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping it changes nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// tokio::select! {
    ///     reason = guard.lost() => eprintln!("stop: {reason}"),
    ///     () = async { /* the work that needs the lock */ } => {}
    /// }
    /// guard.release().await
    /// # }
    /// ```
    pub fn lost(&self) -> impl Future<Output = LostReason> + Send + 'static + use<> {
        let cell = Arc::clone(&self.held.cell);
        async move { cell.lost().await }
    }

    /// A token that is cancelled when the lease is lost.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.held.cell.cancellation_token()
    }

    /// Runs a future for as long as the lease is held.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if the lease was lost before the future was done; the future is dropped then.
    ///
    /// # Cancel safety
    ///
    /// As the future's; the lease stays held.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// let answer = guard.run(async { 6 * 7 }).await?;
    /// assert_eq!(answer, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output> {
        tokio::select! {
            biased;
            reason = self.held.cell.lost() => Err(self.lost_because(reason)),
            output = future => Ok(output),
        }
    }

    /// Whether it is held; if not, why it is lost.
    pub(crate) fn check(&self) -> Result<()> {
        match self.state() {
            LeaseState::Lost(reason) => Err(self.lost_because(reason)),
            _ => Ok(()),
        }
    }

    fn lost_because(&self, reason: LostReason) -> Error {
        Error::new(
            ErrorKind::LeaseLost,
            format!("the lease of {:?} was lost: {reason}", self.key()),
        )
    }

    pub(crate) async fn release(mut self) -> Result<()> {
        // First of all: no layer of the user's can hold it up, and a waiter may be waiting for it.
        self.held.begin_release();
        let core = Arc::clone(&self.core);
        match execute(&core, Request::Release(self)).await? {
            Response::Released => Ok(()),
            other => Err(other.out_of_place()),
        }
    }
}

#[cfg(feature = "blocking")]
impl Take for Lease {
    fn take(&mut self) -> Self {
        Self::new(self.held.take(), self.contended, Arc::clone(&self.core))
    }
}

/// Without the token.
impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.held.cell, f)
    }
}

/// A lock that is held. See [`Lease`] for what can be asked of it.
#[derive(Debug)]
#[must_use = "a guard that is dropped gives its lock back at once"]
pub struct LockGuard(Lease);

/// A slot of a semaphore that is held. See [`Lease`] for what can be asked of it.
#[derive(Debug)]
#[must_use = "a permit that is dropped gives its slot back at once"]
pub struct SemaphorePermit(Lease);

/// [`LockGuard`] or [`SemaphorePermit`]: where it does not matter which.
pub trait Guard: sealed::OfLease + Deref<Target = Lease> + fmt::Debug + Send + Sync + 'static {}

impl Guard for LockGuard {}
impl Guard for SemaphorePermit {}

/// What only this crate needs to know of guards, and only its guards can be.
mod sealed {
    use super::{Lease, LockGuard, SemaphorePermit};

    pub trait OfLease: Sized {
        fn of(lease: Lease) -> Self;
        fn into_lease(self) -> Lease;
    }

    impl OfLease for LockGuard {
        fn of(lease: Lease) -> Self {
            Self(lease)
        }

        fn into_lease(self) -> Lease {
            self.0
        }
    }

    impl OfLease for SemaphorePermit {
        fn of(lease: Lease) -> Self {
            Self(lease)
        }

        fn into_lease(self) -> Lease {
            self.0
        }
    }
}

/// Runs the work for as long as its lease is held, then gives the lease back, whatever came of the work. The work's own
/// error goes before one of the release.
pub(crate) async fn hold<G: Guard, T, E: From<Error>>(
    guard: G,
    work: impl AsyncFnOnce(&G) -> Result<T, E>,
) -> Result<T, E> {
    // Lost: dropping the guard gives back what the server may still hold.
    let outcome = guard.run(work(&guard)).await?;
    let released = guard.into_lease().release().await;
    let output = outcome?;
    released?;
    Ok(output)
}

impl LockGuard {
    pub(crate) fn new(lease: Lease) -> Self {
        Self(lease)
    }

    /// Gives the lock back and waits for the server to say so. Once it has, no renewal is sent any more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if the lease was lost before, [`ErrorKind::NotHeld`] if the server says so now,
    /// [`ErrorKind::Unavailable`] if no server answered within the request timeout ([`ErrorKind::Timeout`] if a layer of yours kept
    /// the answer). In the last two cases the release goes on in the background, over reconnects, until it is answered or the TTL is over.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves the release on its way.
    pub async fn release(self) -> Result<()> {
        self.0.release().await
    }
}

impl SemaphorePermit {
    pub(crate) fn new(lease: Lease) -> Self {
        Self(lease)
    }

    /// Gives the slot back and waits for the server to say so. Once it has, no renewal is sent any more.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves the release on its way.
    pub async fn release(self) -> Result<()> {
        self.0.release().await
    }
}

#[cfg(feature = "blocking")]
impl Take for LockGuard {
    fn take(&mut self) -> Self {
        Self(self.0.take())
    }
}

impl Deref for LockGuard {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.0
    }
}

impl Deref for SemaphorePermit {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.0
    }
}
