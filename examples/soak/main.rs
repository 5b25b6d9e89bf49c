//! A soak test. It runs a mixed load for a given time, and checks that memory, file descriptors, tasks, threads and
//! latencies do not grow.
//!
//!     cargo run --release --example soak -- --minutes 60 --output soak-out
//!
//! The process that this command starts runs the clients. It starts a second process, which runs the servers and their
//! proxies. The second process also causes faults: connections end, an answer is delayed, or another member leads.
//!
//! The samples are printed as a table. With `--output`, they are also written to `samples.csv`. The exit status is 1 if
//! a measured value grew, or if descriptors or tasks of the clients are left after their shutdown. `docs/testing.md`
//! says how much each value may grow.

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
    /// The length of the run, in minutes.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// The time between two samples, in seconds.
    #[arg(long, default_value_t = 10.0)]
    interval: f64,
    /// How many leases are held all the time.
    #[arg(long, default_value_t = 4_000)]
    leases: usize,
    /// Multiplies the pauses between operations. With 2, the load is about half.
    #[arg(long, default_value_t = 1.0)]
    pace: f64,
    /// The directory of `samples.csv`, created if it is missing.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Does not judge memory, latencies or the servers, because a short run shows nothing about them.
    #[arg(long)]
    smoke: bool,
    /// Runs as the process of the servers.
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
    // The resources without any client. They are compared with the resources after the shutdown of the clients.
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
    let mut passed = verdict::nothing_is_left(&before, &left);
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
