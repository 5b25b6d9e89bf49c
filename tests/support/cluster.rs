//! An embedded cluster, clients of it, and proxies in front of its members.

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

/// A cluster whose events are recorded, so that [`History`] can judge them.
pub struct ClusterScene {
    pub cluster: Cluster,
    /// The time from which the record counts.
    start: Instant,
}

/// How long a patient cluster keeps leases and queue positions for a session after its connection has ended. No test
/// takes this long.
pub const KEPT: Duration = Duration::from_secs(600);

/// Returns the options of each member of a patient cluster: see [`KEPT`].
pub fn patient() -> ServerBuilder {
    Server::builder().orphan_ttl(KEPT)
}

/// The keepalive interval of clients whose waits must notice a change of leader soon.
pub const SOON_SEEN: Duration = Duration::from_millis(500);

/// Returns a policy with short pauses between attempts to connect.
pub fn soon() -> ReconnectPolicy {
    ReconnectPolicy::exponential(Duration::from_millis(2), Duration::from_millis(20))
}

/// A timeout that is over only if a test hangs.
pub const LONG: Duration = Duration::from_secs(60);

pub fn patiently(client: &Client, key: &str) -> Lock {
    client.lock(key).unwrap().acquire_timeout(LONG)
}

pub async fn queued(lock: &Lock) -> Ticket<LockGuard> {
    match lock.enqueue().await.unwrap() {
        Enqueued::Queued(ticket) => ticket,
        Enqueued::Acquired(guard) => panic!("{guard:?}: the key was free, so the call was not queued"),
    }
}

impl ClusterScene {
    pub async fn set(each: ServerBuilder) -> Self {
        Self::of(Cluster::builder(), each).await
    }

    /// Starts a cluster with the options of `builder`. Its members have the options `each`.
    pub async fn of(builder: ClusterBuilder, each: ServerBuilder) -> Self {
        let start = Instant::now();
        let each = each.record_events(true);
        let cluster = builder.options(each).start().await.unwrap();
        Self { cluster, start }
    }

    /// Configures a client that knows the orphan TTL of a patient cluster. Its waits notice a change of leader soon.
    pub fn builder(&self) -> ClientBuilder {
        let shard = Shard::cluster(self.cluster.addresses()).orphan_ttl(KEPT);
        Client::builder().shards([shard]).reconnect(soon()).keepalive(SOON_SEEN)
    }

    pub async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// Acquires a key with a new client. Only the guard keeps this client alive.
    pub async fn hold(&self, key: &str) -> LockGuard {
        self.client().await.lock(key).unwrap().acquire().await.unwrap()
    }

    /// Returns the number of events of this kind for all keys.
    pub fn count(&self, kind: EventKind) -> usize {
        self.events(kind).len()
    }

    pub fn events(&self, kind: EventKind) -> Vec<Event> {
        let all = self.cluster.events().into_iter();
        all.filter(|event| event.kind == kind).collect()
    }

    /// Returns the number of waiters in all queues.
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

    /// Waits until no key is held and no caller waits. Then judges the record and checks the number of grants.
    pub async fn ends_with_grants(&self, grants: usize) {
        self.until_free().await;
        assert_eq!(self.judge().grants, grants);
    }

    /// Returns an observer of a client's callers. Its times count from the same start as the cluster's record.
    pub fn observer(&self, process: &str) -> Observer {
        Observer::new(process, self.start)
    }

    /// Returns the cluster's record.
    pub fn lines(&self) -> Vec<Line> {
        observed::lines("cluster", self.cluster.events(), self.start)
    }

    /// Asserts that the record keeps all rules: for example, no key had too many holders, and no waiter was overtaken.
    pub fn judge(&self) -> Counts {
        History::default().with(self.lines()).judge(&Bounds::default()).assert()
    }
}

/// One proxy in front of each member of a cluster.
pub struct Cut {
    pub proxies: Vec<Proxy>,
}

impl Cut {
    /// Starts a patient cluster, and proxies in front of its members.
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

    /// Configures a client that knows the orphan TTL of a patient cluster and connects through the proxies.
    pub fn builder(&self) -> ClientBuilder {
        Client::builder()
            .shards([self.shard().orphan_ttl(KEPT)])
            .reconnect(soon())
    }

    /// Returns the members behind the proxies as a shard. A client of this shard does not know the orphan TTL of the
    /// members.
    pub fn shard(&self) -> Shard {
        Shard::cluster(self.proxies.iter().map(|proxy| proxy.address.clone()))
    }

    pub async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// Makes the proxies pass nothing from now on. Neither clients nor members see their connections end.
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
