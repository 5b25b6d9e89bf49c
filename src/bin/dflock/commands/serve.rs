//! `dflock serve`: the embedded server, for development and tests.

use std::time::Duration;

use dflockd_client::server::Server;
use dflockd_client::{ErrorKind, Ttl};

use crate::args::ServeArguments;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::process::Signals;
use crate::tell;

pub(super) async fn serve(of: &ServeArguments) -> Result<Exit, Failure> {
    let mut signals = Signals::that_end()?;
    let seconds = Duration::from_secs;
    let mut server = Server::builder()
        .host(&of.host)
        .port(of.port)
        .max_locks(of.max_locks)
        .max_waiters(of.max_waiters)
        .max_connections(of.max_connections)
        .default_lease_ttl(Ttl::from_secs(of.default_lease_ttl).unwrap_or(Ttl::DEFAULT))
        .lease_sweep_interval(seconds(of.lease_sweep_interval))
        .read_timeout(seconds(of.read_timeout))
        .shutdown_timeout(seconds(of.shutdown_timeout))
        .auto_release_on_disconnect(!of.no_auto_release_on_disconnect);
    if let Some(release) = &of.release {
        server = server.release(release);
    }
    if let Some(path) = &of.auth_token_file {
        let secret = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(
                Exit::SETTINGS,
                format!("the secret in {} cannot be read: {error}", path.display()),
            )
        })?;
        server = server.auth_token(secret.trim());
    }
    let server = server.start().await.map_err(|error| match error.kind() {
        ErrorKind::Connect => Failure::from(error).remedy("another --port, or 0 for any that is free"),
        _ => Failure::from(error),
    })?;
    tell::warn("this server is for development and tests: it keeps everything in the memory of this process");
    output::line(format_args!("listening on {}", server.local_addr()))?;
    signals.ended().await;
    // Clients may finish; a second signal ends that.
    tokio::select! {
        biased;
        exit = signals.ended() => Ok(exit),
        _ = server.shutdown() => Ok(Exit::SUCCESS),
    }
}
