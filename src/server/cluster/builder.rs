//! The options of a cluster.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::port::Port;
use super::{Cluster, Member};
use crate::error::{Error, Result};
use crate::server::builder::ServerBuilder;
use crate::server::listen::Listener;
use crate::server::listener::Server;
use crate::server::random::Random;
use crate::server::release::Release;
use crate::server::state::State;

/// Configures a cluster.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until the cluster is started"]
pub struct ClusterBuilder {
    members: usize,
    each: ServerBuilder,
    earlier_builds: bool,
    closes_idle_connections: bool,
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            members: 3,
            each: ServerBuilder::default(),
            earlier_builds: false,
            closes_idle_connections: false,
        }
    }
}

impl ClusterBuilder {
    /// Sets the number of members. Default: 3.
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// Sets the options of each member. The port is ignored: each member gets a free one.
    /// [`release`](ServerBuilder::release) is always `cluster`. The caps on keys and waiters apply to the shared state;
    /// the cap on connections applies to each member. Default: as [`Server::builder`].
    pub fn options(mut self, each: ServerBuilder) -> Self {
        self.each = each;
        self
    }

    /// Sets whether to imitate the earlier builds of clusters. In these builds, sessions reclaim nothing without
    /// [`orphan_ttl`](ServerBuilder::orphan_ttl). With an orphan TTL, connections are matched by their ref alone (the
    /// name in `stable-ref`). So a session reclaims its leases and queue positions even from a connection that is still
    /// open. A renewal does not change the owner of a lease. A request that timed out stays in the queue, even if it
    /// was a try. Default: false.
    pub fn earlier_builds(mut self, earlier: bool) -> Self {
        self.earlier_builds = earlier;
        self
    }

    /// Sets whether members close a connection on which they have read nothing for the [read
    /// timeout](ServerBuilder::read_timeout), as single servers up to 2.1 do. Otherwise connections can be idle, and
    /// the timeout starts with the first byte of a request. Default: false.
    pub fn closes_idle_connections(mut self, closes: bool) -> Self {
        self.closes_idle_connections = closes;
        self
    }

    /// For a test: wakes it at each event.
    pub(crate) fn waking(mut self, changed: &Arc<Notify>) -> Self {
        self.each = self.each.waking(changed);
        self
    }

    /// Starts all members, on the current tokio runtime. The first member leads.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) without members, and for the same reasons as
    ///   [`ServerBuilder::start`].
    /// - [`ErrorKind::Connect`](crate::ErrorKind::Connect) if the address cannot be bound, or if the operating system
    ///   provides no random numbers.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, nothing listens.
    pub async fn start(self) -> Result<Cluster> {
        crate::runtime::current("a cluster", true)?;
        let mut ports = Vec::new();
        let mut listeners = Vec::new();
        for _ in 0..self.members {
            let (port, listener) = Port::open(&self.each.host).await?;
            ports.push(port);
            listeners.push(listener);
        }
        let cluster = self.of(ports)?;
        for (number, listener) in listeners.into_iter().enumerate() {
            let member = cluster.member(number)?;
            let listening = (listener, member.port.address());
            *member.running() = Some(Server::serve(listening, cluster.served_by(number)));
        }
        Ok(cluster)
    }

    /// Starts a member at each of these addresses, on listeners that need not be sockets, on the current tokio runtime.
    /// The first member leads. `listen` is called for each member now, and again when a stopped member is
    /// [started](Cluster::start); its future returns the listener. [`members`](Self::members) is ignored. See
    /// [`Listener`] for an example of a listener.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) without addresses, and for the same reasons as
    ///   [`ServerBuilder::start_on`].
    /// - [`ErrorKind::Connect`](crate::ErrorKind::Connect) if `listen` fails, or if the operating system provides no
    ///   random numbers.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, nothing is served.
    pub async fn start_on<L: Listener, F: Future<Output = io::Result<L>> + Send + 'static>(
        self,
        addresses: impl IntoIterator<Item = SocketAddr>,
        listen: impl Fn(SocketAddr) -> F + Send + Sync + 'static,
    ) -> Result<Cluster> {
        let listen = Arc::new(listen);
        let ports = addresses.into_iter().map(|address| {
            let listen = Arc::clone(&listen);
            Port::given(address, move |address| listen(address))
        });
        let cluster = self.of(ports.collect())?;
        for (number, member) in cluster.members.iter().enumerate() {
            let listening = member.port.listen().await?;
            *member.running() = Some(listening(cluster.served_by(number)));
        }
        Ok(cluster)
    }

    /// Creates a cluster whose members do not run yet.
    fn of(self, ports: Vec<Port>) -> Result<Cluster> {
        if ports.is_empty() {
            return Err(Error::invalid(
                "number of members",
                0,
                "a cluster needs at least one member, to lead it",
            ));
        }
        let mut options = self.each.check()?;
        options.release = Release::Cluster;
        options.earlier_builds = self.earlier_builds;
        options.closes_idle_connections = Some(self.closes_idle_connections);
        let addresses = ports.iter().map(Port::address).collect();
        let state = State::of_cluster(options.clone(), Random::of(options.seed)?, addresses);
        let members = ports.into_iter().map(|port| Member {
            port,
            running: Mutex::default(),
        });
        Ok(Cluster {
            state: Arc::new(Mutex::new(state)),
            options,
            members: members.collect(),
        })
    }
}
