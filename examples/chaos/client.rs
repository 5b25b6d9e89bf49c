//! A client process of the run.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use dflockd_client::{Client, ClientBuilder, Fencing, OnUnavailable, ReconnectPolicy, Shard};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::job::{ClientJob, ORPHAN_TTL_OF_CLIENTS, REQUEST_TIMEOUT, TTL, Ways};
use crate::resource::Resource;
use crate::tasks::Worker;
use crate::witness::Witness;

/// Runs the tasks of the client until standard input ends.
pub(crate) async fn run(job: ClientJob) -> Result<ExitCode, Box<dyn Error>> {
    fastrand::seed(job.seed);
    let witness = Witness::open(&job.record)?;
    witness.begins();
    let resource = Resource::open(&job.record.directory)?;
    // The settings are random, so that the client processes differ.
    let locks = of_locks(&job.ways)
        .pipelined_connections(fastrand::usize(1..=2))
        .exclusive_connections(fastrand::usize(8..=24))
        .exclusive_connections_per_key(fastrand::usize(1..=4))
        .on_unavailable(match fastrand::bool() {
            true => OnUnavailable::FailFast,
            false => OnUnavailable::Wait,
        })
        .build()?;
    let signals = impatient().servers([&job.ways.signals]).build()?;
    let end = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let worker = Worker::new(&witness, resource, &job.record, [&locks, &signals], &end)?;
    worker.spawn_all(&mut tasks);
    drop(worker);

    let (mut input, mut nothing) = (tokio::io::stdin(), [0; 16]);
    while input.read(&mut nothing).await? > 0 {}
    end.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    for client in [locks, signals] {
        client.shutdown(Duration::from_secs(5)).await;
    }
    witness.ends();
    witness.writer.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// Configures the client for locks. Keys that begin with `a` or `b` belong to the two standalone servers. All other
/// keys belong to the cluster.
fn of_locks(ways: &Ways) -> ClientBuilder {
    let cluster = Shard::cluster(&ways.members).orphan_ttl(ORPHAN_TTL_OF_CLIENTS);
    let singles = ways.singles.iter().map(Shard::single);
    let strategy = |key: &str, shards: usize| match key.as_bytes().first() {
        Some(b'a') => 0,
        Some(b'b') => 1,
        _ => shards - 1,
    };
    impatient()
        .shards(singles.chain([cluster]))
        .sharding_strategy(strategy)
        .fencing(Fencing::Required)
}

fn impatient() -> ClientBuilder {
    let soon = ReconnectPolicy::exponential(Duration::from_millis(20), Duration::from_millis(400));
    Client::builder()
        .reconnect(soon)
        .lease_ttl(TTL)
        .connect_timeout(Duration::from_secs(1))
        .reply_timeout(Duration::from_secs(1))
        .keepalive(Duration::from_secs(1))
        .request_timeout(REQUEST_TIMEOUT)
}
