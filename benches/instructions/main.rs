//! Compares the instructions and allocations of the hot paths with recorded figures.
//!
//!     cargo bench --bench instructions
//!     cargo bench --bench instructions -- --record
//!
//! On a busy machine, measured times vary too much to show a difference below 10 %. Numbers of instructions vary by
//! less than 0.5 %, and only because of the random seed of the hash tables.
//!
//! The programs in `programs.rs` run in one thread, over pipes in memory, with paused time. The tool callgrind of
//! valgrind counts the instructions of the client and of the embedded server together. Each program runs twice: the
//! second run makes three times as many operations as the first run. The figure is the difference between the two runs,
//! divided by the number of additional operations. So the start of the program does not count.
//!
//! The benchmark fails if a program takes over 3 % more instructions or allocations than recorded. Before the
//! comparison of allocations, one is added to both numbers. So the benchmark never fails because of an increase of up
//! to 0.03 allocations.
//!
//! The figures hold for one compiler, one C library and one architecture. If any of the three differs, the benchmark
//! only prints the table. Then record the figures again, in a separate commit.
//!
//! The profiles are in `target/instructions`. `callgrind_annotate` shows how many instructions each function took.
#![allow(missing_docs)]

mod callgrind;
mod programs;
mod record;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use self::callgrind::Cost;
use self::programs::{PROGRAMS, Program};
use self::record::{Record, toolchain};

/// The maximum of the ratio between a measured figure and the recorded figure.
const BOUND: f64 = 1.03;

/// The operations of the longer run, divided by the operations of the shorter run.
const LONGER: usize = 3;

#[derive(Parser)]
struct Arguments {
    /// Replaces the recorded figures with the measured figures.
    #[arg(long)]
    record: bool,
    /// Runs the program with this name and counts nothing. The benchmark starts itself under valgrind with this option.
    #[arg(long, requires = "count")]
    run: Option<String>,
    /// How many operations the program of `--run` makes.
    #[arg(long)]
    count: Option<usize>,
    /// `cargo bench` passes this option.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    if let (Some(name), Some(count)) = (arguments.run, arguments.count) {
        let program = PROGRAMS.iter().find(|program| program.name == name);
        program.ok_or("there is no such program")?.run(count)?;
        return Ok(ExitCode::SUCCESS);
    }
    let measured = PROGRAMS
        .iter()
        .map(|program| Ok((program.name.to_owned(), cost_of_one(program)?)))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let measured = Record {
        toolchain: toolchain()?,
        costs: measured,
    };
    if arguments.record {
        measured.write()?;
    }
    compare(&Record::read()?, &measured)
}

/// Returns the cost of one operation, without the start of the program.
fn cost_of_one(program: &Program) -> Result<Cost, Box<dyn Error>> {
    let short = callgrind::count(program.name, program.operations)?;
    let long = callgrind::count(program.name, program.operations * LONGER)?;
    let more = (program.operations * (LONGER - 1)) as f64;
    Ok(Cost {
        instructions: (long.instructions - short.instructions) / more,
        allocations: (long.allocations - short.allocations) / more,
    })
}

fn compare(recorded: &Record, measured: &Record) -> Result<ExitCode, Box<dyn Error>> {
    println!(
        "{:<44}{:>12}{:>12}{:>8}{:>14}{:>8}{:>8}",
        "operation", "recorded", "now", "ratio", "allocations", "now", "ratio"
    );
    let mut worse = Vec::new();
    let mut better = Vec::new();
    for (name, now) in &measured.costs {
        let before = recorded.cost(name).unwrap_or(*now);
        let ratios = [
            now.instructions / before.instructions,
            (now.allocations + 1.0) / (before.allocations + 1.0),
        ];
        println!(
            "{name:<44}{:>12.0}{:>12.0}{:>8.3}{:>14.2}{:>8.2}{:>8.3}",
            before.instructions, now.instructions, ratios[0], before.allocations, now.allocations, ratios[1],
        );
        if ratios.iter().any(|ratio| *ratio > BOUND) {
            worse.push(name.as_str());
        } else if ratios.iter().any(|ratio| ratio * BOUND < 1.0) || recorded.cost(name).is_none() {
            better.push(name.as_str());
        }
    }
    if recorded.toolchain != measured.toolchain {
        println!(
            "\nNOT COMPARED: the recorded figures were measured with another toolchain.\n  recorded: {}\n  here:     {}\n\
             Record them anew: cargo bench --bench instructions -- --record",
            recorded.toolchain, measured.toolchain
        );
        return Ok(ExitCode::SUCCESS);
    }
    if !better.is_empty() {
        println!(
            "\nless than recorded, or not recorded: {}; run with --record",
            better.join(", ")
        );
    }
    if worse.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nover 3 % more than recorded: {}", worse.join(", "));
    Ok(ExitCode::FAILURE)
}
