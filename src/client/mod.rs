//! The client: a cheap clone through which everything goes.

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
/// Cloning is cheap, and all clones share their connections. It is a [`tower::Service`]; the handles made by
/// [`lock`](Self::lock) and [`semaphore`](Self::semaphore) are the way to use it without knowing that.
///
/// It lives as long as any clone, handle or lease of it. When the last one is dropped, what is still on its way back is
/// sent, and the connections are closed.
#[derive(Clone)]
pub struct Client {
    service: ClientStack,
    // Dropped after the service, which points to it weakly.
    core: Arc<Core>,
}

impl Client {
    /// Begins to describe a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Makes a client of a URL, such as `dflockd://secret@a:6388,b:6388/?acquire_timeout=3s`, and waits until every server is connected.
    /// See [`ClientOptions`](crate::ClientOptions).
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::from_url`] and [`ClientBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Safe: the connections are closed.
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

    /// Returns a reference that does not keep the client alive, for what the client itself keeps, such as a callback.
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

    /// The lock on a key.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key is none; see [`Key::new`](crate::Key::new).
    pub fn lock(&self, key: impl AsRef<str>) -> Result<Lock> {
        Handle::new(&self.core, Target::Lock, key.as_ref()).map(Lock)
    }

    /// Locks on several keys, of one shard or many, taken all or not at all. A key that is given twice counts once.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if one of the keys is none (see [`Key::new`](crate::Key::new)), or there
    /// are none.
    pub fn lock_all<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) -> Result<MultiLock> {
        MultiLock::new(&self.core, keys)
    }

    /// Returns the semaphore on a key. Every user of the key must give the same limit.
    ///
    /// Servers before release 1.14 keep locks and semaphores in one namespace, where a lock is a semaphore of limit 1: use different keys
    /// for both there. See [`Semaphore`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key is invalid (see [`Key::new`](crate::Key::new)), or the limit
    /// is 0.
    pub fn semaphore(&self, key: impl AsRef<str>, limit: u32) -> Result<Semaphore> {
        let target = Target::Semaphore(Limit::new(limit)?);
        Handle::new(&self.core, target, key.as_ref()).map(Semaphore)
    }

    /// The state of all servers, merged: connections are added up, keys stand side by side.
    ///
    /// # Errors
    ///
    /// The first error that any shard gives; [`Unsupported`](crate::ErrorKind::Unsupported) if a server is older than 1.0.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is changed anywhere.
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

    /// The state of each server, or why it could not be had, in the order of the shards. All are asked at once.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is changed anywhere.
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

    /// The shard that the [sharding strategy](crate::ShardingStrategy) gives a key to: a place among the [`health`](Self::health) of all.
    /// For a key that moves it is the shard that the key moves to: see [`previous_shard_of`](Self::previous_shard_of).
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key is invalid, or the strategy names a shard that there is not.
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

    /// Returns the shard that a key moves from, while a fleet [changes](ClientBuilder::previous_servers) its list of shards or its sharding
    /// strategy. `None` for a key that does not move: it is held on one shard.
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

    /// The state of one shard's server. Shards are counted from 0, in the order in which their servers were given.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such shard,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if its server is older than 1.0.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is changed anywhere.
    pub async fn shard_stats(&self, shard: usize) -> Result<Stats> {
        match execute(&self.core, Request::Stats { shard }).await? {
            Response::Stats(stats) => Ok(stats),
            other => Err(other.out_of_place()),
        }
    }

    /// Returns once everything that the shards' clusters had committed when they were asked is visible: what anybody did through
    /// any member before is seen by whatever is asked of this client afterwards. Locks do not need it; [`stats`](Self::stats)
    /// may, as members answer that from what they know. A server that stands alone answers at once.
    ///
    /// # Errors
    ///
    /// The first error that any shard gives; [`NotLeader`](crate::ErrorKind::NotLeader) if the leadership has just moved (ask
    /// again), [`Unsupported`](crate::ErrorKind::Unsupported) if a server is no cluster build (unreleased after 2.1.1).
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is changed anywhere.
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

    /// Has the first server of a shard that was given as [`Shard::standby`](crate::Shard::standby) serve it again.
    ///
    /// It is connected to first; if that fails, nothing changes. Then everything that is held on the server that took its place
    /// is reported lost ([`LostReason::Failback`]) and given back, and nothing is asked of the first server for the
    /// [takeover delay](crate::Shard::takeover_delay), since other clients may still hold something where this one comes from.
    /// Have all clients go back at the same time: one that goes alone can be granted what others hold.
    ///
    /// The answer is how long nobody serves the shard from now on. If it is served by the first server already, or goes back to it,
    /// nothing is given up, and that is zero or what is left of the delay.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such shard, or it has no servers in reserve; why the first
    /// server cannot be reached, if it cannot.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before the first server has answered, nothing is done; later it makes no difference.
    ///
    /// [`LostReason::Failback`]: crate::LostReason::Failback
    pub async fn failback(&self, shard: usize) -> Result<Duration> {
        match execute(&self.core, Request::Failback { shard }).await? {
            Response::FailingBack(delay) => Ok(delay),
            other => Err(other.out_of_place()),
        }
    }

    /// Publishes a signal at the shard that the sharding strategy names for its channel. The number of deliveries.
    ///
    /// Who listens with a client of several shards hears it wherever that is; who listens at one server only, as the public
    /// Python clients do, hears what is emitted there. The first signal makes a connection to the shard for this purpose.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if channel or payload are none (see [`Channel::new`] and
    /// [`Payload::new`]), [`Unsupported`](crate::ErrorKind::Unsupported) if the server knows no signals (before 1.11, and from 2.0
    /// on), [`Disconnected`](crate::ErrorKind::Disconnected) if the connection was lost before the answer: the signal may have been
    /// delivered, and is never sent twice.
    ///
    /// # Cancel safety
    ///
    /// Safe: a signal that was not sent yet is not sent.
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

    /// Listens at every shard to the channels that match a pattern, over connections of its own, and merges what comes.
    /// [`SignalConn::listen`] adds more to them.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the pattern is none (see [`Pattern::new`]),
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if a server knows no signals, and [`Unavailable`](crate::ErrorKind::Unavailable)
    /// if one cannot be reached within the request timeout.
    ///
    /// # Cancel safety
    ///
    /// Safe: the connections are closed.
    ///
    /// An example is with [`emit`](Self::emit).
    pub async fn subscribe(&self, pattern: impl AsRef<str>) -> Result<SignalConn> {
        self.subscribe_with(SubscribeRequest::new(Pattern::new(pattern)?)).await
    }

    /// As [`subscribe`](Self::subscribe), as a member of a group, or with options of its own.
    ///
    /// # Errors
    ///
    /// As there, and for options that are none.
    ///
    /// # Cancel safety
    ///
    /// As there.
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

    /// Whether each shard can be reached, and if not, why.
    #[must_use]
    pub fn health(&self) -> Vec<ShardHealth> {
        self.core()
            .topology
            .shards
            .iter()
            .map(|shard| shard.health.borrow().clone())
            .collect()
    }

    /// The same for one shard, to be told of each change; `None` if there is no such shard.
    #[must_use]
    pub fn watch_health(&self, shard: usize) -> Option<watch::Receiver<ShardHealth>> {
        self.core().topology.shards.get(shard).map(|shard| shard.health.clone())
    }

    /// The health of all shards at once, to be told of each change.
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

    /// What happens to this client from now on, as a stream: connections, leases that are lost, and so on. See [`ClientEvent`] for all of
    /// it, and [`Events`] for what becomes of readers that are slow. Any number of streams may be had.
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

    /// Releases everything that is held, in one burst per shard, and closes. Holders are told
    /// [`LostReason::Shutdown`](crate::LostReason::Shutdown) first; callers that wait get
    /// [`Shutdown`](crate::ErrorKind::Shutdown), and so does every later request, signals included.
    ///
    /// The signal connections of this client ([`subscribe`](Self::subscribe)) are closed with it: what has come can still be taken, and
    /// then their streams end. Those that were [opened](SignalConn::open) by themselves go on.
    ///
    /// The report names the keys whose release no server confirmed within `timeout`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the shutdown; only the report is lost.
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
            // One whose actor has died is closed by the router.
            let mut health = shard.health.clone();
            drop(health.wait_for(|health| health.closed_because().is_some()).await);
        }
        signals.await;
        all
    }

    /// Waits until every shard is connected, or one of them has failed.
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

/// The way of a request: a span, metrics, the [timeout](crate::TimeoutLayer), the [layers](ClientBuilder::layer) that were
/// added, and then the shard that serves its key. The handles go the same way.
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

    /// Ready while any shard has room for another request (see [`ClientBuilder::max_in_flight`]) and all layers that were
    /// added are ready.
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
    /// The answer to a request, on its way. Dropping it gives back whatever is granted to it meanwhile.
    #[must_use = "a request that is not awaited is given up"]
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
    fn a_client_goes_anywhere_and_so_do_its_answers() {
        fn anywhere<T: Clone + Send + Sync + 'static>() {}
        fn another_task<T: Send + 'static>() {}
        anywhere::<Client>();
        another_task::<ResponseFuture>();
    }
}
