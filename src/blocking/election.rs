//! Leader election, for threads.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use super::guard::LockGuard;
use super::lock::Lock;
use super::runtime::block_on;
use crate::error::Result;
use crate::handle::election;
use crate::types::{Fence, Key};

/// Elects one leader at a time among all candidates for the same lock; see [`crate::Election`].
///
/// ```
/// # let runtime = tokio::runtime::Runtime::new().unwrap();
/// # let server = runtime.block_on(dflockd_client::server::Server::builder().port(0).start())?;
/// # use dflockd_client::blocking::Client;
/// # let client = Client::builder().servers([server.local_addr().to_string()]).connect_blocking()?;
/// use dflockd_client::blocking::Election;
///
/// let election = Election::new(client.lock("scheduler/leader")?);
/// if let Some(leadership) = election.campaign(None)? {
///     while leadership.is_held() {
///         // A part of the leader's work.
/// #       break;
///     }
///     leadership.resign()?;
/// }
/// # Ok::<_, dflockd_client::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Election {
    lock: Lock,
}

impl Election {
    /// Creates an election on a lock; see [`crate::Election::new`].
    #[must_use]
    pub fn new(lock: Lock) -> Self {
        Self { lock }
    }

    /// Returns the key of the lock.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.lock.key()
    }

    /// Campaigns until elected, for at most `patience` (`None`: without a limit). Returns `None` if the candidate was
    /// not elected in that time.
    ///
    /// # Errors
    ///
    /// As [`crate::Election::campaign`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn campaign(&self, patience: impl Into<Option<Duration>>) -> Result<Option<Leadership>> {
        let election = election::Election::new(self.lock.as_async().clone());
        let leadership = match patience.into() {
            None => Some(block_on(|| election.campaign())??),
            Some(limit) => block_on(|| tokio::time::timeout(limit, election.campaign()))?
                .ok()
                .transpose()?,
        };
        Ok(leadership.map(Leadership::new))
    }

    /// Becomes the leader if no candidate leads. Returns `None` if another candidate leads.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_acquire`].
    pub fn try_campaign(&self) -> Result<Option<Leadership>> {
        Ok(self.lock.try_acquire()?.map(|guard| Leadership { guard }))
    }
}

/// The leadership of an elected candidate; see [`crate::Leadership`]. It dereferences to its [`LockGuard`].
#[must_use = "a leadership that is dropped resigns at once"]
pub struct Leadership {
    guard: LockGuard,
}

impl Leadership {
    fn new(leadership: election::Leadership) -> Self {
        Self {
            guard: LockGuard::new(leadership.into_guard()),
        }
    }

    /// Returns the number of this term, which grows from each leader to the next. Returns `None` if the server is not
    /// known to issue fences (see [`Lease::fence`](crate::Lease::fence)), or if the key
    /// [moves](crate::ClientBuilder::previous_servers) between shards. With
    /// [`Fencing::Required`](crate::Fencing::Required) every leader has a term.
    #[must_use]
    pub fn term(&self) -> Option<Fence> {
        self.guard.fence()
    }

    /// Resigns and waits until the server confirms that others may lead.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`](super::Held::release).
    pub fn resign(self) -> Result<()> {
        self.guard.release()
    }
}

impl Deref for Leadership {
    type Target = LockGuard;

    fn deref(&self) -> &LockGuard {
        &self.guard
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leadership").field(&self.guard).finish()
    }
}
