//! Checks whether the records of clients and servers obey the rules of the protocol.
//!
//!     cargo run --release --example check_history -- FILE...
//!
//! All files are checked together, as the records of one run. Without a file, the record is read from standard input.
//! The exit status is 1 if a rule is broken, and 2 if a record cannot be read. `docs/testing.md` describes the format
//! of records and the rules.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

#[path = "../tests/support/history/mod.rs"]
mod history;

use history::History;
use history::bounds::{Bounds, nanoseconds};
use history::reader::{ReadError, read};
use history::record::Line;

/// Checks whether the records of clients and servers obey the rules.
#[derive(Parser)]
struct Options {
    /// The files of the records. Without a file, standard input is read.
    files: Vec<PathBuf>,
    /// How late a task that is due may run, in milliseconds.
    #[arg(long)]
    scheduling: Option<u64>,
    /// How late a client may notice that a server has ended a lease, in milliseconds.
    #[arg(long)]
    unnoticed: Option<u64>,
    /// How late a subscription may notice that its connection is lost, in milliseconds.
    #[arg(long)]
    silence: Option<u64>,
    /// How long a grant may last while no caller has it or waits for it, in milliseconds.
    #[arg(long)]
    unowned: Option<u64>,
    /// How long a request may be on its way to the server, in milliseconds.
    #[arg(long)]
    transit: Option<u64>,
    /// How long a signal may be on its way to its subscribers, in milliseconds.
    #[arg(long)]
    delivery: Option<u64>,
}

impl Options {
    fn bounds(&self) -> Bounds {
        let or = |given: Option<u64>, default: u64| given.map_or(default, |ms| nanoseconds(Duration::from_millis(ms)));
        let default = Bounds::default();
        Bounds {
            scheduling: or(self.scheduling, default.scheduling),
            unnoticed: or(self.unnoticed, default.unnoticed),
            silence: or(self.silence, default.silence),
            unowned: or(self.unowned, default.unowned),
            transit: or(self.transit, default.transit),
            delivery: or(self.delivery, default.delivery),
        }
    }

    fn records(&self) -> Result<Vec<Line>, String> {
        if self.files.is_empty() {
            return read(io::stdin().lock()).map_err(|error| format!("standard input: {error}"));
        }
        let mut lines = Vec::new();
        for file in &self.files {
            let opened = File::open(file).map_err(ReadError::Io);
            let record = opened.and_then(|record| read(BufReader::new(record)));
            lines.extend(record.map_err(|error| format!("{}: {error}", file.display()))?);
        }
        Ok(lines)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let begun = Instant::now();
    let lines = match options.records() {
        Ok(lines) => lines,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let count = lines.len();
    let verdict = History::default().with(lines).judge(&options.bounds());
    print!("{verdict}");
    eprintln!("{count} lines in {:.3} s", begun.elapsed().as_secs_f64());
    match verdict.is_valid() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
