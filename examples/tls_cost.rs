//! What TLS costs: a pair of acquire and release, and a connection, with and without it.
//!
//!     cargo run --release --example tls_cost -- --rounds 9
//!
//! All in one process and in turn, on embedded servers in this process, so that a machine whose speed drifts hurts all of them
//! alike. Medians; the ratios are of each round's times. The certificate is an ECDSA one (P-256), the version TLS 1.3.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use dflockd_client::rustls::pki_types::CertificateDer;
use dflockd_client::rustls::pki_types::pem::PemObject;
use dflockd_client::rustls::{ClientConfig, RootCertStore, crypto::ring};
use dflockd_client::server::{Server, ServerTls};
use dflockd_client::{Client, ClientBuilder, Tls};

#[derive(Parser)]
struct Arguments {
    /// How many pairs all tasks make together in a round.
    #[arg(long, default_value_t = 50_000)]
    pairs: usize,
    /// How many connections are made one after the other in a round.
    #[arg(long, default_value_t = 50)]
    connects: usize,
    /// How many rounds are counted; one more warms up.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let config = ServerTls::pem(made.cert.pem(), made.signing_key.serialize_pem()).config()?;
    let plain = Server::builder().port(0).max_locks(1_000_000).start().await?;
    let secure = Server::builder()
        .port(0)
        .max_locks(1_000_000)
        .tls(config)
        .start()
        .await?;
    let to = |server: &Server| Client::builder().servers([format!("localhost:{}", server.local_addr().port())]);
    let trusting = || Tls::new().ca_pem(made.cert.pem());

    for tasks in [1, 10, 100] {
        let clients = [
            to(&plain).connect().await?,
            to(&secure).tls(trusting()).connect().await?,
        ];
        let pairs = if tasks == 1 {
            arguments.pairs / 5
        } else {
            arguments.pairs
        };
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..=arguments.rounds {
            for (client, times) in clients.iter().zip(&mut times) {
                let took = make_pairs(client, tasks, pairs).await?;
                if round > 0 {
                    times.push(took);
                }
            }
        }
        let [without, with] = &times;
        println!(
            "{tasks} tasks: {:.0} pairs/s without TLS, {:.0} with it: {:.3} of the time",
            pairs as f64 / median(without).as_secs_f64(),
            pairs as f64 / median(with).as_secs_f64(),
            median_ratio(with, without),
        );
    }

    // Clients that share a configuration share its sessions; those that make their own begin anew.
    let shared = Arc::new(own_config(&made.cert.pem())?);
    let kinds: [(&str, &dyn Fn() -> ClientBuilder); 3] = [
        ("without TLS", &|| to(&plain)),
        ("with TLS", &|| to(&secure).tls(trusting())),
        ("with TLS, resumed", &|| {
            to(&secure).tls(Tls::config(Arc::clone(&shared)))
        }),
    ];
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..=arguments.rounds {
        for ((_, builder), times) in kinds.iter().zip(&mut times) {
            let started = Instant::now();
            for _ in 0..arguments.connects {
                builder().connect().await?;
            }
            if round > 0 {
                times.push(started.elapsed() / arguments.connects as u32);
            }
        }
    }
    for ((name, _), took) in kinds.iter().zip(&times) {
        println!(
            "to connect {name}: {} us, {:.2} of the time without",
            median(took).as_micros(),
            median_ratio(took, &times[0])
        );
    }
    Ok(())
}

fn own_config(authority: &str) -> Result<ClientConfig, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn make_pairs(client: &Client, tasks: usize, pairs: usize) -> Result<Duration, Box<dyn Error>> {
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

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

fn median_ratio(these: &[Duration], those: &[Duration]) -> f64 {
    let ratios = these
        .iter()
        .zip(those)
        .map(|(this, that)| this.as_secs_f64() / that.as_secs_f64());
    let mut sorted: Vec<f64> = ratios.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
