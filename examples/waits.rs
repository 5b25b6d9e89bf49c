//! How soon a caller that waits has its grant after the holder's release, with many callers on many keys.
//!
//!     cargo run --release --example server -- --max-locks 100000 &
//!     cargo run --release --example waits -- --waits 10000 --releases 1000 --servers 127.0.0.1:6388
//!     cargo run --release --example waits -- --waits 10000 --releases 1000 --connections 10000 --servers 127.0.0.1:6388
//!     cargo run --release --example waits -- --waits 10000 --releases 1000 --own --servers 127.0.0.1:6388
//!
//! One client holds the keys, another has a caller that waits for each; with `--own` one client does both. A wait on the server takes
//! a connection, and a client opens at most 190 in a second: so it takes a while until all of them stand in the server's queues. Waits
//! without a connection try their keys now and then.
//!
//! Without `--servers` it starts an embedded server in this process.

use std::error::Error;
use std::time::{Duration, Instant};

use clap::Parser;
use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, LockGuard};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Longer than a run, so that only a release lets the next caller in.
const TTL: Duration = Duration::from_secs(600);

#[derive(Parser)]
struct Arguments {
    /// How many callers wait, each for a key of its own.
    #[arg(long, default_value_t = 1_000)]
    waits: usize,
    /// How many keys are released in a second.
    #[arg(long, default_value_t = 1_000)]
    releases: u32,
    /// How many connections may carry waits.
    #[arg(long, default_value_t = 1_024)]
    connections: usize,
    /// The client whose callers wait holds the keys itself.
    #[arg(long)]
    own: bool,
    /// How long callers wait before the first release, in seconds; by default as long as it takes to open the connections.
    #[arg(long)]
    settle: Option<u64>,
    /// The servers, as host:port; an embedded one if there are none.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let embedded = match arguments.servers.is_empty() {
        true => Some(Server::builder().port(0).max_locks(1_000_000).start().await?),
        false => None,
    };
    let servers = match &embedded {
        Some(server) => vec![server.local_addr().to_string()],
        None => arguments.servers.clone(),
    };
    let builder = || -> ClientBuilder {
        let builder = Client::builder().servers(servers.clone()).lease_ttl(TTL);
        builder.exclusive_connections(arguments.connections)
    };
    let waiter = builder().connect().await?;
    let holder = match arguments.own {
        true => waiter.clone(),
        false => builder().connect().await?,
    };

    let mut held = Vec::with_capacity(arguments.waits);
    for number in 0..arguments.waits {
        held.push(holder.lock(key(number))?.acquire().await?);
    }
    let mut waiting = JoinSet::new();
    for number in 0..arguments.waits {
        let lock = waiter.lock(key(number))?.acquire_timeout(TTL);
        waiting.spawn(async move {
            let guard = lock.acquire().await?;
            Ok::<_, dflockd_client::Error>((number, Instant::now(), guard))
        });
    }
    let settle = arguments
        .settle
        .map_or_else(|| opening(&arguments), Duration::from_secs);
    println!("{} callers wait; the releases begin in {settle:.0?}", arguments.waits);
    tokio::time::sleep(settle).await;

    let released_at = release_all(held, arguments.releases).await?;
    let mut took = Histogram::<u64>::new_with_max(600_000_000_000, 3)?;
    let mut guards = Vec::with_capacity(arguments.waits);
    while let Some(granted) = waiting.join_next().await {
        let (number, granted_at, guard) = granted??;
        took.saturating_record(granted_at.saturating_duration_since(released_at[number]).as_nanos() as u64);
        guards.push(guard);
    }
    let millis = |quantile| took.value_at_quantile(quantile) as f64 / 1e6;
    println!(
        "from release to grant: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
        millis(0.5),
        millis(0.9),
        millis(0.99),
        took.max() as f64 / 1e6
    );
    drop(guards);
    for client in [holder, waiter] {
        client.shutdown(Duration::from_secs(30)).await;
    }
    Ok(())
}

fn key(number: usize) -> String {
    format!("waits/{number}")
}

/// How long it takes until each wait that may have a connection has one.
fn opening(arguments: &Arguments) -> Duration {
    let connections = match arguments.own {
        true => 0,
        false => arguments.connections.min(arguments.waits),
    };
    // At most 190 in a second, and fewer where attempts fail.
    Duration::from_secs(2 + connections as u64 / 120)
}

/// Releases at an even pace, without waiting for the answers. Returns when each release began.
async fn release_all(held: Vec<LockGuard>, releases: u32) -> Result<Vec<Instant>, Box<dyn Error>> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / releases.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut releasing = JoinSet::new();
    let mut released_at = Vec::with_capacity(held.len());
    for guard in held {
        pace.tick().await;
        released_at.push(Instant::now());
        releasing.spawn(guard.release());
    }
    while let Some(released) = releasing.join_next().await {
        released??;
    }
    Ok(released_at)
}
