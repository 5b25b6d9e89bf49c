//! Many waits on few connections, dropped waits, and servers that accept no more connections. Waits must not starve or
//! deadlock, and must not open too many connections.

mod crowd;
mod dropped;
mod full;
mod scarce;

use std::time::Duration;

use dflockd_client::server::{Event, EventKind, Server, ServerBuilder};
use dflockd_client::{Client, ClientBuilder, Lock};

use crate::support::recorder::Recorded;
use crate::support::until;

/// A timeout that no test reaches.
const LONG: Duration = Duration::from_secs(120);

/// A timeout that only a hang or a deadlock exceeds.
const SOON: Duration = Duration::from_secs(30);

/// A server and two clients of it: the client under test, which [`Scene::builder`] configures, and `holder`.
struct Scene {
    server: Server,
    /// The metrics of the client under test.
    recorded: Recorded,
    /// A client that holds the keys for which the client under test waits.
    holder: Client,
}

impl Scene {
    async fn start() -> Self {
        Self::of(Server::builder()).await
    }

    async fn of(server: ServerBuilder) -> Self {
        let server = server.max_locks(100_000).port(0).record_events(true).start();
        let server = server.await.unwrap();
        let holder = Client::builder().servers([address(&server)]).connect().await.unwrap();
        Self {
            server,
            recorded: Recorded::default(),
            holder,
        }
    }

    /// Configures the client under test.
    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .servers([address(&self.server)])
            .acquire_timeout(LONG)
            .metrics_recorder(self.recorded.clone())
    }

    /// Returns the number of waiters in all queues of the server.
    fn waiters(&self) -> u64 {
        let stats = self.server.stats();
        let locks = stats.locks.iter().map(|lock| lock.waiters);
        let semaphores = stats.semaphores.iter().map(|semaphore| semaphore.waiters);
        locks.chain(semaphores).sum()
    }

    async fn until_waiters(&self, count: u64) {
        until(&format!("{count} waiters are queued at the server"), || {
            self.waiters() == count
        })
        .await;
    }

    /// Waits until `count` callers of the client under test wait. With the state `server` they have a queue position at
    /// the server, and with `local` they wait in the client.
    async fn until_waiting(&self, state: &str, count: usize) {
        let value = || self.recorded.value("waiters", &[("state", state)]);
        until(&format!("{count} wait: {state}"), || value() == count as f64).await;
    }

    async fn until_free(&self) {
        until("no caller holds or waits", || {
            let stats = self.server.stats();
            stats.locks.is_empty() && stats.semaphores.is_empty()
        })
        .await;
    }

    /// Waits until the server has no holders and no waiters of locks outside `keys`.
    async fn until_free_but(&self, keys: &[&str]) {
        until("all other keys are free", || {
            let locks = self.server.stats().locks;
            locks.iter().all(|lock| keys.contains(&lock.key.as_str()))
        })
        .await;
    }

    fn events(&self, kind: EventKind, key: &str) -> Vec<Event> {
        let all = self.server.events().into_iter();
        all.filter(|event| event.kind == kind && event.key.as_str() == key)
            .collect()
    }

    /// Returns how often the client under test has tried to open an exclusive connection.
    fn connects(&self) -> f64 {
        self.recorded.value("connects_total", &[("kind", "exclusive")])
    }
}

fn address(server: &Server) -> String {
    server.local_addr().to_string()
}

/// Waits for a lock and releases it at once.
async fn pass_through(lock: Lock) {
    lock.acquire().await.unwrap().release().await.unwrap();
}
