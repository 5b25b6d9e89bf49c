//! The load: two clients (for locks and for signals), and the tasks that use them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use dflockd_client::{Client, ClientBuilder, Fencing, ReconnectPolicy, Shard};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Arguments;
use crate::meter::Meter;
use crate::servers::Addresses;
use crate::tasks::Worker;

/// The orphan TTL of the members of the cluster.
pub(crate) const KEPT: Duration = Duration::from_secs(10);

pub(crate) struct Load {
    client: Client,
    signals: Client,
    tasks: JoinSet<()>,
}

impl Load {
    pub(crate) async fn start(
        arguments: &Arguments,
        addresses: &Addresses,
        meter: &Arc<Meter>,
        end: &CancellationToken,
    ) -> Result<Self, Box<dyn Error>> {
        let client = of_locks(addresses).connect().await?;
        let signals = of_signals(addresses).connect().await?;
        let worker = Worker::new(
            client.clone(),
            signals.clone(),
            addresses.clone(),
            meter,
            end,
            arguments.pace,
        );
        let mut tasks = JoinSet::new();
        const HOLDERS: usize = 16;
        for number in 0..HOLDERS {
            tasks.spawn(worker.clone().hold(number, arguments.leases / HOLDERS));
        }
        for number in 0..8 {
            tasks.spawn(worker.clone().pairs(number));
            tasks.spawn(worker.clone().slots());
            tasks.spawn(worker.clone().drop_futures());
        }
        for number in 0..16 {
            tasks.spawn(worker.clone().wait_turns(number));
        }
        for number in 0..4 {
            tasks.spawn(worker.clone().tickets());
            tasks.spawn(worker.clone().subscribe(number));
        }
        for _ in 0..2 {
            tasks.spawn(worker.clone().take_several());
            tasks.spawn(worker.clone().lead());
        }
        tasks.spawn(worker.clone().emit());
        tasks.spawn(worker.clone().come_and_go());
        tasks.spawn(worker.read_stats());
        Ok(Self { client, signals, tasks })
    }

    /// Waits until the tasks have ended, then shuts the clients down. Returns an error if a task has panicked.
    pub(crate) async fn end(mut self) -> Result<(), Box<dyn Error>> {
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        for client in [self.client, self.signals] {
            client.shutdown(Duration::from_secs(20)).await;
        }
        Ok(())
    }
}

/// Keys that begin with `s/` belong to the single server. All other keys belong to the cluster.
pub(crate) fn of_locks(addresses: &Addresses) -> ClientBuilder {
    let cluster = Shard::cluster(&addresses.members).orphan_ttl(KEPT);
    gentle()
        .shards([Shard::single(&addresses.single), cluster])
        .sharding_strategy(|key: &str, _| usize::from(!key.starts_with("s/")))
        .fencing(Fencing::Required)
        .lease_ttl(Duration::from_secs(20))
}

pub(crate) fn of_signals(addresses: &Addresses) -> ClientBuilder {
    gentle().servers([&addresses.signals])
}

fn gentle() -> ClientBuilder {
    let soon = ReconnectPolicy::exponential(Duration::from_millis(10), Duration::from_millis(500));
    Client::builder()
        .reconnect(soon)
        .keepalive(Duration::from_secs(2))
        .acquire_timeout(Duration::from_secs(5))
}
