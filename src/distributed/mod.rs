//! Lock and semaphore objects that keep their lease, as those of the Python client do.

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

/// The result of [`Holder::enqueue`]. A server gives one of these two answers, so this enum is exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnqueueStatus {
    /// The lock or slot was free and is now held.
    Acquired,
    /// A server reported the lock, or all slots, as held. The object has a queue position; [`Holder::wait`] waits for
    /// the grant.
    Queued,
}

/// Shows the word of the wire protocol, which the Python client uses, too.
impl fmt::Display for EnqueueStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acquired => "acquired",
            Self::Queued => "queued",
        })
    }
}

/// [`DistributedLock`] or [`DistributedSemaphore`]: has at most one lock or slot, or one queue position.
///
/// It differs from the Python client in two ways. Acquiring or enqueueing while it holds a lease is an error,
/// [`ErrorKind::Misuse`]; the Python client releases the lease, so another client may get the key in between. And
/// [`release`](Self::release) returns an error if the lease was lost.
///
/// Dropping it releases its lease in the background, on any thread, inside a runtime or not.
pub struct Holder<G> {
    held: HeldState<G>,
    // Dropped after `held`, so that the release is sent before the client may end.
    source: ClientSource,
    target: Target,
    key: Key,
}

/// The lease or queue position of an object.
#[derive(Default)]
enum HeldState<G> {
    #[default]
    Nothing,
    Guard(G),
    Place(Ticket<G>),
}

/// The client of an object.
#[derive(Clone)]
enum ClientSource {
    Shared(Handle),
    /// A client that starts at the first use and ends with `close`.
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

    /// Acquires the lock or slot, waiting for up to the acquire timeout. Returns false, and holds nothing, if there was
    /// no grant in that time and a server had reported the key as held. Do not ignore the result.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] if this object holds a lease already or has a queue position, [`ErrorKind::Connect`] or
    /// [`ErrorKind::Auth`] if the object's own client could not connect, [`ErrorKind::Unavailable`] if no server
    /// answered in time, and all other errors of [`Lock::acquire`] but the timeout. Nothing is held after an error. If
    /// the lease was lost, this acquires a new one.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future ends the wait and releases a lease that is granted meanwhile.
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

    /// Acquires the lock or slot as [`acquire`](Self::acquire) does, waiting until a deadline, which is a
    /// [`tokio::time::Instant`] or a [`std::time::Instant`].
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). If the deadline has passed already, [`ErrorKind::Unavailable`]: nothing is sent,
    /// so it is unknown whether the key is held.
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

    /// Starts a two-phase acquire: takes the lock or slot if it is free, and otherwise a queue position. Does not wait
    /// for other holders; [`wait`](Self::wait) does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyEnqueued`] if this object has a queue position already, and otherwise as
    /// [`acquire`](Self::acquire); [`ErrorKind::Timeout`] means that no connection was free for the request within the
    /// request timeout.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives up the queue position and releases a lease that is granted meanwhile.
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
    ///     // Tell the user that it will take a while.
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
                    "this object has a position in the queue of {:?} already: wait for it or release it",
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

    /// Completes a two-phase acquire: waits for the grant at the queue position from [`enqueue`](Self::enqueue), for up
    /// to `timeout` (`None`: the acquire timeout). Returns true at once if this object holds a lease already. Returns
    /// false if the grant did not come in time; the position is given up then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotEnqueued`] without a queue position, [`ErrorKind::LeaseLost`] if the lease was lost, and those
    /// of [`Ticket::wait`] except the timeout. The position is given up after an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives up the queue position and releases a lease that is granted meanwhile.
    ///
    /// See the example of [`enqueue`](Self::enqueue).
    pub async fn wait(&mut self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        match &self.held {
            HeldState::Nothing => {
                return Err(Error::new(
                    ErrorKind::NotEnqueued,
                    format!(
                        "this object has no position in the queue of {:?}: enqueue first",
                        self.key
                    ),
                ));
            }
            HeldState::Guard(guard) => return guard.check().map(|()| true),
            HeldState::Place(_) => {}
        }
        let timeout = match timeout.into() {
            Some(timeout) => timeout,
            None => self.handle().await?.wait,
        };
        // The ticket is taken out before the wait, so that the object has no queue position if the wait is dropped.
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

    /// Releases the lease and waits for the server's confirmation. Returns false if nothing was held; a queue position
    /// is given up.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`]: [`ErrorKind::LeaseLost`] if the lease was lost. Nothing is held after an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: the release goes on if the future is dropped.
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
            // Dropping the ticket gives up its position.
            HeldState::Place(_) | HeldState::Nothing => Ok(false),
        }
    }

    /// Releases the lease, without reporting errors, and shuts down the client if it belongs to this object. The next
    /// acquire starts a new client.
    ///
    /// # Cancel safety
    ///
    /// Safe: the release and the shutdown go on if the future is dropped.
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
        // A release that was not confirmed in time goes on in the background.
        drop(self.release().await);
        if let ClientSource::Own { started, .. } = &mut self.source {
            if let Some(handle) = started.take() {
                let client = Client::of(handle.core);
                client.shutdown(client.config().request_timeout).await;
            }
        }
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the guard, even if its lease is lost. It has the methods of [`Lease`](crate::Lease).
    #[must_use]
    pub fn guard(&self) -> Option<&G> {
        match &self.held {
            HeldState::Guard(guard) => Some(guard),
            HeldState::Nothing | HeldState::Place(_) => None,
        }
    }

    /// Returns whether this object holds a lease, as far as its client knows; see
    /// [`Lease::is_held`](crate::Lease::is_held).
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.guard().is_some_and(|guard| guard.is_held())
    }

    /// Returns the lease's token, the secret by which the server identifies it.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.guard().filter(|guard| guard.is_held()).map(|guard| guard.token())
    }

    /// Returns the lease's fence, if the server is known to issue fences; see [`Lease::fence`](crate::Lease::fence).
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.guard().filter(|guard| guard.is_held())?.fence()
    }

    /// Returns the lease of the [`guard`](Self::guard), even if it is lost.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.guard().map(|guard| &**guard)
    }

    /// Returns the lease's TTL: how long the server keeps it after each renewal.
    #[must_use]
    pub fn ttl(&self) -> Option<Ttl> {
        self.guard().filter(|guard| guard.is_held()).map(|guard| guard.ttl())
    }

    /// Acquires a guard for a piece of work. The object itself does not hold the lease meanwhile.
    pub(crate) async fn acquire_guard(&mut self) -> Result<G> {
        self.must_have_nothing()?;
        self.handle().await?.acquire().await.map(G::of)
    }

    fn must_have_nothing(&self) -> Result<()> {
        let has = match &self.held {
            HeldState::Guard(guard) if guard.is_held() => "holds it already: release it first",
            HeldState::Place(_) => "has a position in its queue: wait for it or release it",
            HeldState::Guard(_) | HeldState::Nothing => return Ok(()),
        };
        Err(Error::new(
            ErrorKind::Misuse,
            format!("{:?} cannot be acquired: this object {has}", self.key),
        ))
    }

    /// Returns the handle to acquire with. The object's own client is connected first, so that an unreachable server
    /// is an error at once.
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
