//! What it costs to hold many leases: sockets, memory, processor time, and the pairs of a caller in the foreground.
//!
//!     cargo run --release --example server -- --max-locks 1000000 &
//!     cargo run --release --example held -- --leases 100000 --ttl 30 --seconds 60 --servers 127.0.0.1:6388
//!
//! A caller acquires and releases a key of its own every two milliseconds, first while the client is idle and then while it holds. What
//! these pairs take of the processor is measured while the client is idle, and not counted later.
//!
//! Without `--servers` it starts an embedded server in this process; memory, sockets and processor time then are those of both.

mod foreground;
mod usage;

use std::error::Error;
use std::time::{Duration, Instant};

use clap::Parser;
use dflockd_client::server::Server;
use dflockd_client::{Client, LockGuard};

use self::foreground::Foreground;
use self::usage::Usage;

#[derive(Parser)]
struct Arguments {
    /// How many leases to hold.
    #[arg(long, default_value_t = 10_000)]
    leases: usize,
    /// Their TTL in seconds.
    #[arg(long, default_value_t = 30)]
    ttl: u64,
    /// For how long to hold them, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// For how long the foreground is measured while nothing is held, in seconds.
    #[arg(long, default_value_t = 5)]
    idle_seconds: u64,
    /// The servers, as host:port; an embedded one if there are none.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let embedded = match arguments.servers.is_empty() {
        true => Some(Server::builder().port(0).max_locks(10_000_000).start().await?),
        false => None,
    };
    let servers = match &embedded {
        Some(server) => vec![server.local_addr().to_string()],
        None => arguments.servers,
    };
    let client = Client::builder()
        .servers(servers)
        .lease_ttl(Duration::from_secs(arguments.ttl))
        .connect()
        .await?;
    // One pair first, so that what is there once and for all is not counted.
    client.lock("held/warm-up")?.acquire().await?.release().await?;
    let began = Usage::now();
    let idle = Foreground::during(&client, Duration::from_secs(arguments.idle_seconds)).await?;
    let empty = Usage::now();

    let started = Instant::now();
    let guards = acquire_all(&client, arguments.leases).await?;
    let taken = started.elapsed();
    let full = Usage::now();
    println!(
        "{} leases taken in {taken:.2?}",
        guards.iter().map(Vec::len).sum::<usize>()
    );
    if let (Some(empty), Some(full)) = (&empty, &full) {
        println!(
            "memory: {} bytes per lease; {} sockets",
            full.resident.saturating_sub(empty.resident) / arguments.leases.max(1),
            full.sockets
        );
    }

    let held_from = Instant::now();
    let busy = Foreground::during(&client, Duration::from_secs(arguments.seconds)).await?;
    let held = guards.iter().flatten().filter(|guard| guard.is_held()).count();
    println!(
        "{held} of {} are held after {:.0?}",
        arguments.leases,
        held_from.elapsed()
    );
    if let (Some(began), Some(empty), Some(full), Some(end)) = (began, empty, full, Usage::now()) {
        let of_a_pair = (empty.processor - began.processor) / idle.pairs().max(1) as f64;
        let used = end.processor - full.processor;
        let by_leases = (used - of_a_pair * busy.pairs() as f64).max(0.0);
        let share = |seconds: f64| 100.0 * seconds / held_from.elapsed().as_secs_f64();
        println!(
            "processor: {:.2} % of one core, {:.2} % without the pairs of the foreground",
            share(used),
            share(by_leases)
        );
    }
    for (when, pairs) in [("idle", &idle), ("holding", &busy)] {
        println!(
            "pairs of the foreground, {when}: {}, p50 {:.0} us, p99 {:.0} us",
            pairs.pairs(),
            pairs.micros(0.5),
            pairs.micros(0.99)
        );
    }
    println!("p99, holding to idle: {:.2}", busy.micros(0.99) / idle.micros(0.99));

    let started = Instant::now();
    let report = client.shutdown(Duration::from_secs(30)).await;
    println!(
        "given back in {:.2?}: {} released, {} not",
        started.elapsed(),
        report.released,
        report.unreleased.len()
    );
    Ok(())
}

/// Few tasks that hold many, as a service would. Each gives back its guards, in no more room than they take.
async fn acquire_all(client: &Client, leases: usize) -> Result<Vec<Vec<LockGuard>>, Box<dyn Error>> {
    let mut running = tokio::task::JoinSet::new();
    let tasks = 64;
    for task in 0..tasks {
        let client = client.clone();
        running.spawn(async move {
            let mut guards = Vec::with_capacity((task..leases).step_by(tasks).len());
            for number in (task..leases).step_by(tasks) {
                guards.push(client.lock(format!("held/{number}"))?.acquire().await?);
            }
            Ok::<_, dflockd_client::Error>(guards)
        });
    }
    let mut all = Vec::with_capacity(tasks);
    while let Some(finished) = running.join_next().await {
        all.push(finished??);
    }
    Ok(all)
}
