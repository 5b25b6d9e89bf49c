//! What a test sees on its server, and waits for.

use std::time::Duration;

use tokio::time::timeout;

use super::{Serving, TestServer};
use crate::error::{Error, ErrorKind, Result};
use crate::server::Event;
use crate::server::control::ObservedLease;
use crate::stats::Stats;
use crate::types::Key;

/// How long a test waits for what it wants to see on the server, by the clock of its runtime.
const PATIENCE: Duration = Duration::from_secs(30);

impl TestServer {
    /// The leases of a key, as the server knows them, in the order in which they were granted.
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
        // A key that is invalid is not held.
        Key::new(key.as_ref()).map_or_else(|_| Vec::new(), |key| self.control.leases(&key))
    }

    /// Whether the server knows a lease of a key.
    #[must_use]
    pub fn is_held(&self, key: impl AsRef<str>) -> bool {
        !self.leases(key).is_empty()
    }

    /// How many places there are in the queue of a key. Of the callers of one client that wait for a key, as many have one as the client has
    /// [connections for that](ClientBuilder::exclusive_connections_per_key), 16 by default. The place of a caller that was dropped is
    /// kept for a moment for the next.
    #[must_use]
    pub fn waiters(&self, key: impl AsRef<str>) -> usize {
        Key::new(key.as_ref()).map_or(0, |key| self.control.waiters(&key))
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.control.connections()
    }

    /// The state, as `stats` tells it.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match &self.serving {
            Serving::Alone(server) => server.stats(),
            Serving::Cluster(cluster) => cluster.stats(),
        }
    }

    /// What has happened since the start, in order, if the options say [`record_events`](ServerBuilder::record_events).
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        match &self.serving {
            Serving::Alone(server) => server.events(),
            Serving::Cluster(cluster) => cluster.events(),
        }
    }

    /// Waits until at least so many [wait](Self::waiters) for a key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if that has not happened after 30 s of the runtime's clock. With paused time that is as soon as nothing else can
    /// happen.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping it changes nothing.
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
        let what = format!("{waiters} to wait for {key:?}");
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
    /// Safe: dropping it changes nothing.
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
    /// Safe: dropping it changes nothing.
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
                // Registered before the look, so that no change falls between the two.
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
                "waited for {what}, in vain for {} s: it has {leases} holders and {waiters} waiters",
                PATIENCE.as_secs()
            );
            Error::new(ErrorKind::Timeout, message)
        })
    }
}
