//! How many acquire+release pairs a second go through the handles.
//!
//!     cargo run --release --example pairs -- --tasks 100 --pairs 200000
//!     cargo run --release --example pairs -- --tasks 100 --servers 127.0.0.1:6388,127.0.0.1:6389
//!
//! Without `--servers` it starts an embedded server in this process, on the same cores. Every task has keys of its own:
//! this measures the way to the server and back, not contention.

use std::error::Error;
use std::time::{Duration, Instant};

use clap::Parser;
use dflockd_client::Client;
use dflockd_client::server::Server;
use hdrhistogram::Histogram;

#[derive(Parser)]
struct Arguments {
    /// How many tasks acquire and release at the same time.
    #[arg(long, default_value_t = 100)]
    tasks: usize,
    /// How many pairs all tasks make together.
    #[arg(long, default_value_t = 200_000)]
    pairs: usize,
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
        None => arguments.servers,
    };
    let client = Client::builder().servers(servers).connect().await?;

    // A tenth of the work first, so that everything is warm.
    let each = (arguments.pairs / arguments.tasks).max(1);
    run(&client, arguments.tasks, each.div_ceil(10)).await?;
    let started = Instant::now();
    let latencies = run(&client, arguments.tasks, each).await?;
    let elapsed = started.elapsed();

    let pairs = latencies.len();
    let micros = |quantile| Duration::from_nanos(latencies.value_at_quantile(quantile)).as_micros();
    println!(
        "{} tasks: {:.0} pairs/s, p50 {} us, p99 {} us, {} connections",
        arguments.tasks,
        pairs as f64 / elapsed.as_secs_f64(),
        micros(0.5),
        micros(0.99),
        client.stats().await?.connections,
    );
    Ok(())
}

/// Lets each task make `each` pairs; the time of every pair, in nanoseconds.
async fn run(client: &Client, tasks: usize, each: usize) -> Result<Histogram<u64>, Box<dyn Error>> {
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let lock = client.lock(format!("pairs/{task}"))?;
        running.spawn(async move {
            let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
            for _ in 0..each {
                let started = Instant::now();
                lock.acquire().await?.release().await?;
                latencies.saturating_record(started.elapsed().as_nanos() as u64);
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(latencies)
        });
    }
    let mut all = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    while let Some(finished) = running.join_next().await {
        let latencies = finished?.map_err(|error| error.to_string())?;
        all.add(latencies)?;
    }
    Ok(all)
}
