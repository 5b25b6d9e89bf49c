//! Simulated worlds. A world runs clients and servers in one thread, on a network in memory. Each host has a simulated
//! clock of its own. The seed of a world determines all events in it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

mod caller;
mod clients;
mod faults;
#[path = "../../support/history/mod.rs"]
pub mod history;
mod host;
mod net;
mod outcome;
mod panics;
mod plan;
mod programs;
mod servers;
mod stream;
mod trace;
mod verdict;
mod watchdog;
#[allow(clippy::module_inception)]
mod world;

use std::panic;

pub use outcome::{Outcome, Report};
pub use programs::Program;
use world::World;

/// Runs the world of a seed to its end.
pub fn run(seed: u64, keeps_trace: bool) -> Report {
    run_with(seed, keeps_trace, None)
}

/// Runs the world of a seed to its end, with the program `planted` added to its first client.
pub fn run_with(seed: u64, keeps_trace: bool, planted: Option<Program>) -> Report {
    let _under_way = watchdog::UnderWay::begin(seed);
    let world = || World::new(seed, keeps_trace, planted).run();
    panic::catch_unwind(world).unwrap_or_else(|_| Report {
        sum: 0,
        trace: String::new(),
        violations: panics::seen(),
        outcome: Outcome::default(),
        lines: Vec::new(),
    })
}
