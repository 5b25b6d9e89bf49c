//! What the layers cost: pairs through a client without a recorder, with a Prometheus recorder, and with a layer of one's own
//! that does nothing.
//!
//!     cargo run --release --example layer_cost -- --tasks 100 --rounds 9
//!
//! All in one process and in turn, on an embedded server in this process, so that a machine whose speed drifts hurts all of
//! them alike. The ratios are of each round's times, the median of all rounds.

use std::error::Error;
use std::time::{Duration, Instant};

use clap::Parser;
use dflockd_client::prometheus::{self, PrometheusBuilder};
use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, ClientService};
use tower::layer::layer_fn;

#[derive(Parser)]
struct Arguments {
    /// How many tasks acquire and release at the same time.
    #[arg(long, default_value_t = 100)]
    tasks: usize,
    /// How many pairs all tasks make together in a round.
    #[arg(long, default_value_t = 100_000)]
    pairs: usize,
    /// How many rounds are counted; one more warms up.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let server = Server::builder().port(0).max_locks(1_000_000).start().await?;
    let builder = || Client::builder().servers([server.local_addr().to_string()]);
    let recorder = prometheus::with_buckets(PrometheusBuilder::new())?.build_recorder();
    let scrapes = recorder.handle();
    let variants: [(&str, ClientBuilder); 3] = [
        ("no recorder", builder()),
        ("Prometheus recorder", builder().metrics_recorder(recorder)),
        (
            "a layer of one's own",
            builder().layer(layer_fn(|inner: ClientService| inner)),
        ),
    ];
    let mut clients = Vec::new();
    for (name, builder) in variants {
        clients.push((name, builder.connect().await?));
    }

    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); clients.len()];
    for round in 0..=arguments.rounds {
        for (index, (_, client)) in clients.iter().enumerate() {
            let took = pairs(client, arguments.tasks, arguments.pairs).await?;
            if round > 0 {
                times[index].push(took);
            }
        }
        // As a scrape would.
        drop(scrapes.render());
    }
    for (index, (name, _)) in clients.iter().enumerate() {
        let mut sorted = times[index].clone();
        sorted.sort();
        let mut ratios: Vec<f64> = times[index]
            .iter()
            .zip(&times[0])
            .map(|(this, plain)| this.as_secs_f64() / plain.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "{name}: {:.0} pairs/s, {:.3} of the time without a recorder",
            arguments.pairs as f64 / sorted[sorted.len() / 2].as_secs_f64(),
            ratios[ratios.len() / 2],
        );
    }
    Ok(())
}

async fn pairs(client: &Client, tasks: usize, pairs: usize) -> Result<Duration, Box<dyn Error>> {
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let lock = client.lock(format!("cost/{task}"))?;
        running.spawn(async move {
            for _ in 0..pairs / tasks {
                lock.acquire().await?.release().await?;
            }
            Ok::<_, dflockd_client::Error>(())
        });
    }
    for finished in running.join_all().await {
        finished?;
    }
    Ok(started.elapsed())
}
