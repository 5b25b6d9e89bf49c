//! The command line.

mod bench;
#[cfg(feature = "server")]
mod serve;
mod tips;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use dflockd_client::MAX_SECONDS;

#[cfg(feature = "server")]
pub(crate) use self::bench::FailoverArguments;
pub(crate) use self::bench::{
    Bench, BenchArguments, BenchTarget, HoldArguments, PairsArguments, SignalsArguments, WaitsArguments,
};
#[cfg(feature = "server")]
pub(crate) use self::serve::{ServeArguments, unsupported};
pub(crate) use self::tips::advise;
use crate::survey::{Field, Glob};

/// Locks, semaphores, elections and signals of dflockd servers, for shells
#[derive(Parser)]
#[command(name = "dflock", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) sources: SourceFlags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Settings come from flags, then DFLOCKD_* variables, then the settings file, then defaults. Variables:
DFLOCKD_SERVERS or DFLOCKD_URL, DFLOCKD_AUTH_TOKEN_FILE, and DFLOCKD_CLIENT_ with the name of any other
setting in capitals, such as DFLOCKD_CLIENT_LEASE_TTL=10s; `dflock config` lists the settings.
Durations have units: 500ms, 10s, 1m30s. Exit codes: 64 wrong usage, 69 no server, 75 not in time,
76 refused, 77 wrong auth token, 78 wrong settings, 79 lease lost, 128+n ended by signal n.";

impl Arguments {
    /// Reads the command line of this process.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let mut description = Self::command();
        #[cfg(feature = "server")]
        {
            description = description.mut_subcommand("serve", serve::without_empty_variables);
        }
        let matches = description.try_get_matches_from_mut(std::env::args_os())?;
        #[cfg_attr(not(feature = "server"), expect(unused_mut, reason = "only `serve` has such rules"))]
        let mut arguments = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut description))?;
        #[cfg(feature = "server")]
        if let (Command::Serve(serve), Some(matches), Some(command)) = (
            &mut arguments.command,
            matches.subcommand_matches("serve"),
            description.find_subcommand_mut("serve"),
        ) {
            serve.settle(matches, command)?;
        }
        Ok(arguments)
    }

    /// Returns the description of the command line, for completions and manual pages.
    pub(crate) fn description() -> clap::Command {
        Self::command()
    }
}

/// The servers and the client's settings.
#[derive(Args)]
pub(crate) struct SourceFlags {
    /// Settings file (TOML) [default: $XDG_CONFIG_HOME/dflock.toml, ~/.config/dflock.toml or /etc/dflock.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    pub(crate) config: Option<PathBuf>,
    /// Servers and settings as a URL, such as dflockd://host:6388/?connect_timeout=3s
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help_heading = "Settings",
        conflicts_with = "servers"
    )]
    pub(crate) url: Option<String>,
    /// Servers: shards with commas between them, members of a cluster joined by +
    #[arg(long, global = true, value_name = "LIST", help_heading = "Settings")]
    pub(crate) servers: Option<String>,
    /// Any other setting, such as keepalive=5s; `dflock config` lists them
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", help_heading = "Settings", value_parser = pair)]
    pub(crate) set: Vec<(String, String)>,
}

impl SourceFlags {
    /// Returns the name of the first of these flags that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--config", self.config.is_some()),
            ("--url", self.url.is_some()),
            ("--servers", self.servers.is_some()),
            ("--set", !self.set.is_empty()),
        ];
        flags.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a command while a lock or a slot is held
    Run(RunArguments),
    /// Hold a lock or a slot until Ctrl-C, or until standard input ends
    Lock(LockArguments),
    /// Run a command while this process is the leader, and again each time it is elected
    Elect(ElectArguments),
    /// Print the signals of channels as they arrive
    Listen(ListenArguments),
    /// Publish a signal
    Emit(EmitArguments),
    /// Show what servers hold
    Stats(StatsArguments),
    /// Show what servers hold as it changes, on the whole terminal
    Top(TopArguments),
    /// Examine the servers that the settings name, and say what to do
    Doctor(DoctorArguments),
    /// Run the embedded server, for development and tests
    #[cfg(feature = "server")]
    Serve(Box<ServeArguments>),
    /// Measure what client and servers can do
    Bench(BenchArguments),
    /// Show all settings, and where each comes from
    Config(ConfigArguments),
    /// Print a script that completes this command in a shell
    Completions(CompletionsArguments),
    /// Print the manual page, or write those of all subcommands into a folder
    Man(ManArguments),
}

impl Command {
    /// Returns the name of this subcommand if it does not use the settings of clients.
    pub(crate) fn without_settings(&self) -> Option<&'static str> {
        match self {
            #[cfg(feature = "server")]
            Self::Serve(_) => Some("serve"),
            Self::Completions(_) => Some("completions"),
            Self::Man(_) => Some("man"),
            _ => None,
        }
    }
}

/// What to hold, and how.
#[derive(Args)]
pub(crate) struct Hold {
    /// Key of the lock
    #[arg(value_name = "KEY", required_unless_present = "keys", conflicts_with = "keys")]
    pub(crate) key: Option<String>,
    /// Take several locks at once, all or none
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', conflicts_with = "limit")]
    pub(crate) keys: Vec<String>,
    /// Take a slot of a semaphore with this limit, instead of a lock
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// Do not wait: fail at once if the key is held
    #[arg(long = "try", conflicts_with = "timeout")]
    pub(crate) no_wait: bool,
    /// How long to wait for the key [default: the setting acquire_timeout, 10s]
    #[arg(long, value_name = "D", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// How long the server keeps the lease without a renewal [default: the setting lease_ttl]
    #[arg(long, value_name = "D", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Require a fence: fail if the server issues none
    #[arg(long)]
    pub(crate) fence: bool,
}

/// What happens to the command when the lease is lost.
#[derive(Args)]
pub(crate) struct Fate {
    /// What happens to the command when the lease is lost
    #[arg(long, value_enum, default_value_t = OnLoss::Term)]
    pub(crate) on_loss: OnLoss,
    /// Time between TERM and KILL; the lease counts as lost that much earlier [default: 5s, at most a quarter of the
    /// TTL]
    #[arg(long, value_name = "D", value_parser = grace)]
    pub(crate) grace: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLoss {
    /// TERM to its process group, and KILL after the grace
    Term,
    /// KILL to its process group
    Kill,
    /// Print a message, and let the command run on
    Ignore,
}

#[derive(Args)]
#[command(after_help = "\
The TTL is 30s unless a flag or a setting says otherwise. The command runs in a process group of its own, with DFLOCK_KEY,
DFLOCK_SERVER and, where there is one, DFLOCK_FENCE in its environment. On loss of the lease the group is
stopped before the lease can be granted to another; where the connection was cut it is killed at once.
The exit code is that of the command.")]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) hold: Hold,
    #[command(flatten)]
    pub(crate) fate: Fate,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args)]
#[command(after_help = "\
Prints one line of JSON when the key is held. Ends with 0 when the lease was released, and with 79 if it was lost.")]
pub(crate) struct LockArguments {
    #[command(flatten)]
    pub(crate) hold: Hold,
    /// Keep holding when standard input ends
    #[arg(long)]
    pub(crate) ignore_stdin: bool,
}

#[derive(Args)]
#[command(after_help = "\
Candidates wait as long as it takes. When the lease is lost, the command is stopped as `dflock run` stops it,
and is started again each time this process is elected. When the command ends by itself, `dflock` ends with
its exit code.")]
pub(crate) struct ElectArguments {
    /// Key of the election
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// How long the server keeps a leader without a renewal [default: the setting lease_ttl]
    #[arg(long, value_name = "D", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) fate: Fate,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args)]
pub(crate) struct ListenArguments {
    /// Channel, or pattern of channels: * is one part of a name, > all that follow
    #[arg(value_name = "PATTERN")]
    pub(crate) pattern: String,
    /// Share the signals with the other members of this group
    #[arg(long, value_name = "G")]
    pub(crate) group: Option<String>,
    /// End after this many signals
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// One JSON object a line; a gap in the signals has lines of its own
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct EmitArguments {
    /// Channel
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// Payload; if it is `-` or missing, it is read from standard input
    #[arg(value_name = "PAYLOAD|-", default_value = "-", hide_default_value = true)]
    pub(crate) payload: String,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which keys are shown, and in which order.
#[derive(Args)]
pub(crate) struct Shown {
    /// Order of keys: waiters, held, lease, idle, key, kind or shard [default: waiters]
    #[arg(long, value_enum, value_name = "FIELD", hide_possible_values = true)]
    pub(crate) sort: Option<Field>,
    /// Show only keys that match: * is any text, ? one character
    #[arg(long, value_name = "GLOB")]
    pub(crate) filter: Option<Glob>,
}

#[derive(Args)]
#[command(after_help = "\
On a terminal --watch draws the table anew; elsewhere it prints one table, or one JSON object a line, each time.
Ctrl-C ends it with 0. A shard that does not answer is shown with its error. With --json, keys are in the order of
the server unless --sort names another.")]
pub(crate) struct StatsArguments {
    /// Look repeatedly, every 2s if no interval is given
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        default_missing_value = "2s",
        value_parser = period
    )]
    pub(crate) watch: Option<Duration>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Args)]
#[command(after_help = "\
Press ? for the keys that it knows, and q to quit. Needs a terminal of 60x12 or more.")]
pub(crate) struct TopArguments {
    /// How often servers are asked
    #[arg(long, value_name = "D", default_value = "1s", value_parser = period)]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Args)]
#[command(after_help = "\
Each line says ok, warn, fail or skip, and what to do. The exit code is 0 if nothing failed, and otherwise that of the
first failure: 69 no server, 75 full, 76 refused, TLS or clock, 77 wrong auth token, 79 lease ended too early. A lock
with a TTL of 2s is taken and released at each server that serves locks; nothing else is changed.")]
pub(crate) struct DoctorArguments {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// How long one check of one server may take
    #[arg(long, value_name = "D", value_parser = patience, default_value = "3s")]
    pub(crate) timeout: Duration,
    /// Number of requests that measure the latency
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = requests)]
    pub(crate) requests: usize,
    /// The servers' cap on keys, which they do not report: warns when the count is near
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_locks: Option<u64>,
    /// The servers' cap on connections, which they do not report either
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_connections: Option<u64>,
}

#[derive(Args)]
pub(crate) struct ConfigArguments {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct CompletionsArguments {
    /// Shell that the script is for
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: Shell,
}

#[derive(Args)]
pub(crate) struct ManArguments {
    /// Write dflock.1, dflock-run.1 and so on into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
}

/// Parses a duration in the form of the settings.
fn duration(text: &str) -> Result<Duration, String> {
    let refused = |_| "write a duration with its unit, such as 500ms, 10s or 1m30s".to_owned();
    dflockd_client::parse_duration(text).map_err(refused)
}

/// Parses the interval between two looks at the servers.
fn period(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(3600);
    let period = duration(text)?;
    match (LEAST..=MOST).contains(&period) {
        true => Ok(period),
        false => Err("an interval is at least 100ms, and 1h at most".to_owned()),
    }
}

/// Parses the time limit of a check.
fn patience(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(600);
    let patience = duration(text)?;
    match !patience.is_zero() && patience <= most {
        true => Ok(patience),
        false => Err(format!("write a duration above 0, and {most:?} at most")),
    }
}

/// Parses a number of requests.
fn requests(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=100_000) => Ok(count),
        _ => Err("give a number from 1 to 100000".to_owned()),
    }
}

/// Parses a duration that is not longer than the longest TTL, because clocks cannot represent every duration.
fn grace(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(MAX_SECONDS);
    let grace = duration(text)?;
    match grace <= most {
        true => Ok(grace),
        false => Err(format!(
            "a grace can be no longer than the longest TTL, which is {most:?}"
        )),
    }
}

/// Parses `name=value`.
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("write NAME=VALUE, the name of a setting and its value")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_consistent() {
        Arguments::description().debug_assert();
    }

    #[cfg(feature = "server")]
    #[test]
    fn the_variables_of_servers_are_known_to_clients() {
        let whole = Arguments::description();
        let serve = whole.find_subcommand("serve").unwrap();
        let variables: Vec<_> = serve.get_arguments().filter_map(|flag| flag.get_env()).collect();
        assert!(variables.len() > 15, "{variables:?}");
        let ignored = dflockd_client::ClientOptions::ignored_vars(variables.into_iter().map(|name| (name, "1")));
        assert_eq!(ignored, []);
    }
}
