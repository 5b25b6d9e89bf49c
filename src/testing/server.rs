//! A server, or a cluster, for the test that owns it.

use std::fmt;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tower::service_fn;

use super::gate::Gate;
use super::network::{Network, next_address};
use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::net::endpoint::Endpoint;
use crate::protocol::Status;
use crate::server::control::{Control, ObservedLease};
use crate::server::{Cluster, ClusterBuilder, Event, Server, ServerBuilder};
use crate::shard::started::StartedShards;
use crate::shards::Shard;
use crate::stats::Stats;
use crate::types::{Key, Token};

/// How long a test waits for what it wants to see on the server, by the clock of its runtime.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server for the test that owns it, in this process, on connections in memory: without a port, without the environment, and in paused
/// time as well. See the [module](super).
///
/// It is the [embedded server](crate::server), no kinder than real ones: leases expire on their time, a connection that is silent for too long
/// is closed, and what a connection acquired is released when it ends.
///
/// Dropping it stops it at once, without waiting for anything: its clients see that their connections end, and that new ones are refused.
#[must_use = "a test server stops when it is dropped"]
pub struct TestServer {
    serving: Serving,
    control: Control,
    network: Network,
    addresses: Vec<String>,
    /// Told when something has happened on the server.
    changed: Arc<Notify>,
    /// Those of its clients.
    shards: StartedShards,
    _opens: OpensWhenDropped,
}

enum Serving {
    Alone(Server),
    Cluster(Box<Cluster>),
}

/// A server that stalls ends for its clients all the same.
struct OpensWhenDropped(Gate);

impl Drop for OpensWhenDropped {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl TestServer {
    /// Starts a server with the defaults of the real one, on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] without a runtime, or on one without timers.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is served if it is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// let server = dflockd_client::testing::TestServer::start().await?;
    /// let client = server.client().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// # guard.release().await
    /// # }
    /// ```
    pub async fn start() -> Result<Self> {
        Self::start_with(Server::builder()).await
    }

    /// As [`start`](Self::start), with options. Its host and port do not count.
    ///
    /// # Errors
    ///
    /// As [`ServerBuilder::start_on`].
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is served if it is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::ErrorKind;
    /// use dflockd_client::server::Server;
    /// use dflockd_client::testing::TestServer;
    ///
    /// let server = TestServer::start_with(Server::builder().max_locks(1)).await?;
    /// let client = server.client().await?;
    /// let first = client.lock("orders/42")?.acquire().await?;
    /// let error = client.lock("orders/43")?.acquire().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::MaxLocks);
    /// # drop(first);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start_with(options: ServerBuilder) -> Result<Self> {
        let (network, changed) = (Network::default(), Arc::new(Notify::new()));
        let address = next_address();
        let listener = network.listen(address);
        let server = options.waking(&changed).start_on(listener, address).await?;
        let control = server.control();
        Ok(Self::of(
            Serving::Alone(server),
            control,
            network,
            vec![address.to_string()],
            changed,
        ))
    }

    /// Starts a cluster of so many members, the first of which leads. They agree at once; what a test may want of members beyond
    /// [`move_leader`](Self::move_leader) is at [`as_cluster`](Self::as_cluster).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] without members, and as [`start`](Self::start).
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is served if it is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// let cluster = dflockd_client::testing::TestServer::cluster(3).await?;
    /// let client = cluster.client().await?;
    /// client.lock("orders/42")?.acquire().await?.release().await?;
    /// cluster.move_leader()?;
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub async fn cluster(members: usize) -> Result<Self> {
        Self::cluster_with(members, Cluster::builder()).await
    }

    /// As [`cluster`](Self::cluster), with options. Its [`members`](ClusterBuilder::members) do not count, nor do host and port.
    ///
    /// # Errors
    ///
    /// As [`ClusterBuilder::start_on`].
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is served if it is dropped.
    pub async fn cluster_with(members: usize, options: ClusterBuilder) -> Result<Self> {
        let (network, changed) = (Network::default(), Arc::new(Notify::new()));
        let listens = network.clone();
        let addresses: Vec<_> = (0..members).map(|_| next_address()).collect();
        let listen = move |address| ready(Ok::<_, io::Error>(listens.listen(address)));
        let cluster = options.waking(&changed).start_on(addresses, listen).await?;
        let (control, addresses) = (cluster.control(), cluster.addresses());
        Ok(Self::of(
            Serving::Cluster(Box::new(cluster)),
            control,
            network,
            addresses,
            changed,
        ))
    }

    fn of(serving: Serving, control: Control, network: Network, addresses: Vec<String>, changed: Arc<Notify>) -> Self {
        Self {
            serving,
            control,
            addresses,
            changed,
            shards: StartedShards::default(),
            _opens: OpensWhenDropped(network.gate()),
            network,
        }
    }

    // Clients.

    /// A client of this server, connected, with the defaults of every client.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Safe: the connections are closed.
    pub async fn client(&self) -> Result<Client> {
        self.client_builder().connect().await
    }

    /// Describes a client of this server. Its [shards](ClientBuilder::shards) and its [connector](ClientBuilder::connector) are set; all else
    /// has the defaults of every client.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// use std::time::Duration;
    ///
    /// let client = server.client_builder().lease_ttl(Duration::from_secs(3)).connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn client_builder(&self) -> ClientBuilder {
        Self::client_builder_of([self])
    }

    /// Describes a client of several servers, each of which is a shard.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::testing::TestServer;
    ///
    /// let (one, other) = (TestServer::start().await?, TestServer::start().await?);
    /// let client = TestServer::client_builder_of([&one, &other]).connect().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// assert!(one.is_held("orders/42") != other.is_held("orders/42"));
    /// # drop(guard);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Where one is in reserve for another, say so by their [addresses](Self::addresses):
    /// `client_builder_of([&one, &other]).shards([Shard::standby([…])])`.
    pub fn client_builder_of<'a>(servers: impl IntoIterator<Item = &'a Self>) -> ClientBuilder {
        let mut shards = Vec::new();
        let mut networks = Vec::new();
        let mut started = Vec::new();
        for server in servers {
            shards.push(match &server.serving {
                Serving::Alone(alone) => Shard::single(alone.local_addr().to_string()),
                Serving::Cluster(_) => Shard::cluster(server.addresses.clone()),
            });
            networks.push(server.network.clone());
            started.push(server.shards.clone());
        }
        let connector = service_fn(move |endpoint: Endpoint| {
            let network = networks.iter().find(|network| network.leads_to(&endpoint));
            ready(match network {
                Some(network) => network.connect(&endpoint),
                None => Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "no test server of this client has this address",
                )),
            })
        });
        Client::builder().shards(shards).connector(connector).started(started)
    }

    /// The addresses by which the clients of this server know it: one, or that of each member. They mean nothing outside of the test.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    // What a test sees.

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

    // Faults.

    /// Takes all leases of a key away, as a server that has lost its memory of them: their tokens hold nothing, and those that wait are granted
    /// what became free. The holders are clients that were [made here](Self::client_builder): they ask about these leases at once, whatever
    /// their renewals, and lose them as [`Rejected`](crate::LostReason::Rejected). Until then they believe in them, as they would in any
    /// case. While the server [stalls](Self::stall) they hear nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotHeld`] if the key is not held, and [`ErrorKind::InvalidInput`] if it is invalid.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// server.lose("orders/42")?;
    /// assert_eq!(guard.lost().await, dflockd_client::LostReason::Rejected);
    /// # Ok(())
    /// # }
    /// ```
    pub fn lose(&self, key: impl AsRef<str>) -> Result<()> {
        self.revoke(key.as_ref(), None)
    }

    /// Takes one lease away, that of a [token](crate::Lease::token), where several hold slots of a semaphore. As [`lose`](Self::lose).
    ///
    /// # Errors
    ///
    /// As [`lose`](Self::lose).
    pub fn lose_one(&self, key: impl AsRef<str>, token: &Token) -> Result<()> {
        self.revoke(key.as_ref(), Some(token))
    }

    fn revoke(&self, key: &str, token: Option<&Token>) -> Result<()> {
        let key = Key::new(key)?;
        let revoked = self.control.revoke(&key, token);
        if revoked.is_empty() {
            return Err(Error::new(
                ErrorKind::NotHeld,
                format!("{key:?} is not held on this server, so nothing can be taken away"),
            ));
        }
        revoked.into_iter().for_each(|token| self.shards.check(token));
        Ok(())
    }

    /// Ends all connections. What was acquired over them is released, unless the server was told
    /// [otherwise](ServerBuilder::auto_release_on_disconnect), and clients lose it as [`Disconnected`](crate::LostReason::Disconnected). When
    /// this returns the server knows no connection any more; new ones succeed. Behind a [stall](Self::stall) clients notice it when that is over.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// server.cut();
    /// assert!(!server.is_held("orders/42"));
    /// assert_eq!(guard.lost().await, dflockd_client::LostReason::Disconnected);
    /// // By itself the client connects anew.
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub fn cut(&self) {
        self.control.cut();
    }

    /// From now on nothing comes through either way: the server reads no request, and no answer is read, until it is told to
    /// [resume](Self::resume). Connections stay open, and new ones are made. It is a network that has fallen silent: time goes on, so that
    /// leases expire, and both sides give up connections that are silent for too long. An answer that was on its way may still arrive.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// server.stall();
    /// // Its holder hears of it before the server grants the lock to another.
    /// guard.lost().await;
    /// assert!(server.is_held("orders/42"));
    /// server.resume();
    /// # Ok(())
    /// # }
    /// ```
    pub fn stall(&self) {
        self.network.gate().shut();
    }

    /// Ends a [stall](Self::stall). What was sent meanwhile arrives, also what was sent by clients that have given up.
    pub fn resume(&self) {
        self.network.gate().open();
    }

    /// Whether attempts to connect are refused, as by a machine on which no server runs. Connections that there are stay: with
    /// [`cut`](Self::cut) the server is away.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// use dflockd_client::ErrorKind;
    ///
    /// server.refuse_connections(true);
    /// server.cut();
    /// let error = client.lock("orders/42")?.acquire().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unavailable);
    /// server.refuse_connections(false);
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub fn refuse_connections(&self, refuses: bool) {
        self.network.refuse_connections(refuses);
    }

    /// Refuses the next attempt to connect. Called several times, it refuses so many.
    pub fn refuse_next_connection(&self) {
        self.network.refuse_next_connection();
    }

    /// Refuses the next acquire or enqueue of any key with a status, whether it would have been granted or not. Called several times, it
    /// refuses so many, in this order.
    ///
    /// Two statuses do more, as they do in real servers. [`Status::Auth`] is for the next connection, which is refused as if its secret were wrong,
    /// and no acquire is. [`Status::Draining`] closes the connection behind the answer, and what was acquired over it is released.
    ///
    /// What the client asks of the server by itself, to find out what it can do, is refused, too: with
    /// [`Fencing::Required`](crate::Fencing::Required) each new connection begins with such a request.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// use dflockd_client::ErrorKind;
    /// use dflockd_client::protocol::Status;
    ///
    /// server.refuse_next(Status::MaxWaiters);
    /// let error = client.lock("orders/42")?.acquire().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::MaxWaiters);
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub fn refuse_next(&self, status: Status) {
        match status {
            Status::Auth => self.control.refuse_secret(),
            status => self.control.refuse_acquire(status),
        }
    }

    /// Refuses the next renewal of any lease with a status. With [`Status::Error`] and [`Status::LeaseExpired`] the lease is lost, as
    /// [`Rejected`](crate::LostReason::Rejected), while the server knows it to the end of its TTL; with others the client tries again.
    pub fn refuse_next_renewal(&self, status: Status) {
        self.control.refuse_renewal(status);
    }

    /// Refuses the next release of any lease with a status. The server knows the lease to the end of its TTL, or until its connection ends.
    pub fn refuse_next_release(&self, status: Status) {
        self.control.refuse_release(status);
    }

    /// Has the next member of the cluster lead, in the order of their [addresses](Self::addresses). Members that are stopped or isolated are left
    /// out. Returns which one leads now, from 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if this is no [cluster](Self::cluster), or no other member can lead.
    pub fn move_leader(&self) -> Result<usize> {
        let members = self.addresses.len();
        let Serving::Cluster(cluster) = &self.serving else {
            let remedy = "it stands alone; start a cluster with TestServer::cluster";
            return Err(Error::invalid("server", &self.addresses, remedy));
        };
        let leads = cluster.leader();
        let next = leads.map_or(0, |leader| leader + 1);
        let others = (next..next + members).map(|member| member % members);
        let mut others = others.filter(|member| Some(*member) != leads);
        let moved = others.find(|member| cluster.move_leader(*member).is_ok());
        moved.ok_or_else(|| {
            let remedy = "no other member can lead: they are stopped or isolated, or there is none";
            Error::invalid("cluster of members", members, remedy)
        })
    }

    /// The cluster, with all that its members can be told to do; `None` for a server that stands alone.
    #[must_use]
    pub fn as_cluster(&self) -> Option<&Cluster> {
        match &self.serving {
            Serving::Alone(_) => None,
            Serving::Cluster(cluster) => Some(cluster),
        }
    }

    /// Shuts down in order, as [`Server::shutdown`]; of a cluster, one member after the other, as [`Cluster::shutdown`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the server at once.
    pub async fn shutdown(self) {
        self.resume();
        match self.serving {
            Serving::Alone(server) => drop(server.shutdown().await),
            Serving::Cluster(cluster) => {
                for member in 0..self.addresses.len() {
                    drop(cluster.shutdown(member).await);
                }
            }
        }
    }
}

impl fmt::Debug for TestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestServer")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}
