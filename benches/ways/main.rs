//! Measures how many pairs (an acquire and its release) a client makes each second through its handles. Other ways to
//! make pairs are measured for comparison. `dflock bench pairs` measures only the pairs through the handles.
//!
//!     cargo bench --bench ways -- --at-once 1,100
//!     cargo bench --bench ways -- --at-once 64 --ways tasks,threads --rounds 9
//!     cargo bench --bench ways -- --at-once 1 --ways bare,tasks --rounds 9
//!     cargo bench --bench ways -- --at-once 10,100 --ways tasks,tasks:4 --request-micros 15
//!     cargo bench --bench ways -- --at-once 100 --servers 127.0.0.1:6388,127.0.0.1:6389
//!
//! | way | workers and their client |
//! | --- | --- |
//! | `tasks`, `tasks:N` | tasks, and the async client with one pipelined connection, or with N |
//! | `tls` | as `tasks`, over TLS to the embedded server. It cannot be used with `--servers` |
//! | `recorder` | as `tasks`, with a Prometheus recorder |
//! | `layer` | as `tasks`, with a layer that does nothing |
//! | `threads` | threads, and the blocking client |
//! | `bare` | tasks without the client. Each writes the requests of a pair to a tokio socket of its own |
//! | `socket` | threads without the client. Each writes the requests of a pair to a blocking socket of its own |
//! | `handoff` | threads without a server: instead of a pair, a thread sends two questions to a task and waits for each answer. Shows the cost of waking threads |
//!
//! In each round the ways take turns, so that a change in the machine's speed affects all ways alike. The output is a
//! table with the medians of the rounds. For its column `x first`, each rate is divided by the rate of the first way in
//! the same round.
//!
//! Without `--servers`, an embedded server runs in this process, on the same cores. Then the column `CPU us` contains
//! the processor time of the server too. Each worker has a key of its own, because the benchmark measures the round
//! trip and no contention.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod round;
mod way;

use std::error::Error;
use std::time::Duration;

use clap::Parser;
use dflockd_client::prometheus::{self, PrometheusBuilder};
use dflockd_client::server::{Server, ServerTls};
use dflockd_client::{Client, ClientService, Tls};
use tower::layer::layer_fn;

use self::round::{Round, median};
use self::way::{Way, Workers};

#[derive(Parser)]
struct Arguments {
    /// The numbers of workers to measure. The workers acquire and release at the same time.
    #[arg(long, value_delimiter = ',', default_value = "100")]
    at_once: Vec<usize>,
    /// How many pairs all workers together make in a round.
    #[arg(long, default_value_t = 200_000)]
    pairs: usize,
    /// The ways to measure. The table compares each way with the first way.
    #[arg(long, value_delimiter = ',', default_value = "tasks")]
    ways: Vec<Way>,
    /// How many rounds are measured. The warm-up before them is a tenth of a round.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The servers, as host:port. Without this option, an embedded server is used.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// How many microseconds the embedded server takes for each request. It takes the requests of a connection one by
    /// one.
    #[arg(long, default_value_t = 0, conflicts_with = "servers")]
    request_micros: u64,
    /// `cargo bench` passes this option.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if arguments.ways.iter().any(|way| matches!(way, Way::Tls)) && !arguments.servers.is_empty() {
        return Err(
            "the way tls always uses an embedded server, so it cannot be compared with ways that use --servers".into(),
        );
    }
    let embedded = Server::builder()
        .port(0)
        .max_locks(1_000_000)
        .request_time(Duration::from_micros(arguments.request_micros));
    let plain = match arguments.servers.is_empty() {
        true => Some(embedded.clone().start().await?),
        false => None,
    };
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let config = ServerTls::pem(made.cert.pem(), made.signing_key.serialize_pem()).config()?;
    let secure = embedded.tls(config).start().await?;
    let addresses = match &plain {
        Some(server) => vec![server.local_addr().to_string()],
        None => arguments.servers,
    };
    let mut workers = Vec::new();
    for way in &arguments.ways {
        let builder = match way {
            Way::Tls => Client::builder()
                .servers([secure.local_addr().to_string()])
                .tls(Tls::new().ca_pem(made.cert.pem())),
            Way::Recorder => {
                let recorder = prometheus::with_buckets(PrometheusBuilder::new())?.build_recorder();
                Client::builder().servers(addresses.clone()).metrics_recorder(recorder)
            }
            Way::Layer => {
                let layer = layer_fn(|inner: ClientService| inner);
                Client::builder().servers(addresses.clone()).layer(layer)
            }
            _ => Client::builder().servers(addresses.clone()),
        };
        workers.push(Workers::start(*way, builder, &addresses).await?);
    }
    for at_once in arguments.at_once {
        let each = (arguments.pairs / at_once).max(1);
        let mut rounds: Vec<Vec<Round>> = arguments.ways.iter().map(|_| Vec::new()).collect();
        for workers in &workers {
            Round::of(workers, at_once, each.div_ceil(10)).await?;
        }
        for _ in 0..arguments.rounds.max(1) {
            for (workers, rounds) in workers.iter().zip(&mut rounds) {
                rounds.push(Round::of(workers, at_once, each).await?);
            }
        }
        print(at_once, &arguments.ways, &rounds);
    }
    Ok(())
}

fn print(at_once: usize, ways: &[Way], rounds: &[Vec<Round>]) {
    println!(
        "{:<12}{:>12}{:>24}{:>9}{:>9}{:>9}{:>10}",
        format!("{at_once} at once"),
        "pairs/s",
        "least to most",
        "x first",
        "p50 us",
        "p99 us",
        "CPU us"
    );
    for (way, own) in ways.iter().zip(rounds) {
        let of = |what: fn(&Round) -> f64| own.iter().map(what);
        let ratios = own.iter().zip(&rounds[0]).map(|(own, first)| own.rate() / first.rate());
        let (least, most) = of(Round::rate).fold((f64::INFINITY, 0.0_f64), |(least, most), rate| {
            (least.min(rate), most.max(rate))
        });
        println!(
            "{:<12}{:>12.0}{:>24}{:>9.2}{:>9.0}{:>9.0}{:>10.2}",
            way.to_string(),
            median(of(Round::rate)),
            format!("{least:.0} to {most:.0}"),
            median(ratios),
            median(of(|round| round.micros(0.5))),
            median(of(|round| round.micros(0.99))),
            median(of(Round::processor_micros)),
        );
    }
}
