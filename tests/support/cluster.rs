//! A cluster, and a client that is told of all its members.

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

/// A cluster of three whose record can be judged.
pub struct ClusterScene {
    pub cluster: Cluster,
    /// From when the times of its record count.
    start: Instant,
}

/// For how long a patient cluster keeps what a connection leaves behind: longer than any test takes.
pub const KEPT: Duration = Duration::from_secs(600);

/// Orphans are kept for longer than any test takes.
pub fn patient() -> ServerBuilder {
    Server::builder().orphan_ttl(KEPT)
}

/// For how long a client need not have heard that its member leads, where callers wait.
pub const SOON_SEEN: Duration = Duration::from_millis(500);

/// Pauses that no test has to wait long for.
pub fn soon() -> ReconnectPolicy {
    ReconnectPolicy::exponential(Duration::from_millis(2), Duration::from_millis(20))
}

/// Nothing takes so long in a cluster of a test, unless it hangs.
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

    /// The same, of members that are told more than a server is.
    pub async fn of(builder: ClusterBuilder, each: ServerBuilder) -> Self {
        let start = Instant::now();
        let each = each.record_events(true);
        let cluster = builder.options(each).start().await.unwrap();
        Self { cluster, start }
    }

    /// Describes a client of the cluster, which was told that that is patient. Where callers wait, it soon sees that another leads.
    pub fn builder(&self) -> ClientBuilder {
        let shard = Shard::cluster(self.cluster.addresses()).orphan_ttl(KEPT);
        Client::builder().shards([shard]).reconnect(soon()).keepalive(SOON_SEEN)
    }

    pub async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// A key that a client of its own holds, which lives as long.
    pub async fn hold(&self, key: &str) -> LockGuard {
        self.client().await.lock(key).unwrap().acquire().await.unwrap()
    }

    /// How often something happened, to whatever key.
    pub fn count(&self, kind: EventKind) -> usize {
        self.events(kind).len()
    }

    pub fn events(&self, kind: EventKind) -> Vec<Event> {
        let all = self.cluster.events().into_iter();
        all.filter(|event| event.kind == kind).collect()
    }

    /// How many places there are in all queues.
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

    /// Nothing is held, and nobody waits.
    pub async fn until_free(&self) {
        until("nobody holds or waits", || {
            let stats = self.cluster.stats();
            stats.locks.is_empty() && stats.semaphores.is_empty()
        })
        .await;
    }

    /// Nothing is held any more, nobody waits, and so much was granted in all.
    pub async fn ends_with_grants(&self, grants: usize) {
        self.until_free().await;
        assert_eq!(self.judge().grants, grants);
    }

    /// Observes what the callers of a client do, for the same record.
    pub fn observer(&self, process: &str) -> Observer {
        Observer::new(process, self.start)
    }

    /// The cluster's record.
    pub fn lines(&self) -> Vec<Line> {
        observed::lines("cluster", self.cluster.events(), self.start)
    }

    /// No key was held by two at once, and nobody was passed over.
    pub fn judge(&self) -> Counts {
        History::default().with(self.lines()).judge(&Bounds::default()).assert()
    }
}

/// A way to the members that can be bad.
pub struct Cut {
    pub proxies: Vec<Proxy>,
}

impl Cut {
    /// A patient cluster, and such a way to it.
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

    /// Describes a client of a patient cluster.
    pub fn builder(&self) -> ClientBuilder {
        Client::builder()
            .shards([self.shard().orphan_ttl(KEPT)])
            .reconnect(soon())
    }

    /// The members, of which it is not known whether they keep anything.
    pub fn shard(&self) -> Shard {
        Shard::cluster(self.proxies.iter().map(|proxy| proxy.address.clone()))
    }

    pub async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// From now on nothing gets through, and nobody is told.
    pub fn black_hole(&self) {
        for proxy in &self.proxies {
            proxy.change(|weather| {
                weather.stall_up = true;
                weather.stall_down = true;
                weather.stall_ends = true;
            });
        }
    }

    pub fn off(&self) {
        for proxy in &self.proxies {
            proxy.change(|weather| weather.refuse = true);
            proxy.cut();
        }
    }

    pub fn on(&self) {
        for proxy in &self.proxies {
            proxy.clear_up();
        }
    }
}

/// The client's one shard, as it sees it.
pub fn health(client: &Client) -> ShardHealth {
    client.health().remove(0)
}

/// Returns once the client's one shard is served from there.
pub async fn until_served_by(client: &Client, address: &str) {
    until(&format!("{address} serves"), || {
        let health = health(client);
        health.is_connected() && *health.endpoint == *address
    })
    .await;
}
