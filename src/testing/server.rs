//! The test server: a server or a cluster that belongs to a test.

mod faults;
mod observing;

use std::fmt;
use std::future::ready;
use std::io;
use std::sync::Arc;

use tokio::sync::Notify;
use tower::service_fn;

use super::gate::Gate;
use super::network::{Network, next_address};
use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::error::Result;
use crate::net::endpoint::Endpoint;
use crate::server::control::Control;
use crate::server::{Cluster, ClusterBuilder, Server, ServerBuilder};
use crate::shard::started::StartedShards;
use crate::shards::Shard;

/// A server for one test, in this process, on connections in memory: without a port or environment variables, and also
/// in paused time. See the [module](super).
///
/// It is the [embedded server](crate::server) and as strict as a real one: leases expire, the server closes a
/// connection that is silent for too long, and it releases the leases of a connection that ends.
///
/// Dropping it stops it at once: the connections of its clients end, and new ones are refused.
#[must_use = "a test server stops when it is dropped"]
pub struct TestServer {
    serving: Serving,
    control: Control,
    network: Network,
    addresses: Vec<String>,
    /// Notified of each change on the server.
    changed: Arc<Notify>,
    /// The shards of its clients.
    shards: StartedShards,
    _opens: OpensWhenDropped,
}

enum Serving {
    Alone(Server),
    Cluster(Box<Cluster>),
}

/// Ends a stall, so that the clients see the end of the server.
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
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) without a runtime, or on one without timers.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, no server runs.
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

    /// Starts a server with options, whose host and port are ignored.
    ///
    /// # Errors
    ///
    /// As [`ServerBuilder::start_on`].
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, no server runs.
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

    /// Starts a cluster of `members` members, of which the first is the leader. They replicate without delay.
    /// [`move_leader`](Self::move_leader) changes the leader; [`as_cluster`](Self::as_cluster) has all other controls.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if `members` is 0, and as [`start`](Self::start).
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, no server runs.
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

    /// Starts a cluster with options, whose [`members`](ClusterBuilder::members), host and port are ignored.
    ///
    /// # Errors
    ///
    /// As [`ClusterBuilder::start_on`].
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, no server runs.
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

    /// Returns a connected client of this server, with default settings.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future closes the connections.
    pub async fn client(&self) -> Result<Client> {
        self.client_builder().connect().await
    }

    /// Returns a builder for a client of this server. Its [shards](ClientBuilder::shards) and
    /// [connector](ClientBuilder::connector) are set; everything else has its default.
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

    /// Returns a builder for a client of several servers, each of which is a shard.
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
    /// If one is a standby of another, use their [addresses](Self::addresses): `client_builder_of([&one,
    /// &other]).shards([Shard::standby([…])])`.
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

    /// Returns the addresses of this server for its clients: one, or that of each member. They exist only in the test.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// Shuts down as [`Server::shutdown`] does; a cluster one member after the other, as [`Cluster::shutdown`] does.
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
