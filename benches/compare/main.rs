//! Measures pairs of acquire and release a second, for this client and for its alternatives: clients in other languages
//! on the same embedded server and, for orientation, other systems.
//!
//!     cargo bench --bench compare
//!     cargo bench --bench compare -- --rounds 1 --seconds 0.5 --workers 1,100 --sides tasks,python-2-tasks
//!     cargo bench --bench compare -- --docs
//!     cargo bench --bench compare -- --from docs/benchmarks/results.json --docs
//!
//! Each side is a program, which runs in a new process for each round of each cell of the table, on the same cores as
//! the server. A side that uses dflockd has a new server for each of these processes. Sides take turns within each
//! round. A side that cannot be installed is left out, and the output says why. Everything is installed and built below
//! the target folder; programs of the system are used if they are in `PATH`.
//!
//! It writes `results.json`, `tables.md`, `own.svg` and `one.svg` to `target/compare`, or, with `--docs`, to `docs/benchmarks`; then it
//! also rewrites the parts of `docs/benchmarks.md` and `README.md` between the two comments that name this program.
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
    /// How many workers acquire and release at the same time; each number is measured.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000")]
    workers: Vec<usize>,
    /// How many times each cell is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many seconds are measured in a cell with a key for each worker; half as many with one key for all workers.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Whether each worker has a key of its own, or all have the same.
    #[arg(long, value_delimiter = ',', default_value = "own,one")]
    keys: Vec<Keys>,
    /// The names of the sides to measure; all sides if none is given.
    #[arg(long, value_delimiter = ',')]
    sides: Vec<String>,
    #[command(flatten)]
    packages: Packages,
    /// Makes tables and plots of these results, without measuring.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Writes into the documents of the project.
    #[arg(long)]
    docs: bool,
    /// Fails unless 100 tasks of this client make at least this many times as many pairs as 100 tasks of the Python
    /// client 2.1.1, each with its own key.
    #[arg(long)]
    at_least: Option<f64>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// The role of a process that this program starts.
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
    /// Runs a program until the standard input ends.
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

/// Returns results, and the text of their file.
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
