//! The client.

pub(crate) mod builder;
mod health_watch;
mod weak;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::Service;

use self::builder::ClientBuilder;
pub use self::health_watch::HealthWatch;
pub use self::weak::WeakClient;
use crate::clock::after;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::handle::lock::Lock;
use crate::handle::multi_lock::MultiLock;
use crate::handle::semaphore::Semaphore;
use crate::handle::terms::Handle;
use crate::join::join_all;
use crate::net::health::{ConnectionState, ShardHealth};
use crate::protocol::{Channel, Pattern, Payload};
use crate::service::{ClientStack, Core, Request, Response, SubscribeRequest, execute, for_client};
use crate::shard::input::ShutdownReport;
use crate::signal::SignalConn;
use crate::stats::Stats;
use crate::types::{Key, Limit, Target};

/// The client of one or more dflockd servers.
///
/// Cloning is cheap, and all clones share their connections. The client is a [`tower::Service`], but the handles that
/// [`lock`](Self::lock) and [`semaphore`](Self::semaphore) return do not require you to know tower.
///
/// The client lives as long as any of its clones, handles and leases. When the last of these is dropped, the client
/// sends pending releases and closes the connections.
#[derive(Clone)]
pub struct Client {
    service: ClientStack,
    // Dropped after the service, which points to it weakly.
    core: Arc<Core>,
}

impl Client {
    /// Returns a builder.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Creates a client from a URL, such as `dflockd://secret@a:6388,b:6388/?acquire_timeout=3s`, and waits until every
    /// shard is connected. See [`ClientOptions`](crate::ClientOptions).
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::from_url`] and [`ClientBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future closes the connections.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let url = format!("dflockd://{}", server.local_addr());
    /// let client = dflockd_client::Client::connect(&url).await?;
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub async fn connect(url: &str) -> Result<Self> {
        ClientBuilder::from_url(url)?.connect().await
    }

    pub(crate) fn of(core: Arc<Core>) -> Self {
        Self {
            service: for_client(&core),
            core,
        }
    }

    /// Returns a reference that does not keep the client alive, for objects that the client itself owns, such as a
    /// callback.
    #[must_use]
    pub fn downgrade(&self) -> WeakClient {
        WeakClient::of(self)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn config(&self) -> &Config {
        &self.core().config
    }

    /// Returns the lock on a key.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key is invalid; see [`Key::new`](crate::Key::new).
    pub fn lock(&self, key: impl AsRef<str>) -> Result<Lock> {
        Handle::new(&self.core, Target::Lock, key.as_ref()).map(Lock)
    }

    /// Returns a lock on several keys, of one shard or of several. An acquire gets all of the keys or none. Repeated
    /// keys count once.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if one of the keys is invalid (see
    /// [`Key::new`](crate::Key::new)), or the list is empty.
    pub fn lock_all<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) -> Result<MultiLock> {
        MultiLock::new(&self.core, keys)
    }

    /// Returns the semaphore on a key. Every user of the key must give the same limit.
    ///
    /// Servers before release 1.14 keep locks and semaphores in one namespace, where a lock is a semaphore of limit 1.
    /// With such servers, use different keys for locks and semaphores. See [`Semaphore`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key is invalid (see [`Key::new`](crate::Key::new)), or
    /// the limit is 0.
    pub fn semaphore(&self, key: impl AsRef<str>, limit: u32) -> Result<Semaphore> {
        let target = Target::Semaphore(Limit::new(limit)?);
        Handle::new(&self.core, target, key.as_ref()).map(Semaphore)
    }

    /// Returns the merged statistics of all servers: the sum of the numbers of connections, and the joined lists of
    /// keys.
    ///
    /// # Errors
    ///
    /// The first error of any shard. A server older than 1.0 closes the connection, or its answer is reported as
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// # Cancel safety
    ///
    /// Safe: this changes nothing on any server.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// let stats = client.stats().await?;
    /// assert_eq!(stats.locks[0].key, "orders/42");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stats(&self) -> Result<Stats> {
        let mut all = Stats::default();
        for stats in self.all_stats().await {
            all.merge(stats?);
        }
        Ok(all)
    }

    /// Returns the statistics of each shard's server, or the error, in the order of the shards. The client asks all
    /// servers at once.
    ///
    /// # Cancel safety
    ///
    /// Safe: this changes nothing on any server.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// for (shard, stats) in client.all_stats().await.into_iter().enumerate() {
    ///     match stats {
    ///         Ok(stats) => println!("shard {shard}: {} locks", stats.locks.len()),
    ///         Err(error) => println!("shard {shard}: {error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn all_stats(&self) -> Vec<Result<Stats>> {
        let shards = 0..self.core().topology.shards.len();
        join_all(shards.map(|shard| self.shard_stats(shard))).await
    }

    /// Returns the shard that the [sharding strategy](crate::ShardingStrategy) chooses for a key, as an index into
    /// [`health`](Self::health). For a key that moves to another shard, this is the new shard: see
    /// [`previous_shard_of`](Self::previous_shard_of).
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key is invalid, or the strategy returns a shard that
    /// does not exist.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let address = server.local_addr().to_string();
    /// let client = dflockd_client::Client::builder().servers([&address]).build()?;
    /// let shard = client.shard_of("orders/42")?;
    /// assert_eq!(*client.health()[shard].endpoint, *address);
    /// # Ok(())
    /// # }
    /// ```
    pub fn shard_of(&self, key: impl AsRef<str>) -> Result<usize> {
        Ok(self.core().topology.route(&Key::new(key)?)?.place.index)
    }

    /// Returns the shard that a key moves from, while a fleet [changes](ClientBuilder::previous_servers) its list of
    /// shards or its sharding strategy. Returns `None` for a key that does not move: such a key is held on one shard
    /// only.
    ///
    /// # Errors
    ///
    /// As [`shard_of`](Self::shard_of).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::{Client, rendezvous_hash_shard};
    ///
    /// let client = Client::builder()
    ///     .servers(["a.example:6388", "b.example:6388", "c.example:6388"])
    ///     .sharding_strategy(rendezvous_hash_shard)
    ///     .previous_servers(["a.example:6388", "b.example:6388"])
    ///     .previous_sharding_strategy(rendezvous_hash_shard)
    ///     .build()?;
    /// let keys = (0..1000).map(|number| format!("orders/{number}"));
    /// let moves = |key: &String| client.previous_shard_of(key).is_ok_and(|previous| previous.is_some());
    /// let moving = keys.filter(moves).count();
    /// assert!((250..420).contains(&moving), "about one in three: {moving}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn previous_shard_of(&self, key: impl AsRef<str>) -> Result<Option<usize>> {
        let key = Key::new(key)?;
        let route = self.core().topology.route(&key)?;
        Ok(route.previous.map(|place| place.index))
    }

    /// Returns the statistics of one shard's server. Shards have numbers from 0 on, in the order of the configured
    /// servers.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such shard. A server older than 1.0 closes the
    /// connection ([`Disconnected`](crate::ErrorKind::Disconnected)), or its answer is reported as
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// # Cancel safety
    ///
    /// Safe: this changes nothing on any server.
    pub async fn shard_stats(&self, shard: usize) -> Result<Stats> {
        match execute(&self.core, Request::Stats { shard }).await? {
            Response::Stats(stats) => Ok(stats),
            other => Err(other.out_of_place()),
        }
    }

    /// Waits until everything that the shards' clusters have committed so far is visible. Later requests of this client
    /// see every change that any client made before this call, through any member. Locks do not need this. Use it
    /// before [`stats`](Self::stats), which a member answers from its local state. A standalone server answers at once.
    ///
    /// # Errors
    ///
    /// The first error of any shard; [`NotLeader`](crate::ErrorKind::NotLeader) if the leader has just changed (try
    /// again), [`Unsupported`](crate::ErrorKind::Unsupported) if a server's build does not support clusters (builds
    /// after 2.1.1, which are unreleased, do).
    ///
    /// # Cancel safety
    ///
    /// Safe: this changes nothing on any server.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().release("cluster").port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// client.barrier().await?;
    /// let held = client.stats().await?.locks;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn barrier(&self) -> Result<()> {
        let shards = 0..self.core().topology.shards.len();
        let barriers = shards.map(|shard| execute(&self.core, Request::Barrier { shard }));
        for answer in join_all(barriers).await {
            match answer? {
                Response::Visible => {}
                other => return Err(other.out_of_place()),
            }
        }
        Ok(())
    }

    /// Switches a shard with [standbys](crate::Shard::standby) back to its first server.
    ///
    /// The client first connects to that server; if that fails, nothing changes. Then it reports all leases of the
    /// standby as lost ([`LostReason::Failback`]) and releases them. During the [takeover
    /// delay](crate::Shard::takeover_delay) that follows, it sends no request to the first server, because other
    /// clients may still hold leases on the standby. Switch all clients at the same time: the first server can grant
    /// keys to a client that switches alone while other clients hold the same keys on the standby.
    ///
    /// Returns that delay: the time, from now on, during which no server serves the shard. If the first server already
    /// serves the shard, the result is zero. If the switch is already under way, the result is the rest of the delay.
    /// In both cases the client releases nothing.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such shard, or it has no standbys; the error of
    /// the connection to the first server if that fails.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before the first server has answered, the client does nothing; dropping the future
    /// later has no effect.
    ///
    /// [`LostReason::Failback`]: crate::LostReason::Failback
    pub async fn failback(&self, shard: usize) -> Result<Duration> {
        match execute(&self.core, Request::Failback { shard }).await? {
            Response::FailingBack(delay) => Ok(delay),
            other => Err(other.out_of_place()),
        }
    }

    /// Publishes a signal on the shard that the sharding strategy chooses for its channel, and returns the number of
    /// deliveries.
    ///
    /// A listener that uses a client with several shards receives signals from all of them. A listener on one server,
    /// such as a Python client, receives only the signals that are emitted on that server. The first signal to a shard
    /// opens a separate connection for signals.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the channel or payload is invalid (see [`Channel::new`] and
    /// [`Payload::new`]), [`Unsupported`](crate::ErrorKind::Unsupported) if the server has no signals (before 1.11, and
    /// from 2.0 on), [`Disconnected`](crate::ErrorKind::Disconnected) if the connection was lost before the answer. In
    /// the last case the server may have delivered the signal. The client never sends a signal twice.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future cancels the signal if the client has not sent it yet.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().release("1.16").port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let mut paid = client.subscribe("orders.*.paid").await?;
    /// assert_eq!(client.emit("orders.42.paid", "in full").await?, 1);
    /// assert_eq!(paid.next_signal().await.expect("it is open").payload(), "in full");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn emit(&self, channel: impl AsRef<str>, payload: impl AsRef<str>) -> Result<u64> {
        let channel = Channel::new(channel)?;
        let payload = Payload::new(&channel, payload)?;
        match execute(&self.core, Request::Emit { channel, payload }).await? {
            Response::Delivered(count) => Ok(count),
            other => Err(other.out_of_place()),
        }
    }

    /// Subscribes on every shard to the channels that match a pattern, over separate connections, and merges the
    /// signals. [`SignalConn::listen`] adds patterns.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the pattern is invalid (see [`Pattern::new`]),
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if a server has no signals, and
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the client cannot reach a server within the request timeout.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future closes the connections.
    ///
    /// See [`emit`](Self::emit) for an example.
    pub async fn subscribe(&self, pattern: impl AsRef<str>) -> Result<SignalConn> {
        self.subscribe_with(SubscribeRequest::new(Pattern::new(pattern)?)).await
    }

    /// Subscribes as [`subscribe`](Self::subscribe) does, but as a member of a group or with other options.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe), and [`InvalidInput`](crate::ErrorKind::InvalidInput) for invalid options.
    ///
    /// # Cancel safety
    ///
    /// As [`subscribe`](Self::subscribe).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().release("1.16").port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// use dflockd_client::{Group, Pattern, SubscribeRequest};
    ///
    /// let share = SubscribeRequest::new(Pattern::new("jobs")?).group(Group::new("workers")?);
    /// let mut jobs = client.subscribe_with(share).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe_with(&self, request: SubscribeRequest) -> Result<SignalConn> {
        match execute(&self.core, Request::Subscribe(request)).await? {
            Response::Subscribed(signals) => Ok(signals),
            other => Err(other.out_of_place()),
        }
    }

    /// Returns the health of each shard: whether it is connected, and if not, why.
    #[must_use]
    pub fn health(&self) -> Vec<ShardHealth> {
        self.core()
            .topology
            .shards
            .iter()
            .map(|shard| shard.health.borrow().clone())
            .collect()
    }

    /// Returns a receiver of a shard's health, or `None` if there is no such shard. Of several changes that come before
    /// the next look, the receiver shows only the last; [`events`](Self::events) reports all.
    #[must_use]
    pub fn watch_health(&self, shard: usize) -> Option<watch::Receiver<ShardHealth>> {
        self.core().topology.shards.get(shard).map(|shard| shard.health.clone())
    }

    /// Returns a watch on the health of all shards. See [`HealthWatch::changed`] for several changes in a row.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let mut health = client.watch_all_health();
    /// while !health.current().iter().all(|shard| shard.is_connected()) {
    ///     if health.changed().await.is_none() {
    ///         break; // The client has ended.
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn watch_all_health(&self) -> HealthWatch {
        let shards = &self.core().topology.shards;
        HealthWatch::new(shards.iter().map(|shard| shard.health.clone()).collect())
    }

    /// Returns a stream of this client's events from now on, such as connections and lost leases. [`ClientEvent`] lists
    /// them; [`Events`] describes the case of a slow reader. You can create any number of streams.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::{ClientEvent, LostReason};
    ///
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).connect().await?;
    /// let mut events = client.events();
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// client.shutdown(Duration::from_secs(5)).await;
    /// while let Some(event) = events.next_event().await {
    ///     match event {
    ///         ClientEvent::LeaseLost(lost) => {
    ///             assert_eq!((lost.key.as_str(), lost.reason), ("orders/42", LostReason::Shutdown));
    ///             break;
    ///         }
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`ClientEvent`]: crate::ClientEvent
    pub fn events(&self) -> Events {
        self.config().events.subscribe()
    }

    /// Releases all leases, in one burst per shard, and closes the client. First it reports the leases as lost to their
    /// holders, with [`LostReason::Shutdown`](crate::LostReason::Shutdown). Callers that wait, and all later requests
    /// and signals, fail with [`Shutdown`](crate::ErrorKind::Shutdown).
    ///
    /// This also closes the signal connections of this client ([`subscribe`](Self::subscribe)): a stream still returns
    /// the signals that it has received, and then ends. Signal connections that you [opened](SignalConn::open)
    /// separately stay open.
    ///
    /// The report lists the keys whose release no server confirmed within `timeout`.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future does not stop the shutdown; only the report is lost.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// let report = client.shutdown(Duration::from_secs(5)).await;
    /// assert_eq!((report.released, report.unreleased.len()), (1, 0));
    /// assert!(!guard.is_held());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(&self, timeout: Duration) -> ShutdownReport {
        let until = after(Instant::now(), timeout);
        let (reports, signals) = self.core().shut_down(until);
        let mut all = ShutdownReport::default();
        for report in reports {
            if let Ok(report) = report.await {
                all.released += report.released;
                all.unreleased.extend(report.unreleased);
            }
        }
        for shard in &self.core().topology.shards {
            // If the shard's actor has died, the router closes the shard.
            let mut health = shard.health.clone();
            drop(health.wait_for(|health| health.closed_because().is_some()).await);
        }
        signals.await;
        all
    }

    /// Waits until every shard is connected. If a shard cannot be connected, returns its error.
    pub(crate) async fn all_connected(&self) -> Result<()> {
        for shard in &self.core().topology.shards {
            let mut health = shard.health.clone();
            let settled = health
                .wait_for(|health| !matches!(health.state, ConnectionState::Connecting))
                .await
                .map_err(|_| shard.gone())?
                .clone();
            if let Some(error) = settled.last_error().or(settled.closed_because()) {
                return Err(error.clone());
            }
        }
        Ok(())
    }
}

/// A request passes through a span, metrics, the [timeout](crate::TimeoutLayer) and the added
/// [layers](ClientBuilder::layer), and then reaches the shard of its key. Requests of the handles take the same path.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// use std::time::Duration;
///
/// use dflockd_client::{AcquireRequest, Client, Key, Request, Response, Target};
/// use tower::{Service, ServiceExt};
///
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let mut client = Client::builder().servers([server.local_addr().to_string()]).build()?;
/// let acquire = AcquireRequest::new(Target::Lock, Key::new("orders/42")?).acquire_timeout(Duration::from_secs(3));
/// let response = client.ready().await?.call(Request::Acquire(acquire)).await?;
/// let Response::Granted(lease) = response else { panic!("{response:?}") };
/// client.ready().await?.call(Request::Release(lease)).await?;
/// # Ok(())
/// # }
/// ```
impl Service<Request> for Client {
    type Response = Response;
    type Error = Error;
    type Future = ResponseFuture;

    /// Returns ready while at least one shard has room for another request (see [`ClientBuilder::max_in_flight`]) and
    /// all added layers are ready.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> ResponseFuture {
        ResponseFuture {
            answer: self.service.call(request),
        }
    }
}

pin_project! {
    /// The future of the answer to a request. If it is dropped, the client releases a lease that is granted meanwhile.
    #[must_use = "a request that is not awaited is abandoned"]
    pub struct ResponseFuture {
        #[pin]
        answer: <ClientStack as Service<Request>>::Future,
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response>> {
        self.project().answer.poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let health = self.health().into_iter();
        let shards: Vec<String> = health
            .map(|shard| format!("{} {}", shard.endpoint, shard.state.as_str()))
            .collect();
        f.debug_struct("Client")
            .field("shards", &shards)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_send_and_sync_and_its_response_future_is_send() {
        fn anywhere<T: Clone + Send + Sync + 'static>() {}
        fn another_task<T: Send + 'static>() {}
        anywhere::<Client>();
        another_task::<ResponseFuture>();
    }
}
