//! Locks and slots for those who come from the Python client: objects that hold what they acquire.

mod lock;
mod semaphore;

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::guard::Guard;
#[cfg(doc)]
use crate::handle::guard::LockGuard;
#[cfg(doc)]
use crate::handle::lock::Lock;
use crate::handle::terms::Handle;
use crate::handle::ticket::{Enqueued, Ticket};
use crate::service::{Lease, release};
use crate::types::{Fence, Key, Target, Token, Ttl};

pub use lock::DistributedLock;
pub use semaphore::DistributedSemaphore;

/// What came of [`Holder::enqueue`]. A server answers one of these two, so a match may be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnqueueStatus {
    /// It was free: held.
    Acquired,
    /// A server says that it is held. The place in the queue is kept; [`Holder::wait`] waits at it.
    Queued,
}

/// The wire's word for it, which is also the Python client's.
impl fmt::Display for EnqueueStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acquired => "acquired",
            Self::Queued => "queued",
        })
    }
}

/// [`DistributedLock`] or [`DistributedSemaphore`]: holds one lock or slot at most, or one place in its queue.
///
/// Where it differs from the Python client: to acquire or enqueue while something is held already is an error
/// ([`ErrorKind::Misuse`]; the Python client gives up what it holds, so that somebody else may get it in between), and
/// a lease that was lost is told by [`release`](Self::release), too.
///
/// Dropping it gives back what it holds in the background, from any thread, inside a runtime or not.
pub struct Holder<G> {
    held: HeldState<G>,
    // Dropped after `held`, so that what is held is on its way back before the client may end.
    source: ClientSource,
    target: Target,
    key: Key,
}

/// What an object has.
#[derive(Default)]
enum HeldState<G> {
    #[default]
    Nothing,
    Guard(G),
    Place(Ticket<G>),
}

/// Through which client it acquires.
#[derive(Clone)]
enum ClientSource {
    Shared(Handle),
    /// Started at the first use, and ended by `close`.
    Own {
        options: Box<ClientBuilder>,
        started: Option<Handle>,
    },
}

impl<G: Guard> Holder<G> {
    fn with_own_client(target: Target, key: &str, options: ClientBuilder) -> Result<Self> {
        let key = Key::new(key)?;
        let source = ClientSource::Own {
            options: Box::new(options.for_key(&key)?),
            started: None,
        };
        Ok(Self {
            held: HeldState::Nothing,
            source,
            target,
            key,
        })
    }

    fn with_handle(handle: Handle) -> Self {
        Self {
            held: HeldState::Nothing,
            target: handle.target,
            key: handle.key.clone(),
            source: ClientSource::Shared(handle),
        }
    }

    /// Acquires it, waiting for up to the acquire timeout. False if it was not granted in that time because it is held, as a server
    /// said: look at it, nothing is held then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] if this object holds it or has a place in its queue, [`ErrorKind::Connect`] or
    /// [`ErrorKind::Auth`] if a client of its own could not connect, [`ErrorKind::Unavailable`] if no server answered in time, and
    /// all other errors of [`Lock::acquire`] but the timeout. Nothing is held after an error. A lease that was lost is in nobody's way: it is acquired anew.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives up the wait, and gives back what was granted meanwhile.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # use dflockd_client::{Client, DistributedLock};
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let options = Client::builder().servers([server.local_addr().to_string()]);
    /// let mut lock = DistributedLock::with_options("orders/42", options)?;
    /// assert!(lock.acquire().await?);
    /// assert!(lock.is_held() && lock.token().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn acquire(&mut self) -> Result<bool> {
        self.must_have_nothing()?;
        let Some(lease) = self.handle().await?.acquire_in_time().await? else {
            return Ok(false);
        };
        self.held = HeldState::Guard(G::of(lease));
        Ok(true)
    }

    /// As [`acquire`](Self::acquire), waiting until a moment: a [`tokio::time::Instant`], or one of the standard library.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). A deadline that has passed already is [`ErrorKind::Unavailable`] at once, and nothing is sent:
    /// whether it is held is not known.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_until(&mut self, deadline: impl Into<Instant>) -> Result<bool> {
        self.must_have_nothing()?;
        let Some(lease) = self.handle().await?.acquire_in_time_until(deadline.into()).await? else {
            return Ok(false);
        };
        self.held = HeldState::Guard(G::of(lease));
        Ok(true)
    }

    /// First phase of two: takes it if it is free, and a place in its queue if not. Does not wait for other holders;
    /// [`wait`](Self::wait) does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyEnqueued`] if this object has a place already, and else as [`acquire`](Self::acquire);
    /// [`ErrorKind::Timeout`] means that no connection was free for it within the request timeout.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives up the place, and gives back what was granted meanwhile.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # use dflockd_client::{Client, DistributedLock};
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let options = Client::builder().servers([server.local_addr().to_string()]);
    /// let mut lock = DistributedLock::with_options("orders/42", options)?;
    /// if lock.enqueue().await?.to_string() == "queued" {
    ///     // Tell somebody that it will take a while.
    /// }
    /// assert!(lock.wait(Duration::from_secs(30)).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn enqueue(&mut self) -> Result<EnqueueStatus> {
        if let HeldState::Place(_) = self.held {
            return Err(Error::new(
                ErrorKind::AlreadyEnqueued,
                format!(
                    "this object has a place in the queue of {:?} already: wait at it, or release it",
                    self.key
                ),
            ));
        }
        self.must_have_nothing()?;
        let (held, status) = match self.handle().await?.enqueue(G::of).await? {
            Enqueued::Acquired(guard) => (HeldState::Guard(guard), EnqueueStatus::Acquired),
            Enqueued::Queued(ticket) => (HeldState::Place(ticket), EnqueueStatus::Queued),
        };
        self.held = held;
        Ok(status)
    }

    /// Second phase: waits at the place that [`enqueue`](Self::enqueue) took, for up to `timeout` (`None`: the acquire
    /// timeout). True at once if it is held already. False if its turn did not come in time; the place is given up
    /// then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotEnqueued`] without a place, [`ErrorKind::LeaseLost`] if it was held and is lost, and those of
    /// [`Ticket::wait`] but the timeout. The place is gone after an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives up the place, and gives back what was granted meanwhile.
    ///
    /// An example is with [`enqueue`](Self::enqueue).
    pub async fn wait(&mut self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        match &self.held {
            HeldState::Nothing => {
                return Err(Error::new(
                    ErrorKind::NotEnqueued,
                    format!("there is no place in the queue of {:?}: enqueue first", self.key),
                ));
            }
            HeldState::Guard(guard) => return guard.check().map(|()| true),
            HeldState::Place(_) => {}
        }
        let timeout = match timeout.into() {
            Some(timeout) => timeout,
            None => self.handle().await?.wait,
        };
        // Taken out before the wait, so that a wait that is dropped leaves nothing.
        let HeldState::Place(ticket) = std::mem::take(&mut self.held) else {
            return Ok(false);
        };
        match ticket.wait(timeout).await {
            Ok(guard) => {
                self.held = HeldState::Guard(guard);
                Ok(true)
            }
            Err(error) if error.says_that_it_is_held() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives it back and waits for the server to say so. False if nothing was held; a place in the queue is given up.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`]: [`ErrorKind::LeaseLost`] if what was held is lost. Nothing is held after an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves the release on its way.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # use dflockd_client::{Client, DistributedLock};
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let options = Client::builder().servers([server.local_addr().to_string()]);
    /// let mut lock = DistributedLock::with_options("orders/42", options)?;
    /// assert!(lock.acquire().await?);
    /// assert!(lock.release().await?);
    /// assert!(!lock.release().await?, "nothing was held");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn release(&mut self) -> Result<bool> {
        match std::mem::take(&mut self.held) {
            HeldState::Guard(guard) => release(guard.into_lease()).await.map(|()| true),
            // Dropped, and so given up.
            HeldState::Place(_) | HeldState::Nothing => Ok(false),
        }
    }

    /// Gives back what is held, without saying what came of it, and ends the client if it is this object's own. The
    /// next acquire starts another.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves all of it on its way.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # use dflockd_client::{Client, DistributedLock};
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let options = Client::builder().servers([server.local_addr().to_string()]);
    /// let mut lock = DistributedLock::with_options("orders/42", options)?;
    /// assert!(lock.acquire().await?);
    /// lock.close().await;
    /// assert!(server.stats().locks.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&mut self) {
        // What could not be given back in time goes on in the background.
        drop(self.release().await);
        if let ClientSource::Own { started, .. } = &mut self.source {
            if let Some(handle) = started.take() {
                let client = Client::of(handle.core);
                client.shutdown(client.config().request_timeout).await;
            }
        }
    }

    /// What it locks.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What it holds, even if that is lost: all that can be asked of a [`Lease`](crate::Lease) can be asked of this.
    #[must_use]
    pub fn guard(&self) -> Option<&G> {
        match &self.held {
            HeldState::Guard(guard) => Some(guard),
            HeldState::Nothing | HeldState::Place(_) => None,
        }
    }

    /// Whether it is held, as far as can be known here; see [`Lease::is_held`](crate::Lease::is_held).
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.guard().is_some_and(|guard| guard.is_held())
    }

    /// The secret with which the server knows what is held.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.guard().filter(|guard| guard.is_held()).map(|guard| guard.token())
    }

    /// The fence of what is held, if the server is known to make fences; see [`Lease::fence`](crate::Lease::fence).
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.guard().filter(|guard| guard.is_held())?.fence()
    }

    /// The lease of what it holds, even if that is lost: the same as [`guard`](Self::guard), whichever of the two guards that is.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.guard().map(|guard| &**guard)
    }

    /// How long the server keeps what is held after each renewal.
    #[must_use]
    pub fn ttl(&self) -> Option<Ttl> {
        self.guard().filter(|guard| guard.is_held()).map(|guard| guard.ttl())
    }

    /// A guard for as long as some work runs: what this object has stays nothing.
    pub(crate) async fn acquire_guard(&mut self) -> Result<G> {
        self.must_have_nothing()?;
        self.handle().await?.acquire().await.map(G::of)
    }

    fn must_have_nothing(&self) -> Result<()> {
        let has = match &self.held {
            HeldState::Guard(guard) if guard.is_held() => "holds it already: release it first",
            HeldState::Place(_) => "has a place in its queue: wait at it, or release it",
            HeldState::Guard(_) | HeldState::Nothing => return Ok(()),
        };
        Err(Error::new(
            ErrorKind::Misuse,
            format!("{:?} cannot be acquired: this object {has}", self.key),
        ))
    }

    /// Through which it acquires. A client of its own is connected first, so that a server that is not there is an
    /// error at once.
    async fn handle(&mut self) -> Result<&Handle> {
        match &mut self.source {
            ClientSource::Shared(handle) => Ok(handle),
            ClientSource::Own { options, started } => {
                let handle = match started.take() {
                    Some(handle) => handle,
                    None => Handle::new(
                        ClientBuilder::clone(options).connect().await?.core(),
                        self.target,
                        self.key.as_str(),
                    )?,
                };
                Ok(started.insert(handle))
            }
        }
    }
}

#[cfg(feature = "blocking")]
impl<G> crate::take::Take for Holder<G> {
    fn take(&mut self) -> Self {
        Self {
            held: std::mem::take(&mut self.held),
            source: self.source.clone(),
            target: self.target,
            key: self.key.clone(),
        }
    }
}

impl<G: fmt::Debug> fmt::Debug for Holder<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Holder");
        out.field("key", &self.key);
        match &self.held {
            HeldState::Nothing => out.finish_non_exhaustive(),
            HeldState::Guard(guard) => out.field("held", guard).finish_non_exhaustive(),
            HeldState::Place(ticket) => out.field("queued", ticket).finish_non_exhaustive(),
        }
    }
}
