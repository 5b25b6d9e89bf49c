//! What a client hands out, namely leases and queue positions, and their way back to the client.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::cell::{LeaseCell, LeaseState, LostReason};
use crate::lease::release::ReleaseAnswer;
use crate::shard::held::{HeldLease, HeldPlace};
#[cfg(feature = "blocking")]
use crate::take::Take;
use crate::types::{Fence, Key, Kind, Token, Ttl};

/// The client that a lease or queue position came from, and which it keeps alive. Only [`stack`](super::stack) knows
/// the type, because a client's requests carry leases.
pub(crate) type Origin = Arc<dyn Any + Send + Sync>;

/// A held lease. It is renewed in the background until it is released, dropped or lost.
///
/// [`LockGuard`](crate::LockGuard) and [`SemaphorePermit`](crate::SemaphorePermit) dereference to it. A lease keeps its
/// client alive. Dropping it releases the lease in the background, from any thread, inside or outside of a runtime.
pub struct Lease {
    held: HeldLease,
    // Dropped after `held`, so that the release is sent before the client can end.
    client: Origin,
}

impl Lease {
    pub(crate) fn new(held: HeldLease, client: Origin) -> Self {
        Self { held, client }
    }

    /// Sends the release at once, unless it was sent already. The server's answer comes later.
    pub(crate) fn give_back(self) -> (Key, ReleaseAnswer) {
        let key = self.held.cell.key.clone();
        (key, self.held.release())
    }

    /// Returns the state of the lease.
    pub(crate) fn cell(&self) -> &Arc<LeaseCell> {
        &self.held.cell
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.held.cell.key
    }

    /// Returns whether the lease is for a lock or for a slot of a semaphore.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.held.cell.kind
    }

    /// Returns the secret by which the server identifies this grant.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.held.cell.token
    }

    /// Returns a number that grows with every grant of this key. Pass it to the resource that the lock protects, and
    /// let the resource refuse requests with a smaller number. `None` if the server is not known to make fences;
    /// servers do from release 2.1 on. See [`Fencing`].
    ///
    /// By default, the first grant over a new connection may have no fence. Code that depends on fences must require
    /// them:
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
        self.held.cell.fence()
    }

    /// Returns the [`fence`](Self::fence), or an error that says what is missing. With
    /// [`Fencing::Required`](crate::Fencing::Required), every lease has a fence.
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

    /// Returns how long the server keeps the lease after each renewal.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        self.held.cell.ttl
    }

    /// Returns how long the lease is certainly held if nothing more is heard from the server; zero if it is lost or
    /// released.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match self.state() {
            LeaseState::Held | LeaseState::Suspect => self.held.cell.remaining(),
            LeaseState::Lost(_) | LeaseState::Released => Duration::ZERO,
        }
    }

    /// The moment at which it is reported lost if nothing more is heard from the server: before time lets the server grant it to another
    /// holder, by the [loss margin](crate::ClientBuilder::loss_margin). A renewal moves it on. Once the lease has expired it is the moment at
    /// which it did, so that a holder who hears of it late knows how much of the margin is left.
    ///
    /// It tells of time only: a lease can be lost earlier for any other [reason](LostReason), and its server may have granted it to
    /// another holder by then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// use std::time::Duration;
    ///
    /// use dflockd_client::Client;
    /// use dflockd_client::tokio::time::Instant;
    ///
    /// let margin = Duration::from_secs(5);
    /// let client = Client::builder()
    ///     .servers([server.local_addr().to_string()])
    ///     .lease_ttl(Duration::from_secs(20))
    ///     .loss_margin(margin)
    ///     .build()?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// assert!(guard.held_until() <= Instant::now() + Duration::from_secs(15));
    /// let cleaned_up_by = guard.held_until() + margin;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn held_until(&self) -> Instant {
        self.held.cell.ends_at(Moment::now())
    }

    /// Returns whether the lease is held, as far as the client can know. It reads the clock, so it is right even while
    /// the runtime is stalled.
    ///
    /// On Linux and Android, the time for which the machine was suspended counts, so the result is right as soon as the
    /// machine wakes. On other systems, the clock may stand still during a suspend. On every system, the machine can be
    /// suspended right after this returned `true`: the protected resource should check the [`fence`](Self::fence).
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self.state(), LeaseState::Held | LeaseState::Suspect)
    }

    /// Returns what is known about the lease.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.held.cell.state()
    }

    /// Returns whether another holder had the key when this lease was requested, so that the caller had to wait.
    #[must_use]
    pub fn was_contended(&self) -> bool {
        self.held.cell.was_contended()
    }

    /// Waits until the lease is lost, and returns the reason. This happens before enough time has passed for the server
    /// to grant the lease to another client. The loss of a connection is reported at once; but no client can know what
    /// the server did in the moment before. For that case there is the [`fence`](Self::fence).
    ///
    /// The future does not borrow the guard. It can be created any number of times, also after the loss. It never
    /// completes if the lease is released.
    ///
    /// After a suspend of the machine, it completes within a second of the wake-up on Linux and Android, where the
    /// suspended time counts. For other systems see [`is_held`](Self::is_held).
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

    /// Returns a token that is cancelled when the lease is lost.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.held.cell.cancellation_token()
    }

    /// Runs a future for as long as the lease is held.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if the lease was lost before the future completed; the future is dropped in that case.
    ///
    /// # Cancel safety
    ///
    /// As the future's. The lease stays held.
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

    /// Returns an error with the reason if the lease is lost.
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

    /// Sends the release at once. [`give_back`](Self::give_back) still returns its outcome; the task that `waker` wakes
    /// should await it.
    pub(super) fn begin_release(&mut self, waker: &Waker) {
        self.held.begin_release(Some(waker));
    }

    pub(super) fn client(&self) -> Origin {
        Arc::clone(&self.client)
    }

    pub(super) fn client_mut(&mut self) -> &mut Origin {
        &mut self.client
    }
}

#[cfg(feature = "blocking")]
impl Take for Lease {
    fn take(&mut self) -> Self {
        Self::new(self.held.take(), Arc::clone(&self.client))
    }
}

/// Does not show the secret part of the token.
impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.held.cell, f)
    }
}

/// A queue position, as the service hands it out. The handles wrap it as [`Ticket`](crate::Ticket).
pub struct QueuePlace {
    held: HeldPlace,
    // Dropped after `held`, so that the position is given up before the client can end.
    client: Origin,
}

impl QueuePlace {
    pub(crate) fn new(held: HeldPlace, client: Origin) -> Self {
        Self { held, client }
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.held.key
    }

    /// Returns whether the position is for a lock or for a slot of a semaphore.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.held.target.kind()
    }

    pub(super) fn client(&self) -> Origin {
        Arc::clone(&self.client)
    }

    pub(super) fn client_mut(&mut self) -> &mut Origin {
        &mut self.client
    }

    pub(crate) fn into_inner(self) -> HeldPlace {
        self.held
    }
}

impl fmt::Debug for QueuePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueuePlace").field(self.key()).finish()
    }
}

#[cfg(feature = "blocking")]
impl Take for QueuePlace {
    fn take(&mut self) -> Self {
        Self::new(self.held.take(), Arc::clone(&self.client))
    }
}
