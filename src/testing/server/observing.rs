//! Observing the server in a test.

use std::time::Duration;

use tokio::time::timeout;

use super::{Serving, TestServer};
use crate::error::{Error, ErrorKind, Result};
use crate::server::Event;
use crate::server::control::ObservedLease;
use crate::stats::Stats;
use crate::types::Key;

/// How long a test waits for a state of the server, by the runtime's clock.
const PATIENCE: Duration = Duration::from_secs(30);

impl TestServer {
    /// Returns the server's leases of a key, in the order of their grants.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// assert_eq!(server.leases("orders/42")[0].token, *guard.token());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn leases(&self, key: impl AsRef<str>) -> Vec<ObservedLease> {
        // An invalid key is not held.
        Key::new(key.as_ref()).map_or_else(|_| Vec::new(), |key| self.control.leases(&key))
    }

    /// Returns whether the server has a lease of a key.
    #[must_use]
    pub fn is_held(&self, key: impl AsRef<str>) -> bool {
        !self.leases(key).is_empty()
    }

    /// Returns the length of a key's queue. If several callers of one client wait for the key, at most as many of them
    /// are in the queue as the client has [connections for a key](crate::ClientBuilder::exclusive_connections_per_key),
    /// 16 by default. The position of a dropped caller is kept for a moment for the next one.
    #[must_use]
    pub fn waiters(&self, key: impl AsRef<str>) -> usize {
        Key::new(key.as_ref()).map_or(0, |key| self.control.waiters(&key))
    }

    /// Returns the number of open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.control.connections()
    }

    /// Returns the statistics, as `stats` does.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match &self.serving {
            Serving::Alone(server) => server.stats(),
            Serving::Cluster(cluster) => cluster.stats(),
        }
    }

    /// Returns all events since the start, in order, if the options have
    /// [`record_events`](crate::server::ServerBuilder::record_events).
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        match &self.serving {
            Serving::Alone(server) => server.events(),
            Serving::Cluster(cluster) => cluster.events(),
        }
    }

    /// Waits until the queue of a key has at least `waiters` [waiters](Self::waiters).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for an invalid key, and [`ErrorKind::Timeout`] after 30 s of the runtime's clock.
    /// With paused time, these 30 s pass without delay.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future changes nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// let lock = client.lock("orders/42")?;
    /// let waiting = tokio::spawn(async move { lock.acquire().await });
    /// server.wait_for_waiters("orders/42", 1).await?;
    /// guard.release().await?;
    /// let guard = waiting.await.unwrap()?;
    /// # drop(guard);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_for_waiters(&self, key: impl AsRef<str>, waiters: usize) -> Result<()> {
        let key = Key::new(key.as_ref())?;
        let what = format!("{waiters} waiters of {key:?}");
        self.wait_until(&what, &key, || self.control.waiters(&key) >= waiters)
            .await
    }

    /// Waits until a key is held.
    ///
    /// # Errors
    ///
    /// As [`wait_for_waiters`](Self::wait_for_waiters).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future changes nothing.
    pub async fn wait_until_held(&self, key: impl AsRef<str>) -> Result<()> {
        let key = Key::new(key.as_ref())?;
        let what = format!("{key:?} to be held");
        self.wait_until(&what, &key, || !self.control.leases(&key).is_empty())
            .await
    }

    /// Waits until a key is not held.
    ///
    /// # Errors
    ///
    /// As [`wait_for_waiters`](Self::wait_for_waiters).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future changes nothing.
    pub async fn wait_until_free(&self, key: impl AsRef<str>) -> Result<()> {
        let key = Key::new(key.as_ref())?;
        let what = format!("{key:?} to be free");
        self.wait_until(&what, &key, || self.control.leases(&key).is_empty())
            .await
    }

    async fn wait_until(&self, what: &str, key: &Key, is_so: impl Fn() -> bool) -> Result<()> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Registered before the check, so that no change between the check and the wait is missed.
                changed.as_mut().enable();
                if is_so() {
                    return;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, wait).await.map_err(|_| {
            let (leases, waiters) = (self.control.leases(key).len(), self.control.waiters(key));
            let message = format!(
                "waited {} s for {what}: the key has {leases} holders and {waiters} waiters",
                PATIENCE.as_secs()
            );
            Error::new(ErrorKind::Timeout, message)
        })
    }
}
