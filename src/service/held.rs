//! Leases and queue positions, as a client hands them out.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::cell::LeaseCell;
use crate::lease::policy::{RenewPolicy, RenewTerms};
use crate::lease::release::ReleaseAnswer;
use crate::lease::state::{LeaseState, LostReason};
use crate::shard::held::{HeldLease, HeldPosition};
#[cfg(feature = "blocking")]
use crate::take::Take;
use crate::types::{Fence, Key, Kind, Token, Ttl};

/// What a lease or queue position keeps alive until it is dropped: the core of its client, or the state of a mock
/// service.
pub(crate) type Origin = Arc<dyn Any + Send + Sync>;

/// A held lease. The client renews it in the background until it is released, dropped or lost.
///
/// [`LockGuard`](crate::LockGuard) and [`SemaphorePermit`](crate::SemaphorePermit) dereference to it. A lease keeps its
/// client alive. Dropping it, on any thread and inside or outside of a runtime, releases the lease in the background.
///
/// While a fleet changes its list of servers, a client holds a key that [moves](crate::ClientBuilder::previous_servers)
/// on two shards. Its `Lease` then consists of two halves: it is lost as soon as one half is lost, and both halves are
/// released together. Its token is the token of the current shard. It has no [`fence`](Self::fence), but [two
/// fences](Self::transition_fences).
pub struct Lease {
    held: HeldLease,
    /// The half on the previous shard of a key that moves.
    previous: Option<Box<Previous>>,
    // Dropped last, so that the client cannot end before the releases are sent.
    client: Origin,
}

impl Lease {
    pub(crate) fn new(held: HeldLease, client: Origin) -> Self {
        Self {
            held,
            previous: None,
            client,
        }
    }

    /// Applies these renewal terms, from now on, to a lease that was renewed without a limit.
    pub(crate) fn renew_on(&self, terms: RenewTerms) {
        let hold = match terms.never {
            true => Some(Duration::ZERO),
            false => terms.max_hold,
        };
        if let Some(hold) = hold {
            self.held.renew_for(hold);
            self.previous.iter().for_each(|previous| previous.held.renew_for(hold));
        }
    }

    /// Joins this lease with the lease on the previous shard. So far, the client renewed the previous half without a
    /// limit. From now on, both halves have the same renewal terms.
    pub(super) fn joined(mut self, previous: Self, terms: RenewTerms) -> Self {
        let previous = previous.held;
        match terms.max_hold {
            _ if terms.never => previous.renew_for(Duration::ZERO),
            Some(hold) => previous.renew_for(hold),
            None => {}
        }
        // If one half is lost, the client stops renewing the other half, which ends when its TTL is over.
        let first_lost = Arc::<OnceLock<Half>>::default();
        let note = |half| {
            let first_lost = Arc::clone(&first_lost);
            move || {
                first_lost.get_or_init(|| half);
            }
        };
        previous.end_with(&self.held, note(Half::Current));
        self.held.end_with(&previous, note(Half::Previous));
        if previous.cell.was_contended() {
            self.held.cell.note_contended();
        }
        self.previous = Some(Box::new(Previous {
            held: previous,
            first_lost,
        }));
        self
    }

    /// Sends the release at once if it was not sent before. The server's answer comes later. A key that moves has two
    /// answers.
    pub(crate) fn give_back(self) -> (Key, ReleaseAnswer, Option<ReleaseAnswer>) {
        let key = self.held.cell.key.clone();
        let current = self.held.release();
        (key, current, self.previous.map(|previous| previous.held.release()))
    }

    /// Returns the state of the lease, or of both halves if its key moves.
    pub(crate) fn cells(&self) -> impl Iterator<Item = &Arc<LeaseCell>> {
        let previous = self.previous.as_deref().map(|previous| &previous.held);
        [&self.held].into_iter().chain(previous).map(|held| &held.cell)
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
    /// let the resource refuse requests with a smaller number. Returns `None` if the server is not known to issue
    /// fences; servers issue them from release 2.1 on. See [`Fencing`].
    ///
    /// A key that [moves](crate::ClientBuilder::previous_servers) has no fence, because its two servers count
    /// separately, so their numbers cannot be compared. See [`transition_fences`](Self::transition_fences).
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
        match self.previous {
            None => self.held.cell.fence(),
            Some(_) => None,
        }
    }

    /// Returns the fences of both servers of a key that [moves](crate::ClientBuilder::previous_servers). Returns `None`
    /// if the key does not move, or if one of the servers is not known to issue fences.
    ///
    /// Each of the two numbers grows with every grant by its server. The resource that the lock protects must store the
    /// greatest value of each, and refuse a request in which one of them is smaller. Clients of the previous list have
    /// only the number of the previous server, and clients of the current list only that of the current server.
    /// [`guide::sharding`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/sharding/index.html) has the rule
    /// for all these clients.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let one = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let other = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let (old, new) = (one.local_addr().to_string(), other.local_addr().to_string());
    /// use dflockd_client::{Client, stable_hash_shard};
    ///
    /// let client = Client::builder()
    ///     .servers([new])
    ///     .previous_servers([old])
    ///     .previous_sharding_strategy(stable_hash_shard)
    ///     .connect()
    ///     .await?;
    /// let lock = client.lock("orders/42")?;
    /// # lock.acquire().await?.release().await?;
    /// let guard = lock.acquire().await?;
    /// assert_eq!(guard.fence(), None);
    /// if let Some(fences) = guard.transition_fences() {
    ///     println!("refuse less than {} of the one, and less than {} of the other", fences.previous, fences.current);
    /// }
    /// guard.release().await
    /// # }
    /// ```
    #[must_use]
    pub fn transition_fences(&self) -> Option<TransitionFences> {
        Some(TransitionFences {
            previous: self.previous.as_ref()?.held.cell.fence()?,
            current: self.held.cell.fence()?,
        })
    }

    /// Returns the [`fence`](Self::fence), or an error that says what is missing. With
    /// [`Fencing::Required`](crate::Fencing::Required), every lease has a fence.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the server is not known to issue fences, and for a key that
    /// [moves](crate::ClientBuilder::previous_servers).
    pub fn require_fence(&self) -> Result<Fence> {
        if self.previous.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{:?} moves from one shard to another, so that its lease has the fences of two servers, which cannot be compared: \
                     see Lease::transition_fences",
                    self.key()
                ),
            ));
        }
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
        match &self.previous {
            None => self.held.cell.ttl,
            Some(previous) => self.held.cell.ttl.min(previous.held.cell.ttl),
        }
    }

    /// Returns for how long the lease is certainly held if no server answers any more. Zero if it is lost or released.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match self.state() {
            LeaseState::Held | LeaseState::Suspect => {
                let previous = self.previous.as_ref().map(|previous| previous.held.cell.remaining());
                let current = self.held.cell.remaining();
                previous.map_or(current, |previous| previous.min(current))
            }
            LeaseState::Lost(_) | LeaseState::Released => Duration::ZERO,
        }
    }

    /// Returns the time at which the client reports the lease as lost if no server answers any more. When the TTL is
    /// over, the server can grant the key to another holder; the returned time is earlier than that by the [loss
    /// margin](crate::ClientBuilder::loss_margin). Each renewal moves it to a later time. After the lease has expired,
    /// it is the time of the expiry, so a holder that learns of the loss late can compute the rest of the margin.
    ///
    /// A lease can be lost earlier for another [reason](LostReason), and then the server may already have granted the
    /// key to another holder.
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
        let now = Moment::now();
        let end = self.held.cell.ends_at(now);
        match &self.previous {
            None => end,
            Some(previous) => end.min(previous.held.cell.ends_at(now)),
        }
    }

    /// Returns whether the lease is held, as far as the client can know. This reads the clock, so the result is right
    /// even while the runtime is stalled.
    ///
    /// On Linux and Android, the clock includes the time for which the machine was suspended, so the result is right as
    /// soon as the machine wakes. On other systems, the clock may stand still during a suspend. On every system, the
    /// machine can be suspended right after this method has returned `true`. Therefore the protected resource should
    /// check the [`fence`](Self::fence).
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self.state(), LeaseState::Held | LeaseState::Suspect)
    }

    /// Returns the state of the lease, as far as the client can know.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        let state = self.held.cell.state();
        match &self.previous {
            None => state,
            Some(previous) => of_both(state, previous.held.cell.state(), &previous.first_lost),
        }
    }

    /// Returns whether the caller had to wait because another holder had the key.
    #[must_use]
    pub fn was_contended(&self) -> bool {
        self.held.cell.was_contended()
    }

    /// Waits until the lease is lost, and returns the reason. If the TTL runs out, this completes before the server can
    /// grant the key to another client. If the connection is lost, and the server is not known to keep the lease, this
    /// completes at once, but the server may already have granted the key to another client. Use the
    /// [`fence`](Self::fence) to protect against that case.
    ///
    /// The future does not borrow the guard. You can create it any number of times, even after the loss. It never
    /// completes if the lease is released.
    ///
    /// On Linux and Android, the clock includes the time of a suspend, so the future completes within a second after
    /// the machine wakes. For other systems see [`is_held`](Self::is_held).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future changes nothing.
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
        let previous = self
            .previous
            .as_ref()
            .map(|previous| (Arc::clone(&previous.held.cell), Arc::clone(&previous.first_lost)));
        async move {
            match previous {
                None => cell.lost().await,
                Some((previous, first)) => Box::pin(lost_of_both(&cell, &previous, &first)).await,
            }
        }
    }

    /// Returns a token that is cancelled when the lease is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::testing::TestServer;
    ///
    /// let server = TestServer::start().await?;
    /// let client = server.client().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// let token = guard.cancellation_token();
    /// let work = tokio::spawn(token.run_until_cancelled_owned(async {
    ///     // Work that needs the lock, and that would take for ever.
    ///     std::future::pending::<()>().await
    /// }));
    /// server.lose("orders/42")?;
    /// assert_eq!(work.await.ok(), Some(None));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        match &self.previous {
            None => self.held.cell.cancellation_token(),
            Some(previous) => self.held.cell.cancellation_token_with(&previous.held.cell),
        }
    }

    /// Waits until the lease is lost and returns the reason.
    pub(super) async fn wait_until_lost(&self) -> LostReason {
        match &self.previous {
            None => self.held.cell.lost().await,
            Some(previous) => Box::pin(lost_of_both(&self.held.cell, &previous.held.cell, &previous.first_lost)).await,
        }
    }

    /// Returns an error with the reason if the lease is lost.
    pub(crate) fn check(&self) -> Result<()> {
        match self.state() {
            LeaseState::Lost(reason) => Err(self.lost_because(reason)),
            _ => Ok(()),
        }
    }

    pub(super) fn lost_because(&self, reason: LostReason) -> Error {
        Error::new(
            ErrorKind::LeaseLost,
            format!("the lease of {:?} was lost: {reason}", self.key()),
        )
    }

    /// Sends the release at once. A later [`give_back`](Self::give_back) returns its outcome. `waker` wakes the task
    /// that waits for this outcome.
    pub(super) fn begin_release(&mut self, waker: &Waker) {
        self.held.begin_release(Some(waker));
        if let Some(previous) = &mut self.previous {
            previous.held.begin_release(Some(waker));
        }
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
        Self {
            held: self.held.take(),
            previous: self.previous.as_mut().map(|previous| {
                Box::new(Previous {
                    held: previous.held.take(),
                    first_lost: Arc::clone(&previous.first_lost),
                })
            }),
            client: Arc::clone(&self.client),
        }
    }
}

/// Does not show the secret part of the token.
impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.previous {
            None => fmt::Debug::fmt(&*self.held.cell, f),
            Some(previous) => f
                .debug_struct("MovingLease")
                .field("current", &*self.held.cell)
                .field("previous", &*previous.held.cell)
                .finish(),
        }
    }
}

/// Returns the state of a lease that consists of these two halves.
fn of_both(current: LeaseState, previous: LeaseState, first_lost: &OnceLock<Half>) -> LeaseState {
    match (current, previous) {
        (LeaseState::Lost(_), lost @ LeaseState::Lost(_)) if first_lost.get() == Some(&Half::Previous) => lost,
        (lost @ LeaseState::Lost(_), _) | (_, lost @ LeaseState::Lost(_)) => lost,
        (LeaseState::Released, _) | (_, LeaseState::Released) => LeaseState::Released,
        (LeaseState::Suspect, _) | (_, LeaseState::Suspect) => LeaseState::Suspect,
        (LeaseState::Held, LeaseState::Held) => LeaseState::Held,
    }
}

async fn lost_of_both(current: &LeaseCell, previous: &LeaseCell, first_lost: &OnceLock<Half>) -> LostReason {
    let reason = tokio::select! {
        biased;
        reason = current.lost() => reason,
        reason = previous.lost() => reason,
    };
    match of_both(current.state(), previous.state(), first_lost) {
        LeaseState::Lost(first) => first,
        _ => reason,
    }
}

/// The half of a lease on the previous shard of a key that moves.
struct Previous {
    held: HeldLease,
    /// The half that was lost first. The lease is lost for the same reason.
    first_lost: Arc<OnceLock<Half>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Current,
    Previous,
}

/// The fences of a key that [moves](crate::ClientBuilder::previous_servers) from one shard to another. See
/// [`Lease::transition_fences`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TransitionFences {
    /// The fence of the shard that the key moves from. Clients of the previous list have only this fence.
    pub previous: Fence,
    /// The fence of the shard that the key moves to. Clients of the current list have only this fence.
    pub current: Fence,
}

/// The remaining steps after the grant at a queue position, if its key moves.
pub(crate) enum Rest {
    /// The position is at the previous shard. After its grant, the client acquires the current half with these
    /// settings.
    Current {
        ttl: Option<Ttl>,
        policy: Option<RenewPolicy>,
    },
    /// The position is at the current shard. The lease is held on the previous shard. Both halves get these renewal
    /// terms after the grant.
    Previous(Lease, RenewTerms),
}

/// A queue position, as the service returns it. The handles wrap it as [`Ticket`](crate::Ticket).
pub struct QueuePlace {
    held: HeldPosition,
    /// Present if the key moves.
    rest: Option<Box<Rest>>,
    // Dropped last, so that the client cannot end before the position is given up.
    client: Origin,
}

impl QueuePlace {
    pub(crate) fn new(held: HeldPosition, client: Origin) -> Self {
        Self {
            held,
            rest: None,
            client,
        }
    }

    /// Adds the remaining steps after the grant.
    pub(super) fn with_rest(mut self, rest: Rest) -> Self {
        self.rest = Some(Box::new(rest));
        self
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

    pub(crate) fn into_parts(self) -> (HeldPosition, Option<Rest>) {
        (self.held, self.rest.map(|rest| *rest))
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
        Self {
            held: self.held.take(),
            rest: self.rest.take(),
            client: Arc::clone(&self.client),
        }
    }
}
