//! Runs simulated worlds until one breaks a rule or all have run.
//!
//!     cargo run --release --example simulate -- --seeds 10000
//!
//! A world is a simulation of clients, servers and their network in one thread. Its seed determines all events.
//! `--seed 7` runs one world, and `--trace` prints its events. `docs/testing.md` describes the simulation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/simulation/world/mod.rs"]
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;

/// Runs simulated worlds.
#[derive(Parser)]
struct Options {
    /// The number of worlds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The seed of the first world.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The number of threads, each of which runs one world at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Runs only the world of this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints all events of the world.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Continues after a world that broke a rule.
    #[arg(long)]
    keep_going: bool,
}

struct Progress {
    outcome: world::Outcome,
    failed: Vec<u64>,
    told: Instant,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let (from, seeds) = options.seed.map_or((options.from, options.seeds), |seed| (seed, 1));
    let next = AtomicU64::new(from);
    let started = Instant::now();
    let progress = Mutex::new(Progress {
        outcome: world::Outcome::default(),
        failed: Vec::new(),
        told: started,
    });
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let failed = !progress
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .failed
                        .is_empty();
                    if seed >= from + seeds || failed && !options.keep_going {
                        return;
                    }
                    let report = world::run(seed, options.trace);
                    let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                    record_report(&mut progress, seed, &report);
                    if progress.told.elapsed() > Duration::from_secs(10) {
                        progress.told = Instant::now();
                        eprintln!(
                            "{} of {seeds} worlds, {} broke rules",
                            progress.outcome.seeds,
                            progress.failed.len()
                        );
                    }
                }
            });
        }
    });
    let Progress { outcome, failed, .. } = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{outcome}in {:.1} s", started.elapsed().as_secs_f64());
    match failed.is_empty() {
        true => judge_amount(&outcome),
        false => {
            println!("seeds that broke rules: {failed:?}");
            ExitCode::FAILURE
        }
    }
}

/// Fails if at least 1,000 worlds ran and some kinds of events happened too rarely.
fn judge_amount(outcome: &world::Outcome) -> ExitCode {
    let shortfalls = outcome.shortfalls();
    if outcome.seeds < 1000 || shortfalls.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("too little happened: {shortfalls:?}");
    ExitCode::FAILURE
}

fn record_report(progress: &mut Progress, seed: u64, report: &world::Report) {
    print!("{}", report.trace);
    progress.outcome.add(&report.outcome);
    if !report.violations.is_empty() {
        println!("{}", report.description(seed));
        println!("replay it: cargo run --release --example simulate -- --seed {seed} --trace");
        progress.failed.push(seed);
    }
}
