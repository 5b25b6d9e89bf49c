//! Compares how many instructions the hot paths take, and how often they allocate, with recorded figures.
//!
//!     cargo bench --bench instructions
//!     cargo bench --bench instructions -- --record
//!
//! Time on a busy machine shows no differences below 10 %. Instructions do: the programs of `programs.rs` run in one
//! thread, over pipes in memory and in paused time, and valgrind's callgrind counts the instructions of client and
//! embedded server together. Each program runs twice, for a number of operations and for three times as many. The
//! figure is the difference of the two runs, so the start of the program does not count. Runs differ by less than 0.5
//! %, because of the random seed of the hash tables.
//!
//! It fails if a program takes over 3 % more instructions than recorded, or over 3 % more allocations. Numbers of
//! allocations are compared after one is added to each, so that a fraction of an allocation does not count where there
//! are few. The figures hold for one compiler, C library and architecture. If one of them differs, it prints the table
//! and compares nothing: record again, in a commit of its own. Profiles are in `target/instructions`:
//! `callgrind_annotate` shows which function took how much.
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

/// The limit of an increase over the recorded figure.
const BOUND: f64 = 1.03;

/// How many times as many operations the longer run makes.
const LONGER: usize = 3;

#[derive(Parser)]
struct Arguments {
    /// Writes the measured figures in place of the recorded ones.
    #[arg(long)]
    record: bool,
    /// Runs one program, without counting: for valgrind.
    #[arg(long, requires = "count")]
    run: Option<String>,
    /// How many operations that program makes.
    #[arg(long)]
    count: Option<usize>,
    /// Passed by cargo.
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

/// Returns the cost of one operation, without the start.
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
            "\nNOT COMPARED: the figures are those of another toolchain.\n  recorded: {}\n  here:     {}\n\
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
