//! Waits must not starve, deadlock or flood: many waits on few connections, dropped waits, and servers that accept no more connections.

mod crowd;
mod dropped;
mod full;
mod scarce;

use std::time::Duration;

use dflockd_client::server::{Event, EventKind, Server, ServerBuilder};
use dflockd_client::{Client, ClientBuilder, Lock};

use crate::support::recorder::Recorded;
use crate::support::until;

/// The timeout of callers in tests that do not depend on it.
const LONG: Duration = Duration::from_secs(120);

/// A time that only a hang or a deadlock exceeds.
const SOON: Duration = Duration::from_secs(30);

/// A server, the metrics of a client of it, and a client of another process.
struct Scene {
    server: Server,
    recorded: Recorded,
    holder: Client,
}

impl Scene {
    async fn set() -> Self {
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

    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .servers([address(&self.server)])
            .acquire_timeout(LONG)
            .metrics_recorder(self.recorded.clone())
    }

    /// Returns the length of all queues together.
    fn waiters(&self) -> u64 {
        let stats = self.server.stats();
        let locks = stats.locks.iter().map(|lock| lock.waiters);
        let semaphores = stats.semaphores.iter().map(|semaphore| semaphore.waiters);
        locks.chain(semaphores).sum()
    }

    async fn until_waiters(&self, count: u64) {
        until(&format!("{count} wait on the server"), || self.waiters() == count).await;
    }

    /// Waits until this many callers of the client wait, in the client (`local`) or at the server.
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

    /// Waits until only these locks are held or waited for.
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

    /// Returns the number of connections for waits that the client has made.
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
