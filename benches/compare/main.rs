//! Measures how many pairs (an acquire and its release) this client makes each second, and how many its alternatives
//! make. The alternatives are clients in other languages, which use the embedded server. For orientation, the benchmark
//! also measures other systems (Redis and etcd).
//!
//!     cargo bench --bench compare
//!     cargo bench --bench compare -- --rounds 1 --seconds 0.5 --workers 1,100 --sides tasks,python-2-tasks
//!     cargo bench --bench compare -- --docs
//!     cargo bench --bench compare -- --from docs/benchmarks/results.json --docs
//!
//! This client with tasks, this client with threads, each alternative and each other system are *sides*. A *cell* is a
//! combination of a side, a number of workers and a choice of keys: one key for all workers, or a key for each worker.
//! Each cell is measured in several rounds. In each round the sides take turns.
//!
//! Each side is a program. For each round of each cell it runs in a new process, on the same cores as the server. If
//! the side uses dflockd, each of these processes has a new server. A side that cannot be installed is left out, and
//! the output says why. Everything is installed and built below the target folder. Programs of the system, such as
//! `python3`, are used if they are in `PATH`.
//!
//! The results are `results.json`, `tables.md`, `own.svg` and `one.svg` in `target/compare`. With `--docs`, they are in
//! `docs/benchmarks`, and the benchmark also rewrites a part of `docs/benchmarks.md` and of `README.md`. In both
//! documents this part is between two comments that name this benchmark.
#![allow(missing_docs)]

mod child;
mod documents;
mod group;
mod guard;
mod limits;
mod places;
mod plot;
#[allow(dead_code, unreachable_pub, clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#[path = "../../tests/support/process.rs"]
mod process;
mod results;
mod run;
mod service;
mod sides;
mod table;
mod work;

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::results::{Keys, Results};
use self::run::Plan;
use self::sides::Packages;
use self::work::{Kind, Work};

#[derive(Parser)]
struct Arguments {
    /// The numbers of workers to measure. The workers of a cell acquire and release at the same time.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000")]
    workers: Vec<usize>,
    /// How many times each cell is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many seconds a round of a cell takes if each worker has a key. With one key for all workers, it takes half
    /// as long.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The choices of keys to measure: each worker has a key of its own, or all workers have the same key.
    #[arg(long, value_delimiter = ',', default_value = "own,one")]
    keys: Vec<Keys>,
    /// The names of the sides to measure. Without names, all sides are measured.
    #[arg(long, value_delimiter = ',')]
    sides: Vec<String>,
    #[command(flatten)]
    packages: Packages,
    /// Makes tables and plots from this file of results, and measures nothing.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Writes the results into `docs/benchmarks`, `docs/benchmarks.md` and `README.md`.
    #[arg(long)]
    docs: bool,
    /// The minimum of a ratio: the pairs that 100 tasks of this client make, divided by the pairs that 100 tasks of the
    /// Python client 2.1.1 make. Each task has a key of its own. If the ratio is smaller, the benchmark fails.
    #[arg(long)]
    at_least: Option<f64>,
    /// `cargo bench` passes this option.
    #[arg(long, hide = true)]
    bench: bool,
    /// What this process does if the benchmark itself started it.
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Runs as the embedded server.
    #[command(hide = true)]
    Serve,
    /// Runs as a side that uses this crate.
    #[command(hide = true)]
    Work {
        kind: Kind,
        #[command(flatten)]
        work: Work,
    },
    /// Runs a program, and kills it when the standard input ends.
    #[command(hide = true)]
    Guard {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Serve) => {
            guard::end_with_the_input();
            service::serve()?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Role::Work { kind, work }) => {
            guard::end_with_the_input();
            work.run(kind)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Role::Guard { command }) => guard::main(command),
        None => compare(&arguments),
    }
}

fn compare(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let (results, json) = match &arguments.from {
        Some(path) => read(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => {
            let results = measure(arguments)?;
            let json = results.to_json()?;
            (results, json)
        }
    };
    let folder = match arguments.docs {
        true => places::root().join("docs/benchmarks"),
        false => places::compare()?,
    };
    documents::write_results(&results, &json, &folder)?;
    if arguments.docs {
        documents::rewrite(&results, &places::root())?;
    }
    println!("\n{}", table::all(&results));
    println!("results, tables and plots: {}", folder.display());
    if let Some(wanted) = arguments.at_least {
        let Some(ratio) = results.lead() else {
            return Err("these results cannot be checked: they lack one of the two sides at 100 workers".into());
        };
        if ratio < wanted {
            return Err(format!("{ratio:.1} x is less than {wanted} x").into());
        }
    }
    Ok(match results.own_failures() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Returns the results in the file, and the text of the file.
fn read(path: &Path) -> Result<(Results, String), Box<dyn Error>> {
    let json = fs::read_to_string(path)?;
    Ok((Results::from_json(&json)?, json))
}

fn measure(arguments: &Arguments) -> Result<Results, Box<dyn Error>> {
    if arguments.workers.contains(&0) || arguments.rounds == 0 || arguments.seconds <= 0.0 {
        return Err("--workers, --rounds and --seconds have to be above 0".into());
    }
    limits::raise_descriptors();
    let plan = Plan {
        workers: arguments.workers.clone(),
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        keys: arguments.keys.clone(),
    };
    let results = run::all(&plan, &arguments.sides, &arguments.packages)?;
    Ok(results)
}
