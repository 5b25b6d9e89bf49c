//! Measures the sides in rounds, in which the sides take turns.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::places;
use crate::results::{Cell, Keys, LeftOut, Results, Side as Named};
use crate::service::{Service, System};
use crate::sides::{Packages, Program, SIDES, Side};
use crate::table::rate;
use crate::work::Work;

/// How long the program of a side may take in addition to the warm-up and the measured time, for example to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// The duration of the warm-up, as a fraction of the measured time.
const WARM_UP: f64 = 0.25;

/// Which cells are measured, and how.
pub(crate) struct Plan {
    pub(crate) workers: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) keys: Vec<Keys>,
}

/// The line of JSON that the program of a side prints.
#[derive(Deserialize, Serialize)]
pub(crate) struct Measured {
    pub(crate) version: String,
    pub(crate) pairs: u64,
    pub(crate) seconds: f64,
}

/// A side whose program is ready, so that it can be measured.
struct PreparedSide {
    side: &'static Side,
    program: Program,
    version: String,
}

/// Measures the sides with these names, or all sides if there are no names.
pub(crate) fn all(plan: &Plan, names: &[String], packages: &Packages) -> Result<Results, Box<dyn Error>> {
    let wanted = wanted(names)?;
    let began = Instant::now();
    let mut left_out = Vec::new();
    let mut prepared_sides = Vec::new();
    // The servers of other systems run until the end, because an idle server does not slow down the other sides.
    let mut services = HashMap::new();
    for side in wanted {
        match prepare(side, packages, &mut services) {
            Ok(program) => prepared_sides.push(PreparedSide {
                side,
                program,
                version: String::new(),
            }),
            Err(reason) => {
                println!("LEFT OUT: {}: {reason}", side.label);
                left_out.push(LeftOut {
                    label: side.label.to_owned(),
                    reason: one_line(&reason),
                });
            }
        }
    }
    println!("prepared in {:.0} s", began.elapsed().as_secs_f64());

    let mut cells = Vec::new();
    for keys in &plan.keys {
        // With one worker, [`Keys::One`] would measure the same as [`Keys::Own`].
        let contended = |workers: &&usize| *keys == Keys::Own || **workers > 1;
        for workers in plan.workers.iter().filter(contended) {
            let mut row: Vec<Cell> = prepared_sides
                .iter()
                .map(|prepared| Cell {
                    side: prepared.side.name.to_owned(),
                    keys: *keys,
                    workers: *workers,
                    rates: Vec::new(),
                    failures: Vec::new(),
                })
                .collect();
            for round in 1..=plan.rounds {
                for (prepared, cell) in prepared_sides.iter_mut().zip(&mut row) {
                    let prefix = format!("compare/{keys}/{workers}/{round}");
                    let measured = measure(prepared, &services, plan, cell, prefix);
                    record(round, prepared, cell, measured);
                }
            }
            cells.append(&mut row);
        }
    }
    println!("measured; all in all {:.0} s", began.elapsed().as_secs_f64());
    Ok(Results {
        date: first_line_of("date", &["-u", "+%Y-%m-%d"]),
        machine: machine(),
        rounds: plan.rounds,
        seconds: plan.seconds,
        workers: plan.workers.clone(),
        sides: prepared_sides.into_iter().map(PreparedSide::named).collect(),
        left_out,
        cells,
    })
}

fn wanted(names: &[String]) -> Result<Vec<&'static Side>, String> {
    if let Some(unknown) = names.iter().find(|name| !SIDES.iter().any(|side| side.name == **name)) {
        let known: Vec<&str> = SIDES.iter().map(|side| side.name).collect();
        return Err(format!(
            "there is no side {unknown}; the sides are {}",
            known.join(", ")
        ));
    }
    let is_wanted = |side: &&Side| names.is_empty() || names.iter().any(|name| name == side.name);
    Ok(SIDES.iter().filter(is_wanted).collect())
}

/// Installs or builds the program of the side. If the side uses another system, also starts the server of that system
/// once.
fn prepare(side: &Side, packages: &Packages, services: &mut HashMap<System, Service>) -> Result<Program, String> {
    println!("preparing: {}", side.label);
    let program = side.prepare(packages)?;
    if side.system != System::Dflockd && !services.contains_key(&side.system) {
        services.insert(side.system, Service::start(side.system)?);
    }
    Ok(program)
}

fn measure(
    prepared: &PreparedSide,
    services: &HashMap<System, Service>,
    plan: &Plan,
    cell: &Cell,
    prefix: String,
) -> Result<Measured, String> {
    let system = prepared.side.system;
    let fresh;
    let service = match services.get(&system) {
        Some(service) => service,
        None => {
            fresh = Service::start(system)?;
            &fresh
        }
    };
    let SocketAddr::V4(address) = service.address else {
        return Err(format!("{} is not an IPv4 address", service.address));
    };
    let seconds = match cell.keys {
        Keys::Own => plan.seconds,
        Keys::One => plan.seconds / 2.0,
    };
    let work = Work {
        host: (*address.ip()).into(),
        port: address.port(),
        keys: cell.keys,
        prefix,
        workers: cell.workers,
        warm: seconds * WARM_UP,
        seconds,
    };
    let mut child = prepared.program.start(prepared.side.label, &work.arguments())?;
    let line = child.line(Duration::from_secs_f64(work.warm + seconds) + PATIENCE)?;
    let measured: Measured =
        serde_json::from_str(&line).map_err(|error| format!("{} printed {line:?}: {error}", prepared.side.label))?;
    match measured.pairs {
        0 => Err(format!("no pair in {:.1} s", measured.seconds)),
        _ => Ok(measured),
    }
}

fn record(round: usize, prepared: &mut PreparedSide, cell: &mut Cell, measured: Result<Measured, String>) {
    let place = format!(
        "{} key, workers {}, round {round}, {}:",
        cell.keys, cell.workers, prepared.side.label
    );
    match measured {
        Ok(measured) => {
            let pairs = measured.pairs as f64 / measured.seconds;
            println!("{place} {} pairs/s", rate(pairs));
            cell.rates.push(pairs);
            prepared.version = measured.version;
        }
        Err(failure) => {
            println!("{place} FAILED: {failure}");
            cell.failures.push(one_line(&failure));
        }
    }
}

impl PreparedSide {
    fn named(self) -> Named {
        let server = match self.side.system {
            System::Dflockd => String::new(),
            System::Redis => first_line_of("redis-server", &["--version"]),
            System::Etcd => first_line_of("etcd", &["--version"]),
        };
        // The programs print `Redis server v=7.0.15 sha=…` and `etcd Version: 3.4.23`.
        let number = server
            .split_whitespace()
            .map(|word| word.trim_start_matches("v="))
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        let version = match number {
            Some(number) => format!("{}; server {number}", self.version),
            None => self.version,
        };
        Named {
            name: self.side.name.to_owned(),
            label: self.side.label.to_owned(),
            is_another_system: self.side.system != System::Dflockd,
            version,
        }
    }
}

/// Returns the first line of an error, for the results. The other lines name folders and servers of this machine, so
/// the results do not contain them.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.trim().trim_end_matches('.').to_owned()
}

/// Describes the number of cores, the processor and the system.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} x {model}, {}", first_line_of("uname", &["-sr"]))
}

/// Returns the first line that a program prints. The string is empty if the program is missing or prints nothing.
fn first_line_of(program: &str, arguments: &[&str]) -> String {
    let output = places::program(program).and_then(|program| Command::new(program).args(arguments).output().ok());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.as_deref()
        .and_then(|text| text.lines().next())
        .unwrap_or_default()
        .trim()
        .to_owned()
}
