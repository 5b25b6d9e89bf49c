//! `dflock serve`: the embedded server, for development and tests.

mod cluster;
mod orders;

use std::path::Path;
use std::time::Duration;

use dflockd_client::server::{Server, ServerBuilder, ServerTls};
use dflockd_client::{Error, ErrorKind, Ttl};

use crate::args::ServeArguments;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::process::Signals;
use crate::tell;

pub(super) async fn serve(of: &ServeArguments) -> Result<Exit, Failure> {
    let mut signals = Signals::that_end()?;
    let each = builder(of)?;
    tell::warn("this server is for development and tests: it keeps everything in the memory of this process");
    match of.cluster {
        Some(members) => cluster::serve(of, members, each, &mut signals).await,
        None => serve_alone(each, &mut signals).await,
    }
}

async fn serve_alone(builder: ServerBuilder, signals: &mut Signals) -> Result<Exit, Failure> {
    let server = builder.start().await.map_err(not_started)?;
    output::line(format_args!("listening on {}", server.local_addr()))?;
    signals.ended().await;
    tell::warn("shutting down; a second signal ends this process at once");
    tokio::select! {
        biased;
        exit = signals.ended() => Ok(exit),
        _ = server.shutdown() => Ok(Exit::SUCCESS),
    }
}

/// Returns the builder of the server that the flags describe.
fn builder(of: &ServeArguments) -> Result<ServerBuilder, Failure> {
    let seconds = Duration::from_secs;
    let mut server = Server::builder()
        .host(&of.host)
        .port(of.port)
        .release(of.release)
        .max_locks(of.max_locks)
        .max_waiters(of.max_waiters)
        .max_connections(of.max_connections)
        .max_subscriptions(of.max_subscriptions)
        .default_lease_ttl(Ttl::from_secs(of.default_lease_ttl).unwrap_or(Ttl::DEFAULT))
        .lease_sweep_interval(seconds(of.lease_sweep_interval))
        .gc_interval(seconds(of.gc_interval))
        .gc_max_idle(seconds(of.gc_max_idle))
        .read_timeout(seconds(of.read_timeout))
        .write_timeout(seconds(of.write_timeout))
        .auto_release_on_disconnect(of.auto_release_on_disconnect)
        .orphan_ttl(seconds(of.orphan_ttl))
        .signal_buffer(of.signal_buffer)
        .request_time(Duration::from_micros(of.request_micros))
        .shutdown_timeout(match of.shutdown_timeout {
            // The real server waits without limit.
            0 => Duration::MAX,
            limit => seconds(limit),
        });
    if let Some(token) = auth_token(of)? {
        server = server.auth_token(token);
    }
    secured(server, of)
}

/// Returns the auth token. An empty one counts as none, as it does for the real server.
fn auth_token(of: &ServeArguments) -> Result<Option<String>, Failure> {
    let token = match &of.auth_token_file {
        Some(path) => Some(read_auth_token(path)?),
        None => of.auth_token.clone(),
    };
    Ok(token.filter(|token| !token.is_empty()))
}

fn read_auth_token(path: &Path) -> Result<String, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(Failure::new(
            Exit::SETTINGS,
            format!("the auth token in {} cannot be read: {error}", path.display()),
        )),
    }
}

#[cfg(feature = "tls")]
fn secured(server: ServerBuilder, of: &ServeArguments) -> Result<ServerBuilder, Failure> {
    let (Some(certificate), Some(key)) = (&of.tls_cert, &of.tls_key) else {
        return Ok(server);
    };
    let mut tls = ServerTls::pem_files(certificate, key);
    if let Some(authorities) = &of.tls_client_ca {
        tls = tls.client_ca_file(authorities);
    }
    let config = tls.config().map_err(|error| Failure::of_settings(&error))?;
    Ok(server.tls(config))
}

#[cfg(not(feature = "tls"))]
fn secured(server: ServerBuilder, of: &ServeArguments) -> Result<ServerBuilder, Failure> {
    match of.tls_cert {
        None => Ok(server),
        Some(_) => Err(
            Failure::new(Exit::USAGE, "--tls-cert: this dflock was built without TLS")
                .remedy("build it with the feature tls-ring or tls-aws-lc-rs"),
        ),
    }
}

fn not_started(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Connect => Failure::from(error).remedy("another --host or --port; port 0 is any that is free"),
        _ => Failure::from(error),
    }
}
