//! The embedded server on the command line, with the flags of the real one and three of its own.
//!
//!     cargo run --example server -- --port 6388 --max-locks 100000
//!
//! Prints the address as soon as it listens. SIGTERM or Ctrl-C makes it drain: no new connections, waiters are turned away,
//! clients may finish for `--shutdown-timeout` seconds.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use dflockd_client::Ttl;
use dflockd_client::server::{Release, Server, ServerTls};

/// An embedded dflockd server. All times are whole seconds.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 for any that is free
    #[arg(long, default_value_t = 6388)]
    port: u16,
    /// Cap on distinct keys, those that were used lately included
    #[arg(long, default_value_t = 1024)]
    max_locks: usize,
    /// Cap on waiters of one key; 0 for none
    #[arg(long, default_value_t = 0)]
    max_waiters: usize,
    /// Cap on connections; 0 for none
    #[arg(long, default_value_t = 0)]
    max_connections: usize,
    /// TTL of leases for which the client gives none
    #[arg(long, default_value_t = 33, value_parser = clap::value_parser!(u64).range(1..=9_223_372_036))]
    default_lease_ttl: u64,
    /// How often expired leases are looked for
    #[arg(long, default_value_t = 1)]
    lease_sweep_interval: u64,
    /// How often keys that nobody uses are looked for
    #[arg(long, default_value_t = 5)]
    gc_interval: u64,
    /// After how long without use a key is forgotten
    #[arg(long, default_value_t = 60)]
    gc_max_idle: u64,
    /// Whether a connection that ends gives up what was acquired over it
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    auto_release_on_disconnect: bool,
    /// How long a connection may be silent
    #[arg(long, default_value_t = 23)]
    read_timeout: u64,
    /// How long a connection may refuse to take an answer
    #[arg(long, default_value_t = 5)]
    write_timeout: u64,
    /// How long clients may finish when the server shuts down
    #[arg(long, default_value_t = 30)]
    shutdown_timeout: u64,
    /// Secret that every connection must present
    #[arg(long, conflicts_with = "auth_token_file")]
    auth_token: Option<String>,
    /// File that holds the secret; white space around it does not count
    #[arg(long)]
    auth_token_file: Option<PathBuf>,
    /// Serve TLS: file with the certificate, and those between it and its authority, as PEM
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// File with the private key of the certificate, as PEM
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let in only clients with a certificate of an authority in this file
    #[arg(long, requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Cap on subscriptions to signals of one connection; 0 for none
    #[arg(long, default_value_t = 0)]
    max_subscriptions: usize,
    /// Which release it plays: 1.10 to 1.16, 2.0, 2.1, or cluster; the real server has no such flag
    #[arg(long, default_value_t = Release::NEWEST)]
    release: Release,
    /// How many signals may wait for a connection before it is closed; the real server has no such flag
    #[arg(long, default_value_t = 64)]
    signal_buffer: usize,
    /// For benchmarks: how many microseconds each request of a connection takes; the real server has no such flag
    #[arg(long, default_value_t = 0)]
    request_micros: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    let secs = Duration::from_secs;
    let mut server = Server::builder()
        .host(flags.host)
        .port(flags.port)
        .max_locks(flags.max_locks)
        .max_waiters(flags.max_waiters)
        .max_connections(flags.max_connections)
        .default_lease_ttl(Ttl::from_secs(flags.default_lease_ttl).unwrap_or(Ttl::DEFAULT))
        .lease_sweep_interval(secs(flags.lease_sweep_interval))
        .gc_interval(secs(flags.gc_interval))
        .gc_max_idle(secs(flags.gc_max_idle))
        .auto_release_on_disconnect(flags.auto_release_on_disconnect)
        .read_timeout(secs(flags.read_timeout))
        .write_timeout(secs(flags.write_timeout))
        .shutdown_timeout(secs(flags.shutdown_timeout))
        .max_subscriptions(flags.max_subscriptions)
        .release(flags.release)
        .signal_buffer(flags.signal_buffer)
        .request_time(Duration::from_micros(flags.request_micros));
    let token = match flags.auth_token_file {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read the auth token file {}: {error}", path.display()))?;
            Some(text.trim().to_owned())
        }
        None => flags.auth_token,
    };
    if let Some(token) = token {
        server = server.auth_token(token);
    }
    if let (Some(certificate), Some(key)) = (flags.tls_cert, flags.tls_key) {
        let mut tls = ServerTls::pem_files(certificate, key);
        if let Some(authorities) = flags.tls_client_ca {
            tls = tls.client_ca_file(authorities);
        }
        server = server.tls(tls.config()?);
    }
    let server = server.start().await?;
    // Whoever reads the address may send a signal at once: be ready for it first.
    let mut end = EndIsWanted::new()?;
    say(&format!("listening on {}", server.local_addr()));
    end.wait().await?;
    say("shutting down");
    server.shutdown().await;
    Ok(())
}

/// Prints a line. Whoever read the address may have closed the pipe since: no reason to end.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Ctrl-C and, where there is one, SIGTERM.
struct EndIsWanted {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl EndIsWanted {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) -> std::io::Result<()> {
        #[cfg(unix)]
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = self.terminate.recv() => Ok(()),
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await
    }
}
