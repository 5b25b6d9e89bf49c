//! What it costs to hold many leases: connections, memory, processor time.
//!
//!     cargo run --release --example server -- --max-locks 1000000 &
//!     cargo run --release --example held -- --leases 100000 --ttl 30 --seconds 60 --servers 127.0.0.1:6388
//!
//! Without `--servers` it starts an embedded server in this process; memory and processor time then are those of both.

use std::error::Error;
use std::time::{Duration, Instant};

use clap::Parser;
use dflockd_client::server::Server;
use dflockd_client::{Client, LockGuard};

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
    let empty = Usage::now();

    let started = Instant::now();
    let guards = acquire_all(&client, arguments.leases).await?;
    let taken = started.elapsed();
    let full = Usage::now();
    println!(
        "{} leases taken in {taken:.2?}",
        guards.iter().map(Vec::len).sum::<usize>()
    );
    match client.stats().await {
        Ok(stats) => println!("connections: {}, that which asks included", stats.connections),
        Err(error) => println!("connections: not known ({error})"),
    }
    if let (Some(empty), Some(full)) = (&empty, &full) {
        println!(
            "memory: {} bytes per lease",
            full.resident.saturating_sub(empty.resident) / arguments.leases.max(1)
        );
    }

    let held_from = Instant::now();
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    let held = guards.iter().flatten().filter(|guard| guard.is_held()).count();
    println!(
        "{held} of {} are held after {:.0?}",
        arguments.leases,
        held_from.elapsed()
    );
    if let (Some(full), Some(end)) = (&full, Usage::now()) {
        let used = end.processor - full.processor;
        println!(
            "processor: {used:.2} s in {:.0?}, {:.2} % of one core",
            held_from.elapsed(),
            100.0 * used / held_from.elapsed().as_secs_f64()
        );
    }

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

/// What this process uses, where the system tells (Linux).
struct Usage {
    /// Bytes.
    resident: usize,
    /// Seconds.
    processor: f64,
}

impl Usage {
    fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: usize = resident.split_whitespace().next()?.parse().ok()?;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Behind the name, which may hold anything: fields 14 and 15 are user and system time in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Self {
            resident: kilobytes * 1024,
            processor: (ticks(11)? + ticks(12)?) / 100.0,
        })
    }
}
