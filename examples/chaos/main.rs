//! A chaos test over real sockets. It kills and stops processes, disturbs the network, and checks the records of
//! clients and servers.
//!
//!     cargo run --release --example chaos -- --minutes 30 --seed 7
//!
//! The process that this command starts is the controller. It starts the same program again for each client and each
//! standalone server, and once for the whole cluster. It runs one proxy between each client and each server.
//!
//! At the end, the controller prints the faults and the operations by kind. Then it checks the records of all
//! processes, and the resource that the locks protect. If a rule is broken, it prints the directory of the records, and
//! exits with status 1. `docs/testing.md` has the rules.

#[cfg(unix)]
mod child;
#[cfg(unix)]
mod client;
#[cfg(unix)]
mod controller;
#[cfg(unix)]
mod faults;
#[cfg(unix)]
mod job;
#[cfg(unix)]
mod judge;
#[cfg(unix)]
mod network;
#[cfg(unix)]
mod panics;
#[cfg(unix)]
mod resource;
#[cfg(unix)]
mod server;
#[cfg(unix)]
mod tasks;
#[cfg(unix)]
mod witness;

#[cfg(unix)]
#[path = "../../tests/support/history/mod.rs"]
mod history;
#[cfg(unix)]
#[path = "../../tests/support/observed.rs"]
#[allow(dead_code, unreachable_pub, clippy::expect_used, clippy::unwrap_used)]
mod observed;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// For how many minutes faults occur.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// The seed of the faults. Two runs with the same seed differ, because the timing of the machine varies.
    #[arg(long)]
    seed: Option<u64>,
    /// The number of client processes.
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// The directory of the records and the resource, created if it is missing. The default is a temporary directory,
    /// which is removed if no rule is broken.
    #[arg(long)]
    output: Option<PathBuf>,
    /// The job of this process, as JSON. The controller sets it for the processes that it starts.
    #[arg(long, hide = true)]
    job: Option<String>,
}

#[cfg(unix)]
fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        match &arguments.job {
            None => controller::run(&arguments).await,
            Some(job) => {
                let job: job::Job = serde_json::from_str(job)?;
                panics::end_the_process(job.record());
                match job {
                    job::Job::Client(job) => client::run(job).await,
                    job::Job::Server(job) => server::run(job).await,
                    job::Job::Cluster(job) => server::run_cluster(job).await,
                }
            }
        }
    });
    runtime.shutdown_background();
    outcome
}

#[cfg(not(unix))]
fn main() -> Result<ExitCode, Box<dyn Error>> {
    Arguments::parse();
    Err("the chaos test needs the Unix signals that stop and continue a process".into())
}
