//! Leader election: the holder of the lock is the leader.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::error::Result;
use crate::handle::guard::LockGuard;
use crate::handle::lock::Lock;
use crate::types::{Fence, Key};

/// Elects one leader at a time among all candidates for the same lock.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
/// use dflockd_client::Election;
///
/// let election = Election::new(client.lock("scheduler/leader")?);
/// let leadership = election.campaign().await?;
/// // The leader's work. It is stopped as soon as the leadership is lost.
/// let outcome = leadership.run(async { /* … */ }).await;
/// match outcome {
///     Ok(()) => leadership.resign().await?,
///     Err(lost) => eprintln!("voted out: {lost}"), // campaign again
/// }
/// # Ok(())
/// # }
/// ```
///
/// If a leader dies, the next candidate is elected as soon as the server notices the end of the leader's connection, or
/// at the latest when the leader's lease ends. A leader should attach its [term](Leadership::term) to each write, so
/// that the resource can reject writes of a former leader that was stalled: see [`Fence`].
#[derive(Clone, Debug)]
pub struct Election {
    lock: Lock,
}

/// The minimum time between the starts of two attempts.
const ROUND: Duration = Duration::from_millis(250);

impl Election {
    /// Creates an election on a lock, with the lock's settings. A candidate keeps a queue position for at most the
    /// lock's acquire timeout, and then joins the queue again at its end.
    #[must_use]
    pub fn new(lock: Lock) -> Self {
        Self { lock }
    }

    /// Returns the key of the lock.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.lock.key()
    }

    /// Campaigns until elected, without a time limit. It waits while another candidate leads, and continues after lost
    /// connections, restarts and full servers.
    ///
    /// # Errors
    ///
    /// Errors that are not [retryable](crate::Error::is_retryable).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future ends the candidacy; if the candidate is elected meanwhile, it resigns.
    ///
    /// See [`Election`] for an example.
    pub async fn campaign(&self) -> Result<Leadership> {
        loop {
            // The delay is random, so that candidates do not keep retrying at the same moment.
            let next = Instant::now() + ROUND.mul_f64(1.0 + fastrand::f64());
            match self.lock.acquire().await {
                Ok(guard) => return Ok(Leadership { guard }),
                Err(error) if error.is_retryable() => {
                    let client = self.lock.0.core.config.name.as_deref();
                    tracing::debug!(client, key = %self.key(), %error, "not elected yet");
                    sleep_until(next).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Becomes the leader if no candidate leads. Returns `None` if a server reports that another candidate leads.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_acquire`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future ends the attempt; if the candidate is elected meanwhile, it resigns.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// # use dflockd_client::Election;
    /// let election = Election::new(client.lock("scheduler/leader")?);
    /// let leads = election.try_campaign().await?;
    /// assert!(leads.is_some() && election.try_campaign().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_campaign(&self) -> Result<Option<Leadership>> {
        Ok(self.lock.try_acquire().await?.map(|guard| Leadership { guard }))
    }
}

/// The leadership of an elected candidate. It can be [lost](crate::Lease::lost), like a lock. Dropping it resigns. It
/// dereferences to its [`LockGuard`].
#[must_use = "a leadership that is dropped resigns at once"]
pub struct Leadership {
    guard: LockGuard,
}

impl Leadership {
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
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future does not stop the resignation.
    ///
    /// See [`Election`] for an example.
    pub async fn resign(self) -> Result<()> {
        self.guard.release().await
    }

    /// Returns the guard of the lock.
    pub fn into_guard(self) -> LockGuard {
        self.guard
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
