//! How many acquire+release pairs a second go through the handles.
//!
//!     cargo run --release --example pairs -- --tasks 100 --pairs 200000
//!     cargo run --release --example pairs -- --tasks 8 --blocking
//!     cargo run --release --example pairs -- --tasks 100 --servers 127.0.0.1:6388,127.0.0.1:6389
//!     cargo run --release --example pairs -- --tasks 100 --tls
//!     cargo run --release --example pairs -- --tasks 1 --bare
//!
//! Without `--servers` it starts an embedded server in this process, on the same cores. Every task has keys of its own:
//! this measures the way to the server and back, not contention. With `--blocking` the tasks are threads. With `--bare` each
//! task writes the same two requests to a socket of its own, in the same kind of runtime: what the client is compared with.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use dflockd_client::rustls::ServerConfig;
use dflockd_client::rustls::crypto::ring;
use dflockd_client::rustls::pki_types::PrivateKeyDer;
use dflockd_client::rustls::pki_types::pem::PemObject;
use dflockd_client::rustls::server::{ClientHello, ResolvesServerCert};
use dflockd_client::rustls::sign::CertifiedKey;
use dflockd_client::server::Server;
use dflockd_client::{Client, Error as ClientError, Tls, blocking};
use hdrhistogram::Histogram;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

#[derive(Parser)]
struct Arguments {
    /// How many tasks acquire and release at the same time.
    #[arg(long, default_value_t = 100)]
    tasks: usize,
    /// How many pairs all tasks make together.
    #[arg(long, default_value_t = 200_000)]
    pairs: usize,
    /// Threads and the blocking client, instead of tasks and the async one.
    #[arg(long)]
    blocking: bool,
    /// A bare tokio socket a task, without the client.
    #[arg(long, conflicts_with_all = ["blocking", "tls"])]
    bare: bool,
    /// The servers, as host:port; an embedded one if there are none.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Talk TLS with the embedded server, which gets a certificate made for the occasion.
    #[arg(long, conflicts_with = "servers")]
    tls: bool,
}

/// The server's certificate, and how many handshakes it was needed for.
#[derive(Debug)]
struct Counted {
    certificate: Arc<CertifiedKey>,
    handshakes: AtomicUsize,
}

impl ResolvesServerCert for Counted {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(&self.certificate))
    }
}

/// TLS for both sides.
fn tls() -> Result<(Arc<Counted>, ServerConfig, Tls), Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes())?;
    let chain = vec![made.cert.der().clone()];
    let counted = Arc::new(Counted {
        certificate: Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider())?),
        handshakes: AtomicUsize::new(0),
    });
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&counted) as Arc<dyn ResolvesServerCert>);
    Ok((counted, config, Tls::new().ca_pem(made.cert.pem())))
}

/// The time of every pair, in nanoseconds.
type Latencies = Histogram<u64>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut server = Server::builder().port(0).max_locks(1_000_000);
    let mut builder = Client::builder();
    let mut counted = None;
    if arguments.tls {
        let (count, config, tls) = tls()?;
        server = server.tls(Arc::new(config));
        builder = builder.tls(tls);
        counted = Some(count);
    }
    let embedded = match arguments.servers.is_empty() {
        true => Some(server.start().await?),
        false => None,
    };
    let servers = match &embedded {
        Some(server) => vec![server.local_addr().to_string()],
        None => arguments.servers,
    };
    let first = servers.first().cloned();
    let builder = builder.servers(servers);
    // A tenth of the work first, so that everything is warm.
    let tasks = arguments.tasks;
    let each = (arguments.pairs / tasks).max(1);
    let warm_up = each.div_ceil(10);
    let (latencies, elapsed, connections) = match arguments.blocking {
        false if arguments.bare => {
            let server = first.ok_or("--servers names no server")?;
            over_sockets(&server, tasks, warm_up).await?;
            let started = Instant::now();
            let latencies = over_sockets(&server, tasks, each).await?;
            (latencies, started.elapsed(), tasks as u64)
        }
        false => {
            let client = builder.connect().await?;
            in_tasks(&client, tasks, warm_up).await?;
            let started = Instant::now();
            let latencies = in_tasks(&client, tasks, each).await?;
            (latencies, started.elapsed(), client.stats().await?.connections)
        }
        true => {
            // The threads are none of this runtime, so that its embedded server goes on meanwhile.
            let work = move || {
                let client = builder.connect_blocking()?;
                in_threads(&client, tasks, warm_up)?;
                let started = Instant::now();
                let latencies = in_threads(&client, tasks, each)?;
                Ok::<_, Box<dyn Error + Send + Sync>>((latencies, started.elapsed(), client.stats()?.connections))
            };
            let (done, outcome) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || drop(done.send(work())));
            outcome.await?.map_err(|error| error.to_string())?
        }
    };

    let micros = |quantile| Duration::from_nanos(latencies.value_at_quantile(quantile)).as_micros();
    println!(
        "{tasks} {}: {:.0} pairs/s, p50 {} us, p99 {} us, {connections} connections{}",
        if arguments.blocking { "threads" } else { "tasks" },
        latencies.len() as f64 / elapsed.as_secs_f64(),
        micros(0.5),
        micros(0.99),
        background_threads(),
    );
    if let Some(counted) = counted {
        println!("{} TLS handshakes", counted.handshakes.load(Ordering::Relaxed));
    }
    Ok(())
}

/// Lets each task make `each` pairs.
async fn in_tasks(client: &Client, tasks: usize, each: usize) -> Result<Latencies, Box<dyn Error>> {
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let lock = client.lock(format!("pairs/{task}"))?;
        running.spawn(async move {
            let mut latencies = empty();
            for _ in 0..each {
                let started = Instant::now();
                lock.acquire().await?.release().await?;
                latencies.saturating_record(started.elapsed().as_nanos() as u64);
            }
            Ok::<_, ClientError>(latencies)
        });
    }
    let mut all = empty();
    while let Some(finished) = running.join_next().await {
        all.add(finished??)?;
    }
    Ok(all)
}

/// Lets each task make `each` pairs over a socket of its own.
async fn over_sockets(server: &str, tasks: usize, each: usize) -> Result<Latencies, Box<dyn Error>> {
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        running.spawn(async move {
            let (mut latencies, mut stream, mut line) = (empty(), BufStream::new(stream), String::new());
            let acquire = format!("l\nbare/{task}\n10\n");
            for _ in 0..each {
                let started = Instant::now();
                let answer = ask(&mut stream, &acquire, &mut line).await?;
                let token = answer.split(' ').nth(1).ok_or("a grant without a token")?;
                let release = format!("r\nbare/{task}\n{token}\n");
                ask(&mut stream, &release, &mut line).await?;
                latencies.saturating_record(started.elapsed().as_nanos() as u64);
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(latencies)
        });
    }
    let mut all = empty();
    while let Some(finished) = running.join_next().await {
        all.add(finished?.map_err(|error| error.to_string())?)?;
    }
    Ok(all)
}

/// Writes a request and reads the line that answers it, which must be `ok`.
async fn ask<'a>(
    stream: &mut BufStream<TcpStream>,
    request: &str,
    line: &'a mut String,
) -> Result<&'a str, Box<dyn Error + Send + Sync>> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    line.clear();
    stream.read_line(line).await?;
    let line = line.trim_end();
    if line.split(' ').next() != Some("ok") {
        return Err(format!("the server answered {line:?}").into());
    }
    Ok(line)
}

/// Lets each thread make `each` pairs.
fn in_threads(
    client: &blocking::Client,
    threads: usize,
    each: usize,
) -> Result<Latencies, Box<dyn Error + Send + Sync>> {
    let mut running = Vec::new();
    for thread in 0..threads {
        let lock = client.lock(format!("pairs/{thread}"))?;
        running.push(std::thread::spawn(move || {
            let mut latencies = empty();
            for _ in 0..each {
                let started = Instant::now();
                lock.acquire()?.release()?;
                latencies.saturating_record(started.elapsed().as_nanos() as u64);
            }
            Ok::<_, ClientError>(latencies)
        }));
    }
    let mut all = empty();
    for thread in running {
        all.add(thread.join().map_err(|_| "a thread panicked")??)?;
    }
    Ok(all)
}

fn empty() -> Latencies {
    Histogram::new_with_max(60_000_000_000, 3).unwrap_or_else(|error| unreachable!("the bounds are good: {error}"))
}

/// How many threads the blocking client has started, where the system tells.
fn background_threads() -> String {
    let names = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    match names.filter(|name| name.starts_with("dflockd")).count() {
        0 => String::new(),
        count => format!(", {count} background threads"),
    }
}
