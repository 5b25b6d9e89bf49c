//! The arguments of `dflock bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::duration;

#[derive(Args)]
#[command(after_help = "\
Measures against the servers of the settings, or with --embedded against an embedded server in a process of its own.
All keys begin with dflock-bench/ and are given back at the end. Ctrl-C ends the measuring, and prints what there is.")]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    pub(crate) what: Bench,
}

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Acquire and release locks: how many pairs a second, and how long each takes
    Pairs(PairsArguments),
    /// Hold many leases: their memory, sockets and processor time, and the latency of another caller meanwhile
    Hold(HoldArguments),
    /// Let callers wait for keys: the time from a release to the grant of the next caller
    Waits(WaitsArguments),
    /// Publish and receive signals: how many a second, and how long each takes
    Signals(SignalsArguments),
    /// Stop the leader of an embedded cluster: the time until leases are renewed at the next one
    #[cfg(feature = "server")]
    Failover(FailoverArguments),
}

/// Where the result goes.
#[derive(Args)]
pub(crate) struct BenchOutput {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw the measured times into this file, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// What is measured.
#[derive(Args)]
pub(crate) struct BenchTarget {
    /// Start an embedded server in a process of its own, in place of the servers of the settings
    #[cfg(feature = "server")]
    #[arg(long)]
    pub(crate) embedded: bool,
}

#[derive(Args)]
pub(crate) struct PairsArguments {
    /// How many tasks acquire and release at the same time, each on a key of its own
    #[arg(long, value_name = "N", default_value = "100", conflicts_with = "sweep", value_parser = count)]
    pub(crate) tasks: usize,
    /// Several numbers of tasks, one after the other
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', value_parser = count)]
    pub(crate) sweep: Vec<usize>,
    /// How long each number of tasks is measured
    #[arg(long, value_name = "D", default_value = "5s", value_parser = span)]
    pub(crate) time: Duration,
    /// How long each number of tasks runs before it is measured
    #[arg(long, value_name = "D", default_value = "1s", value_parser = span)]
    pub(crate) warm_up: Duration,
    #[command(flatten)]
    pub(crate) target: BenchTarget,
    #[command(flatten)]
    pub(crate) output: BenchOutput,
}

#[derive(Args)]
pub(crate) struct HoldArguments {
    /// How many leases are held
    #[arg(long, value_name = "N", default_value = "10000", value_parser = count)]
    pub(crate) leases: usize,
    /// Their TTL [default: the setting lease_ttl]
    #[arg(long, value_name = "D", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// How long they are held
    #[arg(long, value_name = "D", default_value = "10s", value_parser = span)]
    pub(crate) time: Duration,
    /// How long another caller is measured first, while nothing is held
    #[arg(long, value_name = "D", default_value = "5s", value_parser = span)]
    pub(crate) idle: Duration,
    #[command(flatten)]
    pub(crate) target: BenchTarget,
    #[command(flatten)]
    pub(crate) output: BenchOutput,
}

#[derive(Args)]
#[command(after_help = "\
A wait at the server takes a connection, and a client opens at most 190 in a second. Waits without a connection
try their keys now and then: see the setting exclusive_connections.")]
pub(crate) struct WaitsArguments {
    /// How many callers wait, each for a key of its own
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    pub(crate) waits: usize,
    /// How many keys are released in a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) releases: u32,
    /// Let the client of the waiting callers also hold the keys
    #[arg(long)]
    pub(crate) own: bool,
    /// How long callers wait before the first release [default: as long as it takes to open the connections]
    #[arg(long, value_name = "D", value_parser = span)]
    pub(crate) settle: Option<Duration>,
    #[command(flatten)]
    pub(crate) target: BenchTarget,
    #[command(flatten)]
    pub(crate) output: BenchOutput,
}

#[derive(Args)]
pub(crate) struct SignalsArguments {
    /// How many connections receive each signal
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    pub(crate) subscribers: usize,
    /// How many signals are emitted
    #[arg(long, value_name = "N", default_value = "100000", value_parser = count)]
    pub(crate) signals: usize,
    /// How many tasks emit at the same time
    #[arg(long, value_name = "N", default_value = "50", value_parser = count)]
    pub(crate) publishers: usize,
    /// Number of subscriptions of one connection for the measurement of memory
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    pub(crate) subscriptions: usize,
    #[command(flatten)]
    pub(crate) target: BenchTarget,
    #[command(flatten)]
    pub(crate) output: BenchOutput,
}

#[cfg(feature = "server")]
#[derive(Args)]
#[command(after_help = "\
Client and cluster are in this process. How long real servers take to elect a leader comes on top. `dies`: the
connections of the leader end, and no member leads for a moment. `moves`: the leadership moves on, and the
member that led says so when it is asked.")]
pub(crate) struct FailoverArguments {
    /// How many leases are held
    #[arg(long, value_name = "N", default_value = "10000", value_parser = count)]
    pub(crate) leases: usize,
    /// Their TTL
    #[arg(long, value_name = "D", default_value = "60s", value_parser = duration)]
    pub(crate) ttl: Duration,
    /// Number of rounds that count; one more comes first as a warm-up
    #[arg(long, value_name = "N", default_value = "9", value_parser = count)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) output: BenchOutput,
}

/// Parses a number of tasks, keys, signals and so on. Numbers for which an embedded server has no room are refused.
fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=10_000_000) => Ok(number),
        _ => Err("write a whole number from 1 to 10000000".to_owned()),
    }
}

/// Parses the length of a part of a benchmark.
fn span(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(24 * 3600);
    match duration(text)? {
        span if span <= MOST => Ok(span),
        _ => Err("a part of a benchmark takes 24h at most".to_owned()),
    }
}
