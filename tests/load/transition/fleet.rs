//! Three servers, and clients of the three generations of a fleet that grows from two servers to three.
#![allow(unreachable_pub)]

use std::time::Duration;

use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder};
use tokio::time::Instant;

use crate::support::proxy::Proxy;
use crate::support::until;

/// This key moves from shard 0 to shard 2, which is new.
pub const MOVES: &str = "02/key";
/// This key moves from shard 1 to shard 0, which is in both lists. A change of the sharding strategy can cause this.
pub const MOVES_BACK: &str = "10/key";
/// This key stays on shard 1.
pub const STAYS: &str = "11/key";

pub struct Fleet {
    pub servers: Vec<Server>,
    pub proxies: Vec<Proxy>,
    pub start: Instant,
}

/// Returns one of the two digits before the last slash of a key. The digit at place 0 is the shard of the key in the
/// previous list, and the digit at place 1 is its shard in the current list.
fn digit(key: &str, place: usize) -> usize {
    let slash = key.rfind('/').unwrap();
    usize::from(key.as_bytes()[slash - 2 + place] - b'0')
}

/// The sharding strategy of the previous list.
pub fn before(key: &str, _: usize) -> usize {
    digit(key, 0)
}

/// The sharding strategy of the current list.
pub fn now(key: &str, _: usize) -> usize {
    digit(key, 1)
}

impl Fleet {
    pub async fn start() -> Self {
        Self::start_release("2.1.1").await
    }

    pub async fn start_release(release: &str) -> Self {
        let start = Instant::now();
        let (mut servers, mut proxies) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let server = Server::builder().release(release).record_events(true).port(0);
            let server = server
                .lease_sweep_interval(Duration::from_millis(50))
                .start()
                .await
                .unwrap();
            proxies.push(Proxy::start(&server.local_addr().to_string()).await);
            servers.push(server);
        }
        Self {
            servers,
            proxies,
            start,
        }
    }

    fn addresses(&self, shards: usize) -> Vec<String> {
        self.proxies[..shards]
            .iter()
            .map(|proxy| proxy.address.clone())
            .collect()
    }

    /// Returns a function that cuts all connections to a server.
    pub fn cutter(&self) -> impl Fn(usize) + Send + 'static + use<> {
        let cutters: Vec<_> = self.proxies.iter().map(Proxy::cutter).collect();
        move |server| cutters[server]()
    }

    /// Configures a client with the previous list, which has two servers.
    pub fn previous(&self) -> ClientBuilder {
        Client::builder().servers(self.addresses(2)).sharding_strategy(before)
    }

    /// Configures a client in the transition from two servers to three.
    pub fn both(&self) -> ClientBuilder {
        self.current()
            .previous_servers(self.addresses(2))
            .previous_sharding_strategy(before)
    }

    /// Configures a client in the transition from three servers to two.
    pub fn both_to_shrink(&self) -> ClientBuilder {
        self.previous()
            .previous_servers(self.addresses(3))
            .previous_sharding_strategy(now)
    }

    /// Configures a client with the current list, which has three servers.
    pub fn current(&self) -> ClientBuilder {
        Client::builder().servers(self.addresses(3)).sharding_strategy(now)
    }

    /// Connects one client with the previous list, one in the transition, and one with the current list.
    pub async fn clients(&self) -> [Client; 3] {
        [
            self.previous().connect().await.unwrap(),
            self.both().connect().await.unwrap(),
            self.current().connect().await.unwrap(),
        ]
    }

    /// Returns the numbers of holders and of waiters on a server, over all keys.
    pub fn load(&self, server: usize) -> (usize, usize) {
        let stats = self.servers[server].stats();
        let locks = stats.locks.iter().map(|lock| (1, lock.waiters));
        let slots = stats.semaphores.iter().map(|slots| (slots.holders, slots.waiters));
        locks.chain(slots).fold((0, 0), |(held, waiters), (more, waiting)| {
            (
                held + usize::try_from(more).unwrap(),
                waiters + usize::try_from(waiting).unwrap(),
            )
        })
    }

    /// Waits until the numbers of holders and waiters on the three servers are `loads`.
    pub async fn until_load(&self, loads: [(usize, usize); 3]) {
        until(&format!("holders and waiters are {loads:?}"), || {
            [0, 1, 2].map(|server| self.load(server)) == loads
        })
        .await;
    }

    pub async fn until_free(&self) {
        self.until_load([(0, 0); 3]).await;
    }
}
