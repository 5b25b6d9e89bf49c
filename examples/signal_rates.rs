//! How fast signals are: emitted and received a second, the time from `emit` to its answer, and what subscriptions weigh.
//!
//!     cargo run --release --example signal_rates -- --subscribers 100 --signals 200000
//!
//! With an embedded server in this process, on the same cores; `--server host:port` uses another (releases 1.11 to 1.16).

use std::error::Error;
use std::time::{Duration, Instant};

use clap::Parser;
use dflockd_client::server::Server;
use dflockd_client::{Client, Overflow, SignalConn, SignalOptions};
use hdrhistogram::Histogram;

#[derive(Parser)]
struct Arguments {
    /// How many connections hear each signal.
    #[arg(long, default_value_t = 1)]
    subscribers: usize,
    /// How many signals are emitted.
    #[arg(long, default_value_t = 100_000)]
    signals: usize,
    /// How many tasks emit at the same time.
    #[arg(long, default_value_t = 50)]
    publishers: usize,
    /// How many exact subscriptions the memory is measured with.
    #[arg(long, default_value_t = 10_000)]
    subscriptions: usize,
    /// The server, as host:port; an embedded one if there is none.
    #[arg(long)]
    server: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    // Room for bursts: the rate is measured, not the server's small buffer.
    let embedded = match arguments.server {
        Some(_) => None,
        None => Some(
            Server::builder()
                .release("1.16")
                .port(0)
                .signal_buffer(1_000_000)
                .start()
                .await?,
        ),
    };
    let address = match (&arguments.server, &embedded) {
        (Some(address), _) => address.clone(),
        (None, Some(server)) => server.local_addr().to_string(),
        (None, None) => unreachable!("one of them"),
    };

    rates(&arguments, &address).await?;
    latency(&address).await?;
    memory(&arguments, &address).await
}

/// Many emit at once; the time until the last subscriber has everything.
async fn rates(arguments: &Arguments, address: &str) -> Result<(), Box<dyn Error>> {
    let mut receiving = tokio::task::JoinSet::new();
    let each = arguments.signals / arguments.publishers;
    let all = each * arguments.publishers;
    for _ in 0..arguments.subscribers {
        let options = SignalOptions::default().buffer(all + 1).overflow(Overflow::Disconnect);
        let mut conn = SignalConn::open(Client::builder().servers([address]), options).await?;
        conn.listen("rates.*", None).await?;
        receiving.spawn(async move {
            for _ in 0..all {
                if conn.next_signal().await.is_none() {
                    return Err(format!("the connection ended: {:?}", conn.closed_because()));
                }
            }
            Ok(())
        });
    }
    let publisher = SignalConn::connect(address).await?;
    let started = Instant::now();
    let mut emitting = tokio::task::JoinSet::new();
    for task in 0..arguments.publishers {
        let handle = publisher.handle();
        emitting.spawn(async move {
            let channel = format!("rates.{task}");
            for number in 0..each {
                handle.emit(&channel, number.to_string()).await?;
            }
            Ok::<_, dflockd_client::Error>(())
        });
    }
    for outcome in emitting.join_all().await {
        outcome?;
    }
    let emitted = started.elapsed();
    for outcome in receiving.join_all().await {
        outcome?;
    }
    let received = started.elapsed();
    println!(
        "{} subscribers, {} publishers: {:.0} signals/s emitted, {:.0} deliveries/s received",
        arguments.subscribers,
        arguments.publishers,
        all as f64 / emitted.as_secs_f64(),
        (all * arguments.subscribers) as f64 / received.as_secs_f64(),
    );
    Ok(())
}

/// One emits, one hears: until the answer, and until it is heard.
async fn latency(address: &str) -> Result<(), Box<dyn Error>> {
    let mut subscriber = SignalConn::connect(address).await?;
    subscriber.listen("latency", None).await?;
    let publisher = SignalConn::connect(address).await?;
    let mut answered = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    let mut heard = answered.clone();
    for number in 0..11_000 {
        let started = Instant::now();
        publisher.emit("latency", "x").await?;
        let until_answered = started.elapsed();
        subscriber.next_signal().await.ok_or("the connection ended")?;
        // The first are for warming up.
        if number >= 1000 {
            answered.saturating_record(until_answered.as_nanos() as u64);
            heard.saturating_record(started.elapsed().as_nanos() as u64);
        }
    }
    let micros =
        |histogram: &Histogram<u64>, quantile| Duration::from_nanos(histogram.value_at_quantile(quantile)).as_micros();
    println!(
        "one at a time: answered after p50 {} us, p99 {} us; heard after p50 {} us, p99 {} us",
        micros(&answered, 0.5),
        micros(&answered, 0.99),
        micros(&heard, 0.5),
        micros(&heard, 0.99),
    );
    Ok(())
}

/// What many exact subscriptions of one connection weigh: in this process, which is the client and, unless there is another,
/// the server.
async fn memory(arguments: &Arguments, address: &str) -> Result<(), Box<dyn Error>> {
    let conn = SignalConn::connect(address).await?;
    conn.listen("memory.warm-up", None).await?;
    let Some(before) = resident() else {
        println!("memory: not known on this system");
        return Ok(());
    };
    let started = Instant::now();
    let mut listening = tokio::task::JoinSet::new();
    for task in 0..50 {
        let (handle, numbers) = (conn.handle(), (task..arguments.subscriptions).step_by(50));
        listening.spawn(async move {
            for number in numbers {
                handle.listen(format!("memory.channel.{number}"), None).await?;
            }
            Ok::<_, dflockd_client::Error>(())
        });
    }
    for outcome in listening.join_all().await {
        outcome?;
    }
    let took = started.elapsed();
    let used = resident().unwrap_or(before).saturating_sub(before);
    println!(
        "{} exact subscriptions: made in {took:.0?}, {} KiB, {} bytes each",
        arguments.subscriptions,
        used / 1024,
        used / arguments.subscriptions.max(1)
    );
    Ok(())
}

/// Bytes of memory that this process uses, where the system tells (Linux).
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}
