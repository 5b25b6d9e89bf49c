//! The client, for threads.

use std::time::Duration;

use super::events::Events;
use super::lock::Lock;
use super::multi_lock::MultiLock;
use super::process::Ours;
use super::runtime::{block_on, enter};
use super::semaphore::Semaphore;
use super::signal::SignalConn;
use crate::client;
use crate::client::builder::ClientBuilder;
use crate::error::Result;
use crate::net::health::ShardHealth;
use crate::service::SubscribeRequest;
use crate::shard::input::ShutdownReport;
use crate::stats::Stats;

/// The client of one or more dflockd servers; see [`crate::Client`].
///
/// Cloning is cheap, and all clones share their connections. Any thread may use a client.
#[derive(Clone, Debug)]
pub struct Client(Ours<client::Client>);

impl ClientBuilder {
    /// Builds the client as [`build`](Self::build) does, for threads. This needs no runtime.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and [`Misuse`](crate::ErrorKind::Misuse) in a forked child.
    pub fn build_blocking(self) -> Result<Client> {
        enter(|| self.build())?.map(Client::from)
    }

    /// Connects as [`connect`](Self::connect) does, for threads.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block; see
    /// [`blocking`](crate::blocking).
    pub fn connect_blocking(self) -> Result<Client> {
        block_on(|| self.connect())?.map(Client::from)
    }
}

impl Client {
    /// Returns a builder; [`connect_blocking`](ClientBuilder::connect_blocking) creates the client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Creates a client from a URL and waits until every shard is connected; see [`crate::Client::connect`].
    ///
    /// # Errors
    ///
    /// As the method of the async client, and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let runtime = tokio::runtime::Runtime::new()?;
    /// # let server = runtime.block_on(dflockd_client::server::Server::builder().port(0).start())?;
    /// # let url = format!("dflockd://{}", server.local_addr());
    /// let client = dflockd_client::blocking::Client::connect(&url)?;
    /// client.lock("orders/42")?.acquire()?.release()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect(url: &str) -> Result<Self> {
        ClientBuilder::from_url(url)?.connect_blocking()
    }

    /// Returns the async client, for async code. Its tasks run on the background threads, unless this client was
    /// created [from an async client](Self::from): then they run on the runtime of that client.
    #[must_use]
    pub fn as_async(&self) -> &client::Client {
        &self.0
    }

    /// Returns the lock on a key.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::lock`].
    pub fn lock(&self, key: impl AsRef<str>) -> Result<Lock> {
        self.0.lock(key).map(Lock::new)
    }

    /// Returns a lock on several keys, of one shard or of several. An acquire gets all of the keys or none.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::lock_all`].
    pub fn lock_all<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) -> Result<MultiLock> {
        self.0.lock_all(keys).map(MultiLock::new)
    }

    /// Returns the semaphore on a key. Every user of the key must give the same limit.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::semaphore`].
    pub fn semaphore(&self, key: impl AsRef<str>, limit: u32) -> Result<Semaphore> {
        self.0.semaphore(key, limit).map(Semaphore::new)
    }

    /// Returns the statistics of all servers, merged.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::stats`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn stats(&self) -> Result<Stats> {
        block_on(|| self.0.stats())?
    }

    /// Returns the statistics of one shard's server.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::shard_stats`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn shard_stats(&self, shard: usize) -> Result<Stats> {
        block_on(|| self.0.shard_stats(shard))?
    }

    /// Returns the statistics of each shard's server, or the error.
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn all_stats(&self) -> Result<Vec<Result<Stats>>> {
        block_on(|| self.0.all_stats())
    }

    /// Waits until everything that the shards' clusters have committed so far is visible; see
    /// [`crate::Client::barrier`].
    ///
    /// # Errors
    ///
    /// As the method of the async client, and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn barrier(&self) -> Result<()> {
        block_on(|| self.0.barrier())?
    }

    /// Switches a shard with standbys back to its first server; see [`crate::Client::failback`].
    ///
    /// # Errors
    ///
    /// As the method of the async client, and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn failback(&self, shard: usize) -> Result<Duration> {
        block_on(|| self.0.failback(shard))?
    }

    /// Publishes a signal; see [`crate::Client::emit`].
    ///
    /// # Errors
    ///
    /// As the method of the async client, and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn emit(&self, channel: impl AsRef<str>, payload: impl AsRef<str>) -> Result<u64> {
        block_on(|| self.0.emit(channel, payload))?
    }

    /// Subscribes on every shard to the channels that match a pattern; see [`crate::Client::subscribe`].
    ///
    /// # Errors
    ///
    /// As the method of the async client, and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn subscribe(&self, pattern: impl AsRef<str>) -> Result<SignalConn> {
        block_on(|| self.0.subscribe(pattern))?.map(SignalConn::new)
    }

    /// Subscribes as [`subscribe`](Self::subscribe) does, but as a member of a group or with other options.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe), and [`InvalidInput`](crate::ErrorKind::InvalidInput) for invalid options.
    pub fn subscribe_with(&self, request: SubscribeRequest) -> Result<SignalConn> {
        block_on(|| self.0.subscribe_with(request))?.map(SignalConn::new)
    }

    /// Returns the shard of a key; see [`Client::shard_of`](client::Client::shard_of).
    ///
    /// # Errors
    ///
    /// As [`Client::shard_of`](client::Client::shard_of).
    pub fn shard_of(&self, key: impl AsRef<str>) -> Result<usize> {
        self.as_async().shard_of(key)
    }

    /// Returns the shard that a key moves from; see [`Client::previous_shard_of`](client::Client::previous_shard_of).
    ///
    /// # Errors
    ///
    /// As [`Client::shard_of`](client::Client::shard_of).
    pub fn previous_shard_of(&self, key: impl AsRef<str>) -> Result<Option<usize>> {
        self.as_async().previous_shard_of(key)
    }

    /// Returns the health of each shard: whether it is connected, and if not, why.
    #[must_use]
    pub fn health(&self) -> Vec<ShardHealth> {
        self.0.health()
    }

    /// Returns this client's events from now on; see [`crate::Client::events`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let runtime = tokio::runtime::Runtime::new()?;
    /// # let server = runtime.block_on(dflockd_client::server::Server::builder().port(0).start())?;
    /// use dflockd_client::ClientEvent;
    /// use dflockd_client::blocking::Client;
    ///
    /// let client = Client::builder().servers([server.local_addr().to_string()]).build_blocking()?;
    /// let mut events = client.events();
    /// drop(client);
    /// let mut closed = 0;
    /// while let Some(event) = events.next_event()? {
    ///     closed += usize::from(matches!(event, ClientEvent::Closed { .. }));
    /// }
    /// assert_eq!(closed, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> Events {
        Events::new(self.0.events())
    }

    /// Releases all leases and closes the client; see [`crate::Client::shutdown`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn shutdown(&self, timeout: Duration) -> Result<ShutdownReport> {
        block_on(|| self.0.shutdown(timeout))
    }
}

/// Uses the connections of the async client. They depend on the runtime of the async client: after it has ended, every
/// call fails with [`Shutdown`](crate::ErrorKind::Shutdown).
impl From<client::Client> for Client {
    fn from(client: client::Client) -> Self {
        Self(Ours::new(client))
    }
}
