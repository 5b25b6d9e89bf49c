//! The builder of a client.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics::Recorder;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::retry::RetryLayer;
use tower::{Layer, Service};
use zeroize::Zeroizing;

use crate::client::Client;
use crate::config::{ClientOptions, Config, OnUnavailable, Supplied};
use crate::error::Result;
use crate::events::{ClientEvent, LeaseLost, RenewalFailed};
use crate::lease::policy::RenewPolicy;
use crate::net::auth::AuthSource;
use crate::net::backoff::ReconnectPolicy;
use crate::net::connector::Connector;
use crate::net::endpoint::Endpoint;
use crate::net::fencing::Fencing;
use crate::net::reach::Way;
use crate::service::{ClientService, Request, Response, RetryPolicy, UserLayer};
#[cfg(feature = "server")]
use crate::shard::started::StartedShards;
use crate::sharding::{CheckedStrategy, ShardingStrategy};
use crate::shards::Shard;
use crate::telemetry::key_class::Classifier;
use crate::telemetry::sink::Sink;
use crate::types::Key;

/// Collects the settings of a client. [`build`](Self::build) and [`connect`](Self::connect) check them.
#[derive(Clone, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct ClientBuilder {
    options: ClientOptions,
    supplied: Supplied,
    retry: Option<RetryPolicy>,
    layers: Vec<UserLayer>,
    /// The innermost layer: tests put it in place of the servers.
    innermost: Option<UserLayer>,
}

impl ClientBuilder {
    /// Creates a builder from a URL, such as `dflockd://secret@a:6388,b:6388/?connect_timeout=3s`. Later calls of the
    /// builder's methods override the settings of the URL. See [`ClientOptions`].
    ///
    /// # Errors
    ///
    /// As [`ClientOptions::from_url`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::{ClientBuilder, Fencing};
    ///
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let url = format!("dflockd://{}/?acquire_timeout=3s", server.local_addr());
    /// let client = ClientBuilder::from_url(&url)?.fencing(Fencing::Required).connect().await?;
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        ClientOptions::from_url(url).map(Self::from)
    }

    /// Creates a builder from environment variables. Later calls of the builder's methods override these settings. See
    /// [`ClientOptions::from_env`].
    ///
    /// # Errors
    ///
    /// As [`ClientOptions::from_env`].
    ///
    /// ```no_run
    /// # async fn start() -> dflockd_client::Result<()> {
    /// use dflockd_client::ClientBuilder;
    ///
    /// let client = ClientBuilder::from_env()?.connect().await?;
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub fn from_env() -> Result<Self> {
        ClientOptions::from_env().map(Self::from)
    }

    /// Names the client, for processes that have several clients. A name has 1 to 64 characters. The name is the label
    /// `client` of all its metrics, the field `dflockd.client` of the spans of its requests, and the field `client` of
    /// the span around the log lines of its tasks. The client does not send it to servers. Default: no name, and no
    /// such label, field or span.
    ///
    /// ```
    /// let builder = dflockd_client::Client::builder().name("billing");
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// Sets the servers, as `host:port`, `[v6]:port` or `unix:/path`. Each server is a shard, and every key belongs to
    /// one shard. All users of the same keys must give the same list in the same order. Default:
    /// [`DEFAULT_SERVERS`](crate::DEFAULT_SERVERS).
    ///
    /// The client resolves names again at each attempt to connect, unless a [connector](Self::connector) is set. It
    /// tries all addresses of a name, alternating between IPv6 and IPv4, and starts each attempt a quarter of a second
    /// after the previous one (RFC 8305). A `unix:` path names a socket of this machine. Usually a proxy listens there
    /// and forwards to a server.
    pub fn servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.options.shards = servers.into_iter().map(Shard::single).collect();
        self
    }

    /// Sets the shards, where a shard may have several servers: a cluster, or a primary with standbys. Of this method
    /// and [`servers`](Self::servers), the last call counts.
    ///
    /// ```
    /// use dflockd_client::{Client, Shard};
    ///
    /// let builder = Client::builder().shards([
    ///     Shard::cluster(["a.example.org:6388", "b.example.org:6388", "c.example.org:6388"]),
    ///     Shard::single("alone.example.org:6388"),
    /// ]);
    /// ```
    pub fn shards<S: Into<Shard>>(mut self, shards: impl IntoIterator<Item = S>) -> Self {
        self.options.shards = shards.into_iter().map(Into::into).collect();
        self
    }

    /// Limits how often the client repeats one acquire or one question (such as `stats`) in a cluster. It repeats them
    /// if the member that got the request is not the leader, and an acquire also if the connection to the leader was
    /// lost before the answer. Renewals and releases have no such limit. After the last repetition, the caller gets the
    /// retryable error [`NotLeader`](crate::ErrorKind::NotLeader) or [`Disconnected`](crate::ErrorKind::Disconnected).
    /// Default: 16.
    pub fn max_redirects(mut self, times: u32) -> Self {
        self.options.max_redirects = times;
        self
    }

    /// Sets the authentication token of the servers. Default: none. Of this method,
    /// [`auth_token_env`](Self::auth_token_env) and [`auth_token_file`](Self::auth_token_file), the last call counts.
    ///
    /// The client sends the token on each new connection. If a server rejects it, the client does not send it to that
    /// server again for the [`auth_retry_interval`](Self::auth_retry_interval). During that time, calls for keys of
    /// that server fail at once with [`ErrorKind::Auth`](crate::ErrorKind::Auth).
    pub fn auth_token(mut self, token: impl Into<String>) -> Self {
        self.options.auth = Some(AuthSource::Value(Zeroizing::new(token.into())));
        self
    }

    /// Reads the authentication token from an environment variable at each attempt to connect. White space around the
    /// token is ignored.
    pub fn auth_token_env(mut self, name: impl Into<String>) -> Self {
        self.options.auth = Some(AuthSource::Environment(name.into()));
        self
    }

    /// Reads the authentication token from a file at each attempt to connect, so the next connection uses a new token.
    /// White space around the token is ignored. If a server rejected the old token, the client sends the new one at the
    /// next attempt of the [reconnect policy](Self::reconnect).
    pub fn auth_token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.auth = Some(AuthSource::File(path.into()));
        self
    }

    /// Sets how long the client waits before it sends a rejected token to the same server again. A client without a
    /// token waits as long if the server requires one. Attempts in between only check whether the token has changed,
    /// and send nothing. Default: 30 s.
    pub fn auth_retry_interval(mut self, interval: Duration) -> Self {
        self.options.auth_retry_interval = interval;
        self
    }

    /// Uses TLS for connections to the servers. The handshake must end within the [connect
    /// timeout](Self::connect_timeout). Default: no TLS.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::tls::Tls) -> Self {
        self.options.tls = Some(tls);
        self
    }

    /// Sets the connector, a [`tower::Service`] that opens the connections to the servers: the client calls it with an
    /// [`Endpoint`], and it returns a stream, for example through a proxy, over vsock, or to a server in this process.
    /// [`tower::service_fn`] makes one from a function. Default: TCP, and Unix sockets for `unix:` paths.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::{Client, Endpoint};
    /// use tokio::net::TcpStream;
    ///
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let port = server.local_addr().port();
    /// let connector = tower::service_fn(move |endpoint: Endpoint| async move {
    ///     println!("on the way to {}", endpoint.host().unwrap_or_default());
    ///     let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    ///     stream.set_nodelay(true)?;
    ///     Ok::<_, std::io::Error>(stream)
    /// });
    /// let client = Client::builder()
    ///     .servers(["locks.internal:6388"])
    ///     .connector(connector)
    ///     .connect()
    ///     .await?;
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    ///
    /// **Which connections it opens.** The connector opens every connection, including those for waits, `stats` and
    /// signals, and those to standbys and cluster members. Addresses have the form that [`servers`](Self::servers)
    /// takes. The client does not resolve them: only the connector must know the meaning of a name.
    ///
    /// **How it is called.** For each stream, the client clones the service, waits until the clone is ready, and calls
    /// it. An attempt to connect may ask for several streams, one after the other, to find out what a server can do.
    /// Several attempts may be under way at the same time. The [connect timeout](Self::connect_timeout) limits a whole
    /// attempt; if it is over, the client drops the future. An error of the service, including one from `poll_ready`,
    /// becomes an error of kind [`Connect`](crate::ErrorKind::Connect) with the service's error as its source. A panic
    /// becomes an error of the same kind with the panic's message. In both cases the client tries again as its
    /// [reconnect policy](Self::reconnect) says. The service and its streams run in tasks of the client and must not
    /// block the thread. The service must be `Sync`: tower's `BoxCloneSyncService` is, its `BoxCloneService` is not.
    ///
    /// **Socket options.** The connector sets them. A TCP stream needs the kernel's keepalive. It also needs
    /// `TCP_NODELAY`: otherwise requests wait for acknowledgements. The default connector sets both. The client's
    /// [keepalive](Self::keepalive) detects a dead server and ends the waits there. But a stream on which a request
    /// waits for a lock is silent in normal operation. If only that stream is dead, or if its connection also owns
    /// leases, only the kernel's keepalive detects the loss. Without it, the wait ends by its own timeout. The client
    /// flushes a stream after each write. It closes a stream by dropping it, without a shutdown.
    ///
    /// **TLS** of `ClientBuilder::tls` runs over the stream, and the certificate must be for the endpoint's host. If
    /// the TLS handshake gets no answer for a second, the client asks for a second stream to find out whether the
    /// server expects plain text. Do not set `tls` if the connector does TLS itself. The client cannot know whether a
    /// connector's streams are encrypted. Without `tls`, it sends the authentication token over them and logs no
    /// warning.
    ///
    /// With a connector, the client needs a runtime with timers. It does not need I/O there.
    pub fn connector<C>(mut self, connector: C) -> Self
    where
        C: Service<Endpoint> + Clone + Send + Sync + 'static,
        C::Response: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        C::Future: Send + 'static,
    {
        self.supplied.way = Way::Connector(Connector::new(connector));
        self
    }

    /// Sets the strategy that chooses a key's shard: a function, an `Arc<dyn ShardingStrategy>` or a `Box<dyn
    /// ShardingStrategy>`. Default: [`stable_hash_shard`](crate::stable_hash_shard).
    pub fn sharding_strategy(mut self, strategy: impl ShardingStrategy + 'static) -> Self {
        self.options.shard_by(strategy);
        self
    }

    /// Sets the previous list of servers, while a fleet changes its list of shards or its sharding strategy. Use it
    /// together with [`previous_sharding_strategy`](Self::previous_sharding_strategy), which sets the strategy for that
    /// list. Default: the current list, for a change of the strategy alone.
    ///
    /// If the shard of a key changes, the client acquires the key on both shards, first on the previous one. It holds
    /// both halves as one [lease](crate::Lease), which is lost as soon as one half is lost. So a client that has both
    /// lists excludes clients that have only the previous list, and clients that have only the current list. Those two
    /// kinds of clients do not exclude each other. Therefore a fleet changes in three steps: all clients have the
    /// previous list; all have both; all have the current list.
    /// [`guide::sharding`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/sharding/index.html) describes
    /// the steps, how to see that a step is complete, and which rules apply meanwhile to semaphores, signals, fences
    /// and the order of waiters.
    ///
    /// A shard that is in both lists is one shard: write its servers the same way in both. Shards are numbered in the
    /// order of the current list; those that are only in the previous list follow.
    ///
    /// A client cannot [require](Fencing::Required) fences during the change: see
    /// [`Lease::transition_fences`](crate::Lease::transition_fences).
    ///
    /// ```
    /// use dflockd_client::{Client, rendezvous_hash_shard};
    ///
    /// let builder = Client::builder()
    ///     .servers(["a:6388", "b:6388", "c:6388"])
    ///     .sharding_strategy(rendezvous_hash_shard)
    ///     .previous_servers(["a:6388", "b:6388"])
    ///     .previous_sharding_strategy(rendezvous_hash_shard);
    /// ```
    ///
    /// The three steps, with a key that moves from the first server to the second:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::rendezvous_hash_shard;
    /// use dflockd_client::testing::TestServer;
    ///
    /// let (a, b) = (TestServer::start().await?, TestServer::start().await?);
    /// // 1. All clients have the previous list.
    /// let previous = TestServer::client_builder_of([&a]).sharding_strategy(rendezvous_hash_shard).connect().await?;
    /// // 2. All have both.
    /// let both = TestServer::client_builder_of([&a, &b])
    ///     .sharding_strategy(rendezvous_hash_shard)
    ///     .previous_servers(a.addresses())
    ///     .previous_sharding_strategy(rendezvous_hash_shard)
    ///     .connect()
    ///     .await?;
    /// // 3. All have the current list.
    /// let current = TestServer::client_builder_of([&a, &b]).sharding_strategy(rendezvous_hash_shard).connect().await?;
    ///
    /// let moves = |key: &String| both.previous_shard_of(key).is_ok_and(|shard| shard.is_some());
    /// let key = (0..1000).map(|number| format!("orders/{number}")).find(moves).unwrap();
    /// let guard = both.lock(&key)?.acquire().await?;
    /// // It is held on both servers, so clients with either list cannot get it.
    /// assert!(a.is_held(&key) && b.is_held(&key));
    /// assert!(previous.lock(&key)?.try_acquire().await?.is_none());
    /// assert!(current.lock(&key)?.try_acquire().await?.is_none());
    /// guard.release().await
    /// # }
    /// ```
    pub fn previous_servers<S: Into<Shard>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.options.previous_shards = Some(servers.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the previous sharding strategy, while a fleet changes its list of shards or its strategy: see
    /// [`previous_servers`](Self::previous_servers). The client does not guess the strategy, because with a wrong one
    /// two clients could hold the same key. If the clients set no strategy before, give
    /// [`stable_hash_shard`](crate::stable_hash_shard). Default: no key moves.
    pub fn previous_sharding_strategy(mut self, strategy: impl ShardingStrategy + 'static) -> Self {
        self.options.previous_strategy = Some(CheckedStrategy::new(strategy));
        self
    }

    /// Sets the timeout of each attempt to connect, from resolving the name (or calling the
    /// [connector](Self::connector)) to the end of the handshake, TLS included. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// Sets how long a caller waits for the answer to a request, reconnects included. The time for which the request
    /// itself waits for other holders comes in addition; it is zero for a try, a release or stats. See
    /// [`TimeoutLayer`](crate::TimeoutLayer). Default: 5 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.options.request_timeout = timeout;
        self
    }

    /// Sets how long `acquire` waits for other holders, for handles that set no timeout of their own. Default: 10 s.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.options.acquire_timeout = timeout;
        self
    }

    /// Sets the lease TTL of handles that set no TTL of their own: at least 1 s, rounded up to whole seconds. Default:
    /// the server's default, which is 33 s unless its operator sets another.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.options.lease_ttl = Some(ttl);
        self
    }

    /// Sets the fraction of the TTL after which a lease is renewed: more than 0 and less than 1. The client sends each
    /// renewal up to a tenth earlier, at random, so that many renewals do not coincide. Default: 0.5.
    pub fn renew_ratio(mut self, ratio: f64) -> Self {
        self.options.renew_policy.ratio = ratio;
        self
    }

    /// Sets how leases are renewed, for handles that set no policy of their own. This replaces the ratio of an earlier
    /// [`renew_ratio`](Self::renew_ratio); a later call of `renew_ratio` changes the ratio of this policy. Default:
    /// renew at half of the TTL, up to a tenth of that time earlier, for as long as the lease is held.
    ///
    /// ```
    /// use dflockd_client::{Client, RenewPolicy};
    ///
    /// let builder = Client::builder().renew_policy(RenewPolicy::default().ratio(0.3).jitter(0.2));
    /// ```
    pub fn renew_policy(mut self, policy: RenewPolicy) -> Self {
        self.options.renew_policy = policy;
        self
    }

    /// Sets the loss margin. If the client cannot renew a lease, it reports the lease as lost to the holder this long
    /// before the server may grant the key to another holder. The margin is at most half of the TTL. Default: a
    /// twentieth of the TTL, but at least 100 ms (66 ms where the TTL is 1 s).
    pub fn loss_margin(mut self, margin: Duration) -> Self {
        self.options.loss_margin = Some(margin);
        self
    }

    /// Sets how long a connection may be silent before the client sends a keepalive. If callers wait at a member of a
    /// cluster, the client also asks the member after this time whether it still leads, unless an answer showed that.
    /// The sum of this interval and the [reply timeout](Self::reply_timeout) is at most 24 days. Default: 10 s.
    pub fn keepalive(mut self, interval: Duration) -> Self {
        self.options.keepalive = interval;
        self
    }

    /// Sets how long a server may take to answer a request, in addition to the request's own wait. After that the
    /// client closes the connection. Default: 10 s.
    pub fn reply_timeout(mut self, timeout: Duration) -> Self {
        self.options.reply_timeout = timeout;
        self
    }

    /// Tells the client which `--read-timeout` the servers run with. The sum of the keepalive interval and the reply
    /// timeout must be at least a second shorter. If the read timeout is below 10 s, the sum must be shorter by at
    /// least a tenth of the read timeout. Then the client gives up a connection whose packets are lost, and reports its
    /// leases lost, before the server grants them to others. Default: 23 s, which is the servers' default.
    pub fn server_read_timeout(mut self, timeout: Duration) -> Self {
        self.options.server_read_timeout = timeout;
        self
    }

    /// Sets the pauses between attempts to reconnect. Default: 50 to 100 ms at first, doubling up to 2.5 to 5 s, at
    /// random within each range.
    pub fn reconnect(mut self, policy: ReconnectPolicy) -> Self {
        self.options.reconnect = policy;
        self
    }

    /// Sets what a call does while the shard of its key is not connected. Default: the call waits until its own
    /// timeout.
    pub fn on_unavailable(mut self, what: OnUnavailable) -> Self {
        self.options.on_unavailable = what;
        self
    }

    /// Tells the client whether the servers keep leases to the end of their TTL after the connection that acquired them
    /// has ended. Servers and clusters that run with `--auto-release-on-disconnect=false` do so. If true, the leases of
    /// a lost connection are [`Suspect`](crate::LeaseState::Suspect) until the client renews them over a new
    /// connection. If false, the client reports them lost at once. Default: false. For a [cluster](Shard::cluster) that
    /// keeps such leases for a limited time, set that time with [`Shard::orphan_ttl`].
    ///
    /// On standalone servers, a [shutdown](crate::Client::shutdown) gives up the queue positions of tickets and
    /// releases their grants. It cannot cancel a wait that blocks on the server. It closes the connection of that wait;
    /// if the server grants the key at the same moment, the key stays held to the end of the TTL.
    pub fn survives_disconnect(mut self, survives: bool) -> Self {
        self.options.survives_disconnect = survives;
        self
    }

    /// Sets whether [fences](crate::Fence) are required. Servers issue them from release 2.1 on. Choose
    /// [`Fencing::Required`] if a protected resource compares fences: the client then refuses leases of servers that
    /// issue none. Default: [`Fencing::IfKnown`].
    ///
    /// ```
    /// use dflockd_client::{Client, Fencing};
    ///
    /// let builder = Client::builder().fencing(Fencing::Required);
    /// ```
    pub fn fencing(mut self, fencing: Fencing) -> Self {
        self.options.fencing = fencing;
        self
    }

    /// Limits how many requests to one shard may be in flight at once. Further requests wait. Default: 4096.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.options.max_in_flight = requests;
        self
    }

    /// Sets how many pipelined connections each shard has, from 1 to 16. Default: 1.
    ///
    /// A server works on one request of a connection at a time. If the server takes long to answer a request, or runs
    /// one thread per connection, more connections give more throughput. Otherwise they have a small cost. Requests for
    /// a key keep their order: while one request for a key is in flight, further requests for that key use the same
    /// connection. All other requests use the least busy connection. A lease belongs to the connection that acquired it
    /// (in a cluster, to the one that acquired or renewed it last), and that connection renews it while it is up. So
    /// the loss of a connection costs only its own leases.
    pub fn pipelined_connections(mut self, connections: usize) -> Self {
        self.options.pipelined_connections = connections;
        self
    }

    /// Limits how many callers of one shard may wait for other holders at once. Further callers wait in the client
    /// until there is room, while their timeouts run. Waits of tickets do not count. Default: 65,536.
    pub fn max_waiters(mut self, waiters: usize) -> Self {
        self.options.max_waiters = waiters;
        self
    }

    /// Limits how many connections of one shard carry waits. A wait blocks its connection, so this limits how many
    /// callers wait *on the server* at once. The client opens these connections on demand, up to 190 per second, and
    /// closes them when they are [idle](Self::idle_connection_timeout). Connections that own leases and carry no wait
    /// do not count towards this limit, but the same limit applies to them separately. Default: 1024.
    ///
    /// **Without a connection**, a wait has no position in the server's queue. If no other wait for the key has one
    /// either, the client tries the key: at once when this client releases the key, otherwise every 0.4 to 0.8 s, in
    /// the long run with at most 20,000 tries per second and shard. So a caller gets a free key within a second,
    /// however many callers wait, unless the client tries more than 10,000 keys of the shard or the server answers
    /// slowly. But waiters of other clients that are in the server's queue come first. Callers of this client always
    /// get a key in the order of their arrival.
    ///
    /// **The next connection** goes first to a key that a [`lock_all`](Client::lock_all) call waits for while it holds
    /// other locks, then to keys without a connection, and last to keys that this client holds itself.
    ///
    /// **If the future of a wait is dropped**, its queue position goes to the next caller of this client for the same
    /// key, even if that caller asks for another TTL. If no caller takes the position within a second, the client
    /// closes the connection, unless the wait is about to end. It closes up to 140 such connections per second. Servers
    /// before 1.15 count a closed connection until its wait ends. The number of these closed connections never exceeds
    /// this limit, so such a server never counts more than twice this limit. The client assumes that a server is older
    /// than 1.15, unless it knows that the server issues fences or is a member of a cluster.
    ///
    /// The client logs a warning when all connections are in use for the first time. The metric
    /// `dflockd_client_wait_connections_exhausted_total` counts how often that happens.
    pub fn exclusive_connections(mut self, connections: usize) -> Self {
        self.options.exclusive_connections = connections;
        self
    }

    /// Limits how many of the [exclusive connections](Self::exclusive_connections) the waits for one key may occupy,
    /// so that a contended key leaves some for other keys. Further waits for that key queue in the client, in order.
    /// Default: 16, or a quarter of all exclusive connections if that is less.
    pub fn exclusive_connections_per_key(mut self, connections: usize) -> Self {
        self.options.exclusive_connections_per_key = Some(connections);
        self
    }

    /// Sets how long an [exclusive connection](Self::exclusive_connections) may be idle before the client closes it. A
    /// connection that owns leases stays open. Default: 30 s.
    pub fn idle_connection_timeout(mut self, timeout: Duration) -> Self {
        self.options.idle_connection_timeout = timeout;
        self
    }

    /// Adds a tower layer around all requests, including those of the handles. The layer that is added first gets a
    /// request first. All added layers are inside the client's own spans, metrics and timeout. The rules for layers are
    /// in [`guide::layers`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/layers/index.html).
    ///
    /// An error of the layer itself reaches callers as [`ErrorKind::Layer`](crate::ErrorKind::Layer), with the layer's
    /// error as its source.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::Client;
    /// use tower::limit::ConcurrencyLimitLayer;
    ///
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let address = server.local_addr().to_string();
    /// let client = Client::builder()
    ///     .servers([address])
    ///     .layer(ConcurrencyLimitLayer::new(64))
    ///     .connect()
    ///     .await?;
    /// # client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<ClientService> + Send + Sync + 'static,
        L::Service: Service<Request, Response = Response> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        <L::Service as Service<Request>>::Future: Send,
    {
        self.layers.push(UserLayer::new(layer));
        self
    }

    /// Retries requests after [retryable](crate::Error::is_retryable) errors, as [`RetryPolicy`] says. Regardless of
    /// the order of calls, this layer is outside all layers that [`layer`](Self::layer) adds, and inside the client's
    /// spans, metrics and timeout, which see one request. Default: no retries.
    ///
    /// ```
    /// use dflockd_client::{Client, RetryPolicy};
    ///
    /// let builder = Client::builder().retry(RetryPolicy::default());
    /// ```
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Sets the recorder for this client's metrics. Default: the recorder of the process. Install that recorder before
    /// you build the client, because it does not record metrics that were registered earlier.
    ///
    /// The client's own tasks call the recorder. If it panics there, the client loses the connection of that task, or
    /// all leases of the shard.
    pub fn metrics_recorder(mut self, recorder: impl Recorder + Send + Sync + 'static) -> Self {
        self.supplied.sink = Sink::own(recorder);
        self
    }

    /// Adds the label `key_class` to the metrics of requests, with the value that `classify` returns for the key. Keys
    /// themselves are never labels. Return something with few values, such as a prefix or a tenant's plan. The value
    /// becomes `other` if there are more than [`MAX_KEY_CLASSES`](crate::MAX_KEY_CLASSES) values, if it is empty, or if
    /// it is longer than 64 bytes. `classify` runs in the caller's task on every request: it must be fast and must not
    /// panic. Default: no such label.
    ///
    /// ```
    /// let builder = dflockd_client::Client::builder().key_class(|key| key.split('/').next().unwrap_or("other"));
    /// ```
    pub fn key_class(mut self, classify: impl for<'k> Fn(&'k str) -> &'k str + Send + Sync + 'static) -> Self {
        self.supplied.key_class = Some(Classifier::new(classify));
        self
    }

    /// Adds a callback that the client calls for each held lease that is lost, whichever handle acquired it; see
    /// [`ClientEvent::LeaseLost`]. Each call of this method adds a further callback.
    ///
    /// The callback runs in the task of the lease's shard and delays all other work of that task, including renewals.
    /// It must be fast and must not block. For longer work, use [`Client::events`]. If the callback panics, the client
    /// logs the panic.
    ///
    /// The client keeps its callbacks, so a callback that keeps a clone of the client, or a handle or lease of it,
    /// keeps the client alive for ever. Give it a [`WeakClient`](crate::WeakClient) instead.
    ///
    /// ```
    /// let builder = dflockd_client::Client::builder().on_lost(|lost| eprintln!("{} is lost: {}", lost.key, lost.reason));
    /// ```
    pub fn on_lost(self, callback: impl Fn(&LeaseLost) + Send + Sync + 'static) -> Self {
        self.on_event(move |event| {
            if let ClientEvent::LeaseLost(lost) = event {
                callback(lost);
            }
        })
    }

    /// Adds a callback that the client calls for each renewal that fails while its lease is still held; see
    /// [`ClientEvent::RenewalFailed`]. The client repeats the renewal. The callback runs in the same task as a callback
    /// of [`on_lost`](Self::on_lost), under the same rules.
    ///
    /// ```
    /// let builder = dflockd_client::Client::builder()
    ///     .on_renewal_error(|failed| eprintln!("{} is held, and was not renewed: {}", failed.key, failed.error));
    /// ```
    pub fn on_renewal_error(self, callback: impl Fn(&RenewalFailed) + Send + Sync + 'static) -> Self {
        self.on_event(move |event| {
            if let ClientEvent::RenewalFailed(failed) = event {
                callback(failed);
            }
        })
    }

    fn on_event(mut self, callback: impl Fn(&ClientEvent) + Send + Sync + 'static) -> Self {
        self.supplied.callbacks.push(Arc::new(callback));
        self
    }

    /// Checks the settings and returns the configuration.
    pub(crate) fn check(self) -> Result<Config> {
        self.options.check(self.supplied)
    }

    /// Checks all settings, then keeps only the shards of this key.
    pub(crate) fn for_key(mut self, key: &Key) -> Result<Self> {
        self.clone().check()?;
        self.options = self.options.of_key(key.as_str())?;
        Ok(self)
    }

    /// Sets the innermost layer, for tests.
    #[cfg(feature = "server")]
    pub(crate) fn innermost(mut self, layer: UserLayer) -> Self {
        self.innermost = Some(layer);
        self
    }

    /// Collects the mailboxes of the client's shards, for tests.
    #[cfg(feature = "server")]
    pub(crate) fn started(mut self, shards: Vec<StartedShards>) -> Self {
        self.supplied.started = shards;
        self
    }

    /// Sets the resolver of names, for tests.
    #[cfg(test)]
    pub(crate) fn resolver(mut self, resolver: crate::net::reach::Resolver) -> Self {
        self.supplied.way = Way::Sockets(resolver);
        self
    }

    /// Checks everything and starts the client, which connects in the background: no server needs to be up yet, and a
    /// server that is down does not affect other shards. Call this inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an invalid setting or file; the message names it
    /// and says which values are valid. The same kind without a runtime, on a runtime without timers or sockets (with a
    /// [connector](Self::connector), timers are enough), and for a metrics recorder that panics.
    pub fn build(self) -> Result<Client> {
        let timeout = self.options.request_timeout;
        let retry = self.retry.map(|policy| policy.within(timeout));
        let retry = retry.map(|policy| UserLayer::new(RetryLayer::new(policy)));
        let layers: Vec<UserLayer> = retry.into_iter().chain(self.layers).chain(self.innermost).collect();
        let core = crate::service::start(self.options.check(self.supplied)?, &layers)?;
        Ok(Client::of(core))
    }

    /// Builds the client as [`build`](Self::build) does, and waits until every shard is connected.
    ///
    /// # Errors
    ///
    /// As `build`. Also, if the first attempts to connect to the servers of a shard all fail:
    /// [`Connect`](crate::ErrorKind::Connect), [`Auth`](crate::ErrorKind::Auth) if the token is wrong, missing, not
    /// accepted or unreadable, [`Protocol`](crate::ErrorKind::Protocol) if the peer is not a dflockd server,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the server issues no fences and they are
    /// [required](Fencing::Required).
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future closes the connections.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// let client = dflockd_client::Client::builder()
    ///     .servers([server.local_addr().to_string()])
    ///     .connect()
    ///     .await?;
    /// assert!(client.health()[0].is_connected());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(self) -> Result<Client> {
        let client = self.build()?;
        client.all_connected().await?;
        Ok(client)
    }
}

/// Starts with these options. Later calls of the builder's methods override them.
impl From<ClientOptions> for ClientBuilder {
    fn from(options: ClientOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }
}

/// Shows all settings, including those with default values, with `…` in place of secrets.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ClientBuilder");
        self.options.show(&mut shown);
        shown
            .field("connector", &matches!(self.supplied.way, Way::Connector(_)))
            .field("metrics_recorder", &self.supplied.sink.is_own())
            .field("key_class", &self.supplied.key_class.is_some())
            .field("callbacks", &self.supplied.callbacks.len())
            .field("retry", &self.retry)
            .field("layers", &self.layers.len())
            .finish()
    }
}
