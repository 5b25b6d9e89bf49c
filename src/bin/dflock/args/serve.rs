//! The flags of `dflock serve`: those of the real server, and some that only this server has.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command};
use dflockd_client::server::Release;

/// Prefixes of the flags of the real server that this server does not support, each with the reason.
const UNSUPPORTED: [(&str, &str); 8] = [
    ("--http-", "it has no HTTP interface"),
    (
        "--raft-",
        "its members share one state in this process: --cluster N starts them",
    ),
    (
        "--cluster-",
        "--cluster N starts all members at once, with one shared state",
    ),
    ("--node-id", "--cluster N names its members n0, n1 and so on"),
    ("--advertise-addr", "members listen where clients reach them"),
    (
        "--fence-state-file",
        "it keeps everything in memory; its fences begin at the time of the start",
    ),
    (
        "--max-connections-per-ip",
        "it has one cap for all connections, --max-connections",
    ),
    (
        "--debug",
        "it writes no log; `dflock stats` and `dflock doctor` look inside",
    ),
];

/// Returns the message for a flag that only the real server has; `None` for every other mistake.
pub(crate) fn unsupported(refused: &clap::Error) -> Option<String> {
    let flag = match (refused.kind(), refused.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) => flag,
        _ => return None,
    };
    let (_, why) = UNSUPPORTED.iter().find(|(prefix, _)| flag.starts_with(prefix))?;
    Some(format!("the embedded server does not support {flag}: {why}"))
}

/// Flags and variables have the names that the newest public server gives them.
#[derive(Args)]
#[command(after_help = "\
This server keeps everything in the memory of one process. It is for development and tests, not for production.
All times are whole seconds, as the flags of the real server have them. INT and TERM make it drain: no new connections,
waiters are refused, clients may finish for --shutdown-timeout; a second signal ends it at once.

With --cluster, lines on standard input control the members:
  members     shows all members, and who leads
  leader      shows who leads
  leader 1    makes n1 the leader
  depose      leaves the cluster without a leader
  kill 1      ends n1 as SIGKILL does; if it led, the next member leads if a majority still runs
  stop 1      the same after it drained, as SIGTERM does
  start 1     starts n1 again, at its old address; if no member leads and a majority runs, the next one leads
  isolate 1   cuts n1 off from the others, and rejoin 1 ends that")]
pub(crate) struct ServeArguments {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", env = "DFLOCKD_HOST", hide_env_values = true)]
    pub(crate) host: String,
    /// Port to listen on; 0 for any that is free. Members of a cluster have the ports from this one on
    #[arg(long, default_value_t = 6388, env = "DFLOCKD_PORT", hide_env_values = true)]
    pub(crate) port: u16,
    /// Cap on distinct keys, including recently used ones
    #[arg(long, default_value_t = 1024, env = "DFLOCKD_MAX_LOCKS", hide_env_values = true)]
    pub(crate) max_locks: usize,
    /// Cap on waiters of one key; 0 for no cap
    #[arg(long, default_value_t = 0, env = "DFLOCKD_MAX_WAITERS", hide_env_values = true)]
    pub(crate) max_waiters: usize,
    /// Cap on connections; 0 for no cap
    #[arg(long, default_value_t = 0, env = "DFLOCKD_MAX_CONNECTIONS", hide_env_values = true)]
    pub(crate) max_connections: usize,
    /// Cap on subscriptions to signals of one connection; 0 for no cap
    #[arg(long, default_value_t = 0, env = "DFLOCKD_MAX_SUBSCRIPTIONS", hide_env_values = true)]
    pub(crate) max_subscriptions: usize,
    /// TTL of leases for which the client gives none
    #[arg(long, default_value_t = 33, env = "DFLOCKD_DEFAULT_LEASE_TTL_S", hide_env_values = true,
        value_parser = clap::value_parser!(u64).range(1..=9_223_372_036))]
    pub(crate) default_lease_ttl: u64,
    /// Interval between two searches for expired leases
    #[arg(
        long,
        default_value_t = 1,
        env = "DFLOCKD_LEASE_SWEEP_INTERVAL_S",
        hide_env_values = true
    )]
    pub(crate) lease_sweep_interval: u64,
    /// Interval between two searches for unused keys
    #[arg(long, default_value_t = 5, env = "DFLOCKD_GC_INTERVAL_S", hide_env_values = true)]
    pub(crate) gc_interval: u64,
    /// How long a key must be unused before it is forgotten
    #[arg(long, default_value_t = 60, env = "DFLOCKD_GC_MAX_IDLE_S", hide_env_values = true)]
    pub(crate) gc_max_idle: u64,
    /// How long a connection may be silent
    #[arg(long, default_value_t = 23, env = "DFLOCKD_READ_TIMEOUT_S", hide_env_values = true)]
    pub(crate) read_timeout: u64,
    /// How long a connection may refuse to take an answer
    #[arg(long, default_value_t = 5, env = "DFLOCKD_WRITE_TIMEOUT_S", hide_env_values = true)]
    pub(crate) write_timeout: u64,
    /// How long a shutdown waits for clients; 0 for no limit
    #[arg(
        long,
        default_value_t = 30,
        env = "DFLOCKD_SHUTDOWN_TIMEOUT_S",
        hide_env_values = true
    )]
    pub(crate) shutdown_timeout: u64,
    /// Whether the end of a connection releases the leases that were acquired over it
    #[arg(long, default_value_t = true, env = "DFLOCKD_AUTO_RELEASE_ON_DISCONNECT", hide_env_values = true,
        action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true,
        value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) auto_release_on_disconnect: bool,
    /// Auth token that every connection must present; other users of this machine can see it, so a file is safer
    #[arg(long, env = "DFLOCKD_AUTH_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) auth_token: Option<String>,
    /// File that holds the auth token; blanks around it do not matter
    #[arg(long, env = "DFLOCKD_AUTH_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) auth_token_file: Option<PathBuf>,
    /// Serve TLS: file with the certificate and the intermediate certificates, as PEM
    #[arg(
        long,
        env = "DFLOCKD_TLS_CERT",
        hide_env_values = true,
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// File with the private key of the certificate, as PEM
    #[arg(
        long,
        env = "DFLOCKD_TLS_KEY",
        hide_env_values = true,
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// For clusters: how long the members keep the leases and queue positions of an ended connection for its session
    #[arg(long, default_value_t = 0, env = "DFLOCKD_ORPHAN_TTL_S", hide_env_values = true)]
    pub(crate) orphan_ttl: u64,
    /// Accept only clients with a certificate of an authority in this file
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = OWN)]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Release whose protocol the server speaks: 1.10 to 1.16, 2.0, 2.1, or cluster
    #[arg(long, default_value_t = Release::NEWEST, help_heading = OWN)]
    pub(crate) release: Release,
    /// Serve a cluster of N members, each on a port of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=99), conflicts_with = "release", help_heading = OWN)]
    pub(crate) cluster: Option<u16>,
    /// How many signals may wait for a connection before it is closed
    #[arg(long, default_value_t = 64, help_heading = OWN)]
    pub(crate) signal_buffer: usize,
    /// For benchmarks: how many microseconds each request of a connection takes
    #[arg(long, default_value_t = 0, help_heading = OWN)]
    pub(crate) request_micros: u64,
}

/// Removes from the description the variables that are empty: they count as absent, as they do for clients.
pub(super) fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command.mut_args(|flag| match flag.get_env().is_some_and(is_empty) {
        true => flag.env(None::<&'static str>),
        false => flag,
    })
}

const OWN: &str = "Flags that the real server does not have";

impl ServeArguments {
    /// Applies the rules that depend on the source of a value. clap has no such rules. Flags override variables.
    /// Without a cluster, `DFLOCKD_ORPHAN_TTL_S` has no effect, and `--orphan-ttl` is an error.
    pub(super) fn settle(&mut self, matches: &ArgMatches, command: &mut Command) -> Result<(), clap::Error> {
        let is_flag = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        match (is_flag("auth_token"), is_flag("auth_token_file")) {
            (true, false) => self.auth_token_file = None,
            (false, true) => self.auth_token = None,
            (true, true) | (false, false) if self.auth_token.is_some() && self.auth_token_file.is_some() => {
                let said =
                    "--auth-token (DFLOCKD_AUTH_TOKEN) cannot be used with --auth-token-file (DFLOCKD_AUTH_TOKEN_FILE)";
                return Err(command.error(ErrorKind::ArgumentConflict, said));
            }
            _ => {}
        }
        if is_flag("orphan_ttl") && self.cluster.is_none() {
            return Err(command.error(ErrorKind::MissingRequiredArgument, "--orphan-ttl needs --cluster <N>"));
        }
        Ok(())
    }

    /// Returns the address on which a cluster listens; `None` if the host is neither an address nor `localhost`.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self.host.as_str() {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            host => host.parse().ok(),
        }
    }
}
