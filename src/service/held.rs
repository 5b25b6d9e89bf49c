//! What a client hands out, leases and places in queues, and the way back to the client.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::lease::cell::{LeaseCell, LeaseState, LostReason};
use crate::lease::release::ReleaseAnswer;
use crate::shard::held::{HeldLease, HeldPlace};
#[cfg(feature = "blocking")]
use crate::take::Take;
use crate::types::{Fence, Key, Kind, Token, Ttl};

/// The client that a lease or place came from, which they keep alive. Only the [`stack`](super::stack) knows what it is, since a client's
/// requests carry leases.
pub(crate) type Origin = Arc<dyn Any + Send + Sync>;

/// A lease that is held: renewed in the background until it is released, dropped or lost.
///
/// [`LockGuard`](crate::LockGuard) and [`SemaphorePermit`](crate::SemaphorePermit) dereference to it. It keeps its client alive. Dropping it gives the lease back
/// in the background, from any thread, inside a runtime or not.
pub struct Lease {
    held: HeldLease,
    // Dropped after `held`, so that the release is on its way before the client may end.
    client: Origin,
}

impl Lease {
    pub(crate) fn new(held: HeldLease, client: Origin) -> Self {
        Self { held, client }
    }

    /// Sends the release at once, if that was not done; the server's answer comes later.
    pub(crate) fn give_back(self) -> (Key, ReleaseAnswer) {
        let key = self.held.cell.key.clone();
        (key, self.held.release())
    }

    /// What is known of it.
    pub(crate) fn cell(&self) -> &Arc<LeaseCell> {
        &self.held.cell
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
        self.held.cell.fence()
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
    pub fn ttl(&self) -> Ttl {
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

    /// Returns whether it is held, as far as can be known here. Looks at the clock, so it is right even while the runtime is
    /// stalled.
    ///
    /// On Linux and Android the time for which the machine was suspended counts, so it is right as soon as the machine wakes. On other
    /// systems the clock may stand still in a suspend. On all of them the machine can be suspended right after this has returned `true`:
    /// whatever the lease protects should check the [`fence`](Self::fence).
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
        self.held.cell.was_contended()
    }

    /// Resolves with the reason when the lease is lost: before time lets the server grant it to anybody else. A
    /// connection that is cut is told at once, but what the server did in the moment before nobody can know: that is
    /// what [`fence`](Self::fence) is for.
    ///
    /// The future does not borrow the guard. It can be had any number of times, also after the fact, and never resolves
    /// once the lease was released.
    ///
    /// After a suspend of the machine it resolves within a second of the wake-up on Linux and Android, where the time of the suspend
    /// counts. See [`is_held`](Self::is_held) for other systems.
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

    /// Sends the release at once. It can still be asked how that went, by [`give_back`](Self::give_back): best by the task that `waker`
    /// wakes.
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

/// Without the token.
impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.held.cell, f)
    }
}

/// A place in a queue, as the service hands it out. [`Ticket`](crate::Ticket) is this, for users of the handles.
pub struct QueuePlace {
    held: HeldPlace,
    // Dropped after `held`, so that the place is given up before the client may end.
    client: Origin,
}

impl QueuePlace {
    pub(crate) fn new(held: HeldPlace, client: Origin) -> Self {
        Self { held, client }
    }

    /// What is waited for.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.held.key
    }

    /// Whether it is a lock or a slot of a semaphore.
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
