//! Mixed load for a given time, while memory, descriptors, tasks, threads and latency are sampled: do they stay flat?
//!
//!     cargo run --release --example soak -- --minutes 60 --output soak-out
//!
//! This process is the client. The servers, the proxies and the causes of faults (reconnects, stalls, new leaders) run in a process of
//! their own, which this one starts. The table is printed and written to `samples.csv`. The exit status is 1 if something grew, or if
//! anything is left when all clients are gone. `docs/testing.md` says what counts as flat.

mod load;
mod meter;
mod sample;
mod servers;
mod tasks;
mod verdict;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::load::Load;
use crate::meter::Meter;
use crate::sample::{Probe, Process, Sample, Table};
use crate::servers::ServersProcess;

#[derive(Parser)]
pub(crate) struct Arguments {
    /// The length of the run.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// How often to sample, in seconds.
    #[arg(long, default_value_t = 10.0)]
    interval: f64,
    /// The number of leases that are held all the time.
    #[arg(long, default_value_t = 4_000)]
    leases: usize,
    /// Multiplies the pauses of the load: 2 is half the load.
    #[arg(long, default_value_t = 1.0)]
    pace: f64,
    /// The directory of `samples.csv`, which is created.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Judge only descriptors, tasks and threads, and what is left at the end: a short run shows nothing about the rest.
    #[arg(long)]
    smoke: bool,
    /// Run as the process of the servers.
    #[arg(long, hide = true)]
    servers: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        match arguments.servers {
            true => servers::serve(arguments.leases).await.map(|()| ExitCode::SUCCESS),
            false => soak(&arguments).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn soak(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let servers = ServersProcess::start(arguments.leases)?;
    let probe = Probe::start(&servers.addresses().control).await?;
    let mut table = Table::new(arguments.output.as_deref())?;
    // The state without any client: compared with that at the end.
    let before = Process::here()?;

    let meter = Arc::new(Meter::new()?);
    let end = CancellationToken::new();
    let load = Load::start(arguments, servers.addresses(), &meter, &end).await?;
    let began = Instant::now();
    let run = Duration::from_secs_f64(arguments.minutes * 60.0);
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(arguments.interval));
    ticks.tick().await;
    while began.elapsed() < run {
        ticks.tick().await;
        table.add(Sample::take(began.elapsed(), &meter, &probe, &servers)?)?;
    }
    end.cancel();
    load.end().await?;
    let left = Process::settled_to(&before).await?;

    println!("\n{}\nfaults: {}", meter.operations(), servers.faults());
    let mut passed = verdict::left_over(&before, &left);
    passed &= verdict::judge(table.samples(), arguments.smoke);
    println!(
        "\n{}",
        match passed {
            true => "flat",
            false => "NOT FLAT",
        }
    );
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
