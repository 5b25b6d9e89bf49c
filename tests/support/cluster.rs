//! A cluster, and a client that knows the addresses of all its members.

use std::time::Duration;

use dflockd_client::server::{Cluster, ClusterBuilder, Event, EventKind, Server, ServerBuilder};
use dflockd_client::{Client, ClientBuilder, Enqueued, Lock, LockGuard, ReconnectPolicy, Shard, ShardHealth, Ticket};

use tokio::time::Instant;

use super::history::History;
use super::history::bounds::Bounds;
use super::history::record::Line;
use super::history::verdict::Counts;
use super::observed::{self, Observer};
use super::proxy::Proxy;
use super::until;

/// A cluster of three members whose record can be judged.
pub struct ClusterScene {
    pub cluster: Cluster,
    /// The origin of the times in its record.
    start: Instant,
}

/// The orphan TTL of a patient cluster: longer than any test takes.
pub const KEPT: Duration = Duration::from_secs(600);

/// Keeps orphans for longer than any test takes.
pub fn patient() -> ServerBuilder {
    Server::builder().orphan_ttl(KEPT)
}

/// The keepalive of clients whose waits must notice a change of leader soon.
pub const SOON_SEEN: Duration = Duration::from_millis(500);

/// Short pauses between attempts.
pub fn soon() -> ReconnectPolicy {
    ReconnectPolicy::exponential(Duration::from_millis(2), Duration::from_millis(20))
}

/// A time that only a hang exceeds.
pub const LONG: Duration = Duration::from_secs(60);

pub fn patiently(client: &Client, key: &str) -> Lock {
    client.lock(key).unwrap().acquire_timeout(LONG)
}

pub async fn queued(lock: &Lock) -> Ticket<LockGuard> {
    match lock.enqueue().await.unwrap() {
        Enqueued::Queued(ticket) => ticket,
        Enqueued::Acquired(guard) => panic!("{guard:?} was free"),
    }
}

impl ClusterScene {
    pub async fn set(each: ServerBuilder) -> Self {
        Self::of(Cluster::builder(), each).await
    }

    /// The same for a cluster with options beyond those of a server.
    pub async fn of(builder: ClusterBuilder, each: ServerBuilder) -> Self {
        let start = Instant::now();
        let each = each.record_events(true);
        let cluster = builder.options(each).start().await.unwrap();
        Self { cluster, start }
    }

    /// Configures a client that knows that the cluster is patient. Its waits notice a change of leader soon.
    pub fn builder(&self) -> ClientBuilder {
        let shard = Shard::cluster(self.cluster.addresses()).orphan_ttl(KEPT);
        Client::builder().shards([shard]).reconnect(soon()).keepalive(SOON_SEEN)
    }

    pub async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// Acquires a key with a client of its own, which lives as long as the guard.
    pub async fn hold(&self, key: &str) -> LockGuard {
        self.client().await.lock(key).unwrap().acquire().await.unwrap()
    }

    /// Returns the number of events of this kind, of all keys.
    pub fn count(&self, kind: EventKind) -> usize {
        self.events(kind).len()
    }

    pub fn events(&self, kind: EventKind) -> Vec<Event> {
        let all = self.cluster.events().into_iter();
        all.filter(|event| event.kind == kind).collect()
    }

    /// Returns the length of all queues together.
    pub fn waiters(&self) -> u64 {
        let stats = self.cluster.stats();
        let locks = stats.locks.iter().map(|lock| lock.waiters);
        locks
            .chain(stats.semaphores.iter().map(|semaphore| semaphore.waiters))
            .sum()
    }

    pub async fn until_waiters(&self, count: u64) {
        until(&format!("{count} wait"), || self.waiters() == count).await;
    }

    /// Waits until no key is held and no caller waits.
    pub async fn until_free(&self) {
        until("no caller holds or waits", || {
            let stats = self.cluster.stats();
            stats.locks.is_empty() && stats.semaphores.is_empty()
        })
        .await;
    }

    /// Waits until no key is held and no caller waits, and checks the number of grants.
    pub async fn ends_with_grants(&self, grants: usize) {
        self.until_free().await;
        assert_eq!(self.judge().grants, grants);
    }

    /// Observes the callers of a client, for the same record.
    pub fn observer(&self, process: &str) -> Observer {
        Observer::new(process, self.start)
    }

    /// The cluster's record.
    pub fn lines(&self) -> Vec<Line> {
        observed::lines("cluster", self.cluster.events(), self.start)
    }

    /// Asserts that no key had two holders at once, and that no waiter was overtaken.
    pub fn judge(&self) -> Counts {
        History::default().with(self.lines()).judge(&Bounds::default()).assert()
    }
}

/// Proxies in front of all members.
pub struct Cut {
    pub proxies: Vec<Proxy>,
}

impl Cut {
    /// Starts a patient cluster and proxies in front of it.
    pub async fn of_patient() -> (ClusterScene, Self) {
        let scene = ClusterScene::set(patient()).await;
        let cut = Self::of(&scene).await;
        (scene, cut)
    }

    pub async fn of(scene: &ClusterScene) -> Self {
        let mut proxies = Vec::new();
        for address in scene.cluster.addresses() {
            proxies.push(Proxy::start(&address).await);
        }
        Self { proxies }
    }

    /// Configures a client that knows that the cluster is patient.
    pub fn builder(&self) -> ClientBuilder {
        Client::builder()
            .shards([self.shard().orphan_ttl(KEPT)])
            .reconnect(soon())
    }

    /// Returns a shard of the members for clients that do not know that the members keep orphans.
    pub fn shard(&self) -> Shard {
        Shard::cluster(self.proxies.iter().map(|proxy| proxy.address.clone()))
    }

    pub async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// Lets nothing pass from now on. Neither side sees its connections end.
    pub fn black_hole(&self) {
        for proxy in &self.proxies {
            proxy.change(|treatment| {
                treatment.stall_up = true;
                treatment.stall_down = true;
                treatment.stall_ends = true;
            });
        }
    }

    pub fn off(&self) {
        for proxy in &self.proxies {
            proxy.change(|treatment| treatment.refuse = true);
            proxy.cut();
        }
    }

    pub fn on(&self) {
        for proxy in &self.proxies {
            proxy.pass_everything();
        }
    }
}

/// Returns the health of the client's only shard.
pub fn health(client: &Client) -> ShardHealth {
    client.health().remove(0)
}

/// Waits until this address serves the client's only shard.
pub async fn until_served_by(client: &Client, address: &str) {
    until(&format!("{address} serves"), || {
        let health = health(client);
        health.is_connected() && *health.endpoint == *address
    })
    .await;
}
