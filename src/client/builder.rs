//! The description of a client.

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

/// Describes a client. Nothing is checked before [`build`](Self::build) or [`connect`](Self::connect).
#[derive(Clone, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct ClientBuilder {
    options: ClientOptions,
    supplied: Supplied,
    retry: Option<RetryPolicy>,
    layers: Vec<UserLayer>,
    /// Inside of all the others: what a test puts in place of the servers.
    innermost: Option<UserLayer>,
}

impl ClientBuilder {
    /// Begins with a URL, such as `dflockd://secret@a:6388,b:6388/?connect_timeout=3s`. What is said to the builder then counts before what
    /// the URL says. See [`ClientOptions`].
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

    /// Begins with what the environment says. What is said to the builder then counts before that. See [`ClientOptions::from_env`].
    ///
    /// # Errors
    ///
    /// As there.
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

    /// A name for the client, for processes that have several: 1 to 64 characters. It is the label `client` of all its metrics, the field
    /// `dflockd.client` of the spans of its requests, and the field `client` of the span around the log lines of its tasks. Servers are not told. Default: none, and then there are
    /// no such label, field and span.
    ///
    /// ```
    /// let builder = dflockd_client::Client::builder().name("billing");
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// The servers, as `host:port`, `[v6]:port` or `unix:/path`. Each is a shard; a key belongs to one of them. All users of
    /// the same keys must give the same list in the same order. Default: [`DEFAULT_SERVERS`](crate::DEFAULT_SERVERS).
    ///
    /// Unless there is a [connector](Self::connector), names are resolved anew at each attempt to connect. All addresses of a name
    /// are tried, of both families in turn, each a quarter of a second after the one before (RFC 8305). A `unix:` path is that of a
    /// socket behind which something, as a rule a proxy on this machine, passes everything on to a server.
    pub fn servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.options.shards = servers.into_iter().map(Shard::single).collect();
        self
    }

    /// The same for shards that may be served by several servers: a cluster, or servers in reserve. Replaces what
    /// [`servers`](Self::servers) said, and the other way round.
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

    /// How often one operation is asked again because the member of a cluster that it was asked of does not lead, or because the
    /// leader was lost while it waited there. After that its caller gets the error, [`NotLeader`](crate::ErrorKind::NotLeader) or
    /// [`Disconnected`](crate::ErrorKind::Disconnected), which is retryable. Default: 16.
    pub fn max_redirects(mut self, times: u32) -> Self {
        self.options.max_redirects = times;
        self
    }

    /// The secret that the servers were started with. Default: none. The last of this and the next two counts.
    ///
    /// It is presented on each new connection. A server that refuses it is not asked again with the same secret for a while
    /// (see [`auth_retry_interval`](Self::auth_retry_interval)); until then callers whose keys it serves get
    /// [`ErrorKind::Auth`](crate::ErrorKind::Auth) at once.
    pub fn auth_token(mut self, token: impl Into<String>) -> Self {
        self.options.auth = Some(AuthSource::Value(Zeroizing::new(token.into())));
        self
    }

    /// The name of an environment variable that holds the secret; white space around it does not count. It is read at each attempt to connect.
    pub fn auth_token_env(mut self, name: impl Into<String>) -> Self {
        self.options.auth = Some(AuthSource::Environment(name.into()));
        self
    }

    /// A file that holds the secret; white space around it does not count. It is read at each attempt to connect, so that
    /// a secret that was replaced is used from the next connection on. If the old one was refused meanwhile, the new one is
    /// presented at the next attempt of the [reconnect policy](Self::reconnect).
    pub fn auth_token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.auth = Some(AuthSource::File(path.into()));
        self
    }

    /// How long a server that refused the secret, or that there is none, is not asked again with the same. The attempts in
    /// between only look whether there is another secret by now, and send nothing. Default: 30 s.
    pub fn auth_retry_interval(mut self, interval: Duration) -> Self {
        self.options.auth_retry_interval = interval;
        self
    }

    /// Talks TLS to the servers. Its handshake must be over within the [connect timeout](Self::connect_timeout). Default: no TLS.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::tls::Tls) -> Self {
        self.options.tls = Some(tls);
        self
    }

    /// Opens the connections to the servers in place of the system's sockets: a [`tower::Service`] that is called with an [`Endpoint`] and
    /// gives a stream, for example through a proxy, over vsock, or to a server in this process. A connector of tower's
    /// [`service_fn`](tower::service_fn) will do. Default: TCP, and sockets in the file system for `unix:` paths.
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
    /// **What it is called for.** Every connection: also those for waits, `stats` and signals, and to each server of a shard, be it the
    /// next in reserve or a member that a cluster named. Addresses have the form that [`servers`](Self::servers) takes. They are not
    /// resolved, so that a name need mean something to the connector only.
    ///
    /// **How it is called.** Each stream comes from a clone of the service, which is called once it is ready. An attempt to connect may ask
    /// for several streams, one after the other, to find out what a server can do; several attempts may be under way at the same
    /// time. The [connect timeout](Self::connect_timeout) bounds all of an attempt, and drops the future of one that takes longer. An
    /// error of the service, from `poll_ready` too, becomes one of kind [`Connect`](crate::ErrorKind::Connect) with the service's own as
    /// its source; a panic becomes one that says what the panic said. After either the client tries again as its
    /// [reconnect policy](Self::reconnect) says. Neither the service nor its streams may block the thread: they run in tasks of the
    /// client. The service has to be `Sync`: of tower's boxed services `BoxCloneSyncService` is, and `BoxCloneService` is not.
    ///
    /// **What it decides.** Options of sockets are the connector's. A TCP stream wants `TCP_NODELAY`, or requests wait for
    /// acknowledgements, and keepalives of the kernel, as the default's streams have. The client notices by its
    /// [keepalive](Self::keepalive) that the server behind its streams is gone, and leaves the waits there. But while a request waits for
    /// a lock, silence is what its stream is expected to carry: if that stream alone is dead, or its connection holds leases besides, the
    /// kernel notices, or the wait ends at its own time. The client flushes a stream after it has written, and closes it by dropping
    /// it, without a shutdown.
    ///
    /// **TLS** of `ClientBuilder::tls` is put on top of the stream, and its certificate must be for the endpoint's host, as ever. While its
    /// handshake has been unanswered for a second, a second stream is asked for, to find out whether the server speaks no TLS. A
    /// connector that makes TLS itself is used without `tls`. The client cannot know what protects the streams of a connector, so it
    /// does not warn when the servers' secret goes over one of them without `tls`.
    ///
    /// A runtime that has timers and no sockets is enough for a client with a connector.
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

    /// Which server a key belongs to: a function, an `Arc<dyn ShardingStrategy>` or a `Box<dyn ShardingStrategy>`. Default:
    /// [`stable_hash_shard`](crate::stable_hash_shard).
    pub fn sharding_strategy(mut self, strategy: impl ShardingStrategy + 'static) -> Self {
        self.options.shard_by(strategy);
        self
    }

    /// Where keys were, while a fleet changes its list of shards or its sharding strategy: the list before. With
    /// [`previous_sharding_strategy`](Self::previous_sharding_strategy), which says how keys were spread over it. Default: the list of now, for a change
    /// of the strategy alone.
    ///
    /// A key whose shard is another now than before is then taken on both, on the previous one first, and held as one
    /// [lease](crate::Lease), which is lost as soon as one half is. So a client with this excludes those that have only the previous list, and those
    /// that have only the current one; these two do not exclude each other. A fleet changes in three steps: all clients have the
    /// previous list; all have both; all have the current list.
    /// [`guide::sharding`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/sharding/index.html) has the steps, how to see that one is over, and what is
    /// promised of semaphores, signals, fences and the order of waiters meanwhile.
    ///
    /// A shard that stands in both lists is one shard: write its servers alike in both. Shards are counted in the order of the current list;
    /// those that only the previous one has come behind.
    ///
    /// Fences cannot be [required](Fencing::Required) meanwhile: see [`Lease::transition_fences`](crate::Lease::transition_fences).
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
    /// // It is held on both servers, so clients of neither list get it.
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

    /// How keys were spread before, while a fleet changes its list of shards or its sharding strategy: see
    /// [`previous_servers`](Self::previous_servers). It must be said expressly, as a wrong one would let two clients hold a key: it is
    /// [`stable_hash_shard`](crate::stable_hash_shard) where clients did not say. Default: no key moves.
    pub fn previous_sharding_strategy(mut self, strategy: impl ShardingStrategy + 'static) -> Self {
        self.options.previous_strategy = Some(CheckedStrategy::new(strategy));
        self
    }

    /// For each attempt to connect, from resolving the name, or calling the [connector](Self::connector), to the last answer of the
    /// handshake, that of TLS included. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// How long a caller waits for the answer to a request, reconnects included, on top of what the request itself may wait for
    /// other holders (nothing for a try, a release, stats). See [`TimeoutLayer`](crate::TimeoutLayer). Default: 5 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.options.request_timeout = timeout;
        self
    }

    /// How long handles wait in `acquire` unless they say otherwise. Default: 10 s.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.options.acquire_timeout = timeout;
        self
    }

    /// The lease of handles that do not say otherwise: at least 1 s, rounded up to whole seconds. Default: the server's
    /// (33 s, if it was not changed).
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.options.lease_ttl = Some(ttl);
        self
    }

    /// Which part of its TTL passes before a lease is renewed, more than 0 and less than 1. Renewals come up to a tenth
    /// early, so that they do not all come together. Default: 0.5.
    pub fn renew_ratio(mut self, ratio: f64) -> Self {
        self.options.renew_policy.ratio = ratio;
        self
    }

    /// How the leases of handles that do not say otherwise are renewed. It replaces what [`renew_ratio`](Self::renew_ratio) said, which
    /// changes a part of it. Default: at half of the TTL, up to a tenth of that earlier, for as long as they are held.
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

    /// How long before the server may grant it to somebody else the holder of a lease that could not be renewed is told
    /// that it is lost; at most half of the TTL. Default: a twentieth of the TTL, but at least 100 ms (66 ms where the
    /// TTL is 1 s).
    pub fn loss_margin(mut self, margin: Duration) -> Self {
        self.options.loss_margin = Some(margin);
        self
    }

    /// The longest silence on a connection. A cluster's member at which callers wait, and that has shown for so long by no answer that
    /// it leads, is asked. With the [reply timeout](Self::reply_timeout) at most 24 days. Default: 10 s.
    pub fn keepalive(mut self, interval: Duration) -> Self {
        self.options.keepalive = interval;
        self
    }

    /// How long a server may leave a request unanswered (beyond the wait that it was asked for) before its connection
    /// is given up. Default: 10 s.
    pub fn reply_timeout(mut self, timeout: Duration) -> Self {
        self.options.reply_timeout = timeout;
        self
    }

    /// The `--read-timeout` that the servers run with. Keepalive interval and reply timeout must together stay below it by a second
    /// (by a tenth of it, where it is shorter than 10 s), so that a connection that a black hole swallowed is given up, and its
    /// leases with it, before the server gives them to others. Default: 23 s, as the servers'.
    pub fn server_read_timeout(mut self, timeout: Duration) -> Self {
        self.options.server_read_timeout = timeout;
        self
    }

    /// The pauses between attempts to reconnect. Default: 50 to 100 ms at first, doubling up to 2.5 to 5 s, with jitter.
    pub fn reconnect(mut self, policy: ReconnectPolicy) -> Self {
        self.options.reconnect = policy;
        self
    }

    /// What callers meet while the shard of their key is not connected. Default: they wait, until their own timeout.
    pub fn on_unavailable(mut self, what: OnUnavailable) -> Self {
        self.options.on_unavailable = what;
        self
    }

    /// Whether the servers let leases live on to the end of their TTL when the connection that acquired them ends, as servers and
    /// clusters do that run with `--auto-release-on-disconnect=false`. Leases of a lost connection are then
    /// [`Suspect`](crate::LeaseState::Suspect) until they are renewed over a new one; otherwise they are reported lost at
    /// once. Default: false. Of [clusters](Shard::cluster) that keep them for a while only, say how long with [`Shard::orphan_ttl`].
    ///
    /// At servers that stand alone, a [shutdown](crate::Client::shutdown) gives up the places of tickets, and gives back what was granted
    /// there. A wait that blocks on the server cannot be recalled: its connection is closed, and a grant that crosses with that keeps its
    /// key taken to the end of its TTL.
    pub fn survives_disconnect(mut self, survives: bool) -> Self {
        self.options.survives_disconnect = survives;
        self
    }

    /// What becomes of [fences](crate::Fence), which servers make from release 2.1 on. Say [`Fencing::Required`] if something that a lock
    /// protects compares them: leases of a server that makes none are refused then, instead of being without. Default:
    /// [`Fencing::IfKnown`].
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

    /// How many requests of one shard may be on their way at once; further ones wait for room. Default: 4096.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.options.max_in_flight = requests;
        self
    }

    /// How many pipelined connections each shard has, from 1 to 16. Default: 1.
    ///
    /// A server works on one request of a connection at a time. Where it takes long for each, or runs one thread for each
    /// connection, more connections give more throughput; where it does not, they cost a little. Requests for a key keep
    /// their order: they go over the same connection while one of them is under way, and over the least busy one otherwise. A lease belongs
    /// to the connection that acquired it (in a cluster: that acquired or renewed it last), which renews it while it is up; so a connection
    /// that is cut costs its own leases only.
    pub fn pipelined_connections(mut self, connections: usize) -> Self {
        self.options.pipelined_connections = connections;
        self
    }

    /// How many callers of one shard may wait for other holders at once; further ones wait for room, with their timeout
    /// running. Those that wait at the place of a ticket do not count. Default: 65,536.
    pub fn max_waiters(mut self, waiters: usize) -> Self {
        self.options.max_waiters = waiters;
        self
    }

    /// How many connections of one shard may carry waits. A wait blocks its connection, so this is how many wait *on the
    /// server* at once. Connections are opened when they are needed, up to 190 in a second, and closed when they are
    /// [idle](Self::idle_connection_timeout). Those that own leases and carry no wait do not count; there may be as many of
    /// them again. Default: 1024.
    ///
    /// **Without a connection** a wait has no place in the server's queue. Its key is tried instead: at once when this client
    /// releases it, otherwise every 0.4 to 0.8 s, and a shard makes at most 20,000 tries in a second. So a caller gets a
    /// key that is free within a second, however many other waits there are. But callers of other clients that stand in the server's
    /// queue come first. Among the callers of this client the order for a key is that of their arrival, always.
    ///
    /// **The next connection** goes to a key of whose callers one holds other locks of a [`lock_all`](Client::lock_all), then to
    /// keys without a connection, and last to keys that this client holds itself.
    ///
    /// **A wait whose future was dropped** leaves its place in the server's queue to the next caller of its key, whatever TTL that
    /// caller asks for. The connection is closed if no caller has wanted the place for a second, unless the wait is about to end
    /// by itself: up to 140 in a second. Servers before 1.15 count a closed connection until its wait ends. There are never more of
    /// these than this bound, so such a server never counts more than twice as many waits. A server counts as one of them unless it is
    /// known to make fences, or is a member of a cluster.
    ///
    /// A warning is logged when all connections are in use for the first time; `dflockd_client_wait_connections_exhausted_total`
    /// counts how often that happens.
    pub fn exclusive_connections(mut self, connections: usize) -> Self {
        self.options.exclusive_connections = connections;
        self
    }

    /// How many of these the waits for one key may occupy, so that a hot key leaves some to the others. Further waits for that key
    /// stand behind them here, in order. Default: 16, or a quarter of all if that is less.
    pub fn exclusive_connections_per_key(mut self, connections: usize) -> Self {
        self.options.exclusive_connections_per_key = Some(connections);
        self
    }

    /// How long such a connection may be idle before it is closed, unless it owns leases. Default: 30 s.
    pub fn idle_connection_timeout(mut self, timeout: Duration) -> Self {
        self.options.idle_connection_timeout = timeout;
        self
    }

    /// Adds a layer of tower's, or of your own, around all requests, those of the handles included. The first that is added
    /// sees a request first; all of them stand inside of the client's own spans, metrics and timeout. What a layer may do,
    /// and what it must not, is in [`guide::layers`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/layers/index.html).
    ///
    /// An error of the layer's own reaches callers as [`ErrorKind::Layer`](crate::ErrorKind::Layer), with the layer's as its
    /// source.
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

    /// Makes requests again after errors that [pass by themselves](crate::Error::is_retryable), as [`RetryPolicy`] says. It is a layer outside of all
    /// that [`layer`](Self::layer) adds, whenever it is said, and inside of the client's spans, metrics and timeout: those see one request.
    /// Default: nothing is made again.
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

    /// Where this client's metrics go. Default: the recorder that is installed for the process, which must be there when the
    /// client is built (what is registered before is recorded nowhere).
    ///
    /// It is called by the client's own tasks. One that panics there costs the connection that the task serves, or all leases of the shard.
    pub fn metrics_recorder(mut self, recorder: impl Recorder + Send + Sync + 'static) -> Self {
        self.supplied.sink = Sink::own(recorder);
        self
    }

    /// Puts the label `key_class` on the metrics of requests: what `classify` makes of their keys. Keys themselves are never
    /// labels, so choose something that has few values: a prefix, a tenant's plan. Beyond
    /// [`MAX_KEY_CLASSES`](crate::MAX_KEY_CLASSES) values, for an empty one and for one of more than 64 bytes it is `other`.
    /// It runs in the caller's task on every request: keep it quick, and do not panic. Default: no such label.
    ///
    /// ```
    /// let builder = dflockd_client::Client::builder().key_class(|key| key.split('/').next().unwrap_or("other"));
    /// ```
    pub fn key_class(mut self, classify: impl for<'k> Fn(&'k str) -> &'k str + Send + Sync + 'static) -> Self {
        self.supplied.key_class = Some(Classifier::new(classify));
        self
    }

    /// Has a callback be told of each lease of this client that is lost while it is held, whichever handle it came from, as
    /// [`ClientEvent::LeaseLost`] says. May be called several times.
    ///
    /// It runs in the task of the lease's shard, where nothing else goes on meanwhile, renewals included: keep it quick, and do not block. For
    /// work there is [`Client::events`]. If it panics, that is logged.
    ///
    /// The client keeps its callbacks, so a callback that keeps a clone of the client, or a handle or lease of it, keeps the client alive for
    /// ever. Give it a [`WeakClient`](crate::WeakClient) instead.
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

    /// Has a callback be told of each renewal that failed while its lease is still held, as [`ClientEvent::RenewalFailed`] says. It is tried
    /// again by itself. The callback runs as that of [`on_lost`](Self::on_lost).
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

    /// What was asked for, checked.
    pub(crate) fn check(self) -> Result<Config> {
        self.options.check(self.supplied)
    }

    /// The same client for one key alone: it knows only the shards that the key belongs to. Checks everything.
    pub(crate) fn for_key(mut self, key: &Key) -> Result<Self> {
        self.clone().check()?;
        self.options = self.options.of_key(key.as_str())?;
        Ok(self)
    }

    /// Puts a layer inside of all others.
    #[cfg(feature = "server")]
    pub(crate) fn innermost(mut self, layer: UserLayer) -> Self {
        self.innermost = Some(layer);
        self
    }

    /// Has the shards of the client given to tests.
    #[cfg(feature = "server")]
    pub(crate) fn started(mut self, shards: Vec<StartedShards>) -> Self {
        self.supplied.started = shards;
        self
    }

    /// Who finds the addresses of names.
    #[cfg(test)]
    pub(crate) fn resolver(mut self, resolver: crate::net::reach::Resolver) -> Self {
        self.supplied.way = Way::Sockets(resolver);
        self
    }

    /// Checks everything and starts the client, which connects in the background: no server needs to be up yet, and one
    /// that is not costs the others nothing. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), naming the value, or the file, and what would be right; also
    /// without a runtime, or on one without timers or sockets (with a [connector](Self::connector) timers are enough), and for a
    /// metrics recorder that panics.
    pub fn build(self) -> Result<Client> {
        let timeout = self.options.request_timeout;
        let retry = self.retry.map(|policy| policy.within(timeout));
        let retry = retry.map(|policy| UserLayer::new(RetryLayer::new(policy)));
        let layers: Vec<UserLayer> = retry.into_iter().chain(self.layers).chain(self.innermost).collect();
        let core = crate::service::start(self.options.check(self.supplied)?, &layers)?;
        Ok(Client::of(core))
    }

    /// As [`build`](Self::build), and waits until every server is connected.
    ///
    /// # Errors
    ///
    /// As `build`, and if the first attempt to connect to any of the servers fails:
    /// [`Connect`](crate::ErrorKind::Connect), [`Auth`](crate::ErrorKind::Auth) if the token is wrong, missing, not
    /// wanted or cannot be read, [`Protocol`](crate::ErrorKind::Protocol) if the peer is no dflockd server,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if it makes no fences and they are [required](Fencing::Required).
    ///
    /// # Cancel safety
    ///
    /// Safe: the connections are closed.
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

/// Begins with options. What is said to the builder then counts before them.
impl From<ClientOptions> for ClientBuilder {
    fn from(options: ClientOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }
}

/// Shows all settings, those with their defaults included, and `…` in place of secrets.
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
