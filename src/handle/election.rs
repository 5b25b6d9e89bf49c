//! Leader election: who holds the lock leads.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::error::Result;
use crate::handle::guard::LockGuard;
use crate::handle::lock::Lock;
use crate::types::{Fence, Key};

/// One leader at a time among all who campaign on the same lock.
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
/// // What leaders do. Stopped as soon as this is no leader any more.
/// let outcome = leadership.run(async { /* … */ }).await;
/// match outcome {
///     Ok(()) => leadership.resign().await?,
///     Err(lost) => eprintln!("voted out: {lost}"), // campaign again
/// }
/// # Ok(())
/// # }
/// ```
///
/// How soon a leader that has died is replaced is up to its server and the lock's TTL: at once where the server notices
/// that its connection is gone, else when the lease is over. What leaders write should carry their
/// [term](Leadership::term), so that the writes of one that was stalled can be refused: see [`Fence`].
#[derive(Clone, Debug)]
pub struct Election {
    lock: Lock,
}

/// The least time between the beginnings of two attempts.
const ROUND: Duration = Duration::from_millis(250);

impl Election {
    /// The election on a lock, on the lock's terms. Its acquire timeout is how long a candidate keeps its place among
    /// the others before it takes a new one.
    #[must_use]
    pub fn new(lock: Lock) -> Self {
        Self { lock }
    }

    /// What is campaigned for.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.lock.key()
    }

    /// Campaigns until elected, however long that takes: while another candidate leads, and over lost connections, restarts
    /// and full servers.
    ///
    /// # Errors
    ///
    /// What no trying again helps against: errors that are not [retryable](crate::Error::is_retryable).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives the candidacy up, and the office if it was won meanwhile.
    ///
    /// An example is with [`Election`].
    pub async fn campaign(&self) -> Result<Leadership> {
        loop {
            // A little later for some than for others, so that candidates do not come together again and again.
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

    /// Leads if no candidate does; `None` if one does, as a server says.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_acquire`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives the office back if it was won meanwhile.
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

/// The office, for as long as it is held: it is [lost](crate::Lease::lost) as a lock is, and dropping it resigns. It
/// dereferences to its [`LockGuard`], which has all that can be asked.
#[must_use = "a leadership that is dropped resigns at once"]
pub struct Leadership {
    guard: LockGuard,
}

impl Leadership {
    /// The number of this term of office: it grows from each leader to the next. `None` if the server is not known to make
    /// fences: see [`Lease::fence`](crate::Lease::fence). `None` for a key that
    /// [moves](crate::ClientBuilder::previous_servers), too. A client with [`Fencing::Required`](crate::Fencing::Required) elects no leader without.
    #[must_use]
    pub fn term(&self) -> Option<Fence> {
        self.guard.fence()
    }

    /// Steps down, and waits for the server to say that others may lead.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves the resignation on its way.
    ///
    /// An example is with [`Election`].
    pub async fn resign(self) -> Result<()> {
        self.guard.release().await
    }

    /// The guard of the lock.
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
