//! `resolve` and `connect`: the addresses of a server, and which of them answer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dflockd_client::Endpoint;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::report::{Check, Finding};
use super::stream::{Stream, connect, connect_unix};
use super::way::{away, silent};
use crate::exit::Exit;
use crate::failure::Failure;

/// Resolves the addresses of a server. A socket in the file system has none.
pub(super) async fn resolve(endpoint: &Endpoint) -> Result<(Finding, Vec<SocketAddr>), Failure> {
    let (Some(host), Some(port)) = (endpoint.host(), endpoint.port()) else {
        let finding = Finding::skip(Check::Resolve, "a socket in the file system has no name to resolve");
        return Ok((finding, Vec::new()));
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        let finding = Finding::ok(Check::Resolve, "an address, no name").fact("addresses", vec![ip.to_string()]);
        return Ok((finding, vec![SocketAddr::new(ip, port)]));
    }
    let found = tokio::net::lookup_host((host, port)).await;
    let addresses: Vec<SocketAddr> = found.map_err(|error| unknown(host, &error.to_string()))?.collect();
    if addresses.is_empty() {
        return Err(unknown(host, "it has no address"));
    }
    let ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let finding = Finding::ok(Check::Resolve, ips.join(", ")).fact("addresses", ips);
    Ok((finding, addresses))
}

fn unknown(host: &str, why: &str) -> Failure {
    Failure::new(
        Exit::SERVER_AWAY,
        format!("the host name {host:?} cannot be resolved: {why}"),
    )
    .remedy(format!(
        "check the spelling, and what this machine's resolver says: getent hosts {host}"
    ))
}

/// An open stream, and the address that it leads to.
pub(super) struct Reached {
    pub(super) stream: Box<dyn Stream>,
    pub(super) address: Option<SocketAddr>,
}

/// Connects to all addresses at once. Uses the first address in the list that answers.
pub(super) async fn reach(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    limit: Duration,
) -> Result<(Finding, Reached), Failure> {
    let since = Instant::now();
    if let Some(path) = endpoint.unix_path() {
        let stream = connect_unix(path)
            .await
            .map_err(|error| away(&path.display(), &error))?;
        let finding = connected(&path.display().to_string(), since.elapsed());
        return Ok((finding, Reached { stream, address: None }));
    }
    let mut attempts = JoinSet::new();
    for (number, address) in addresses.iter().copied().enumerate() {
        attempts.spawn(async move {
            let connected = timeout(limit, connect(address)).await;
            let connected = match connected {
                Ok(connected) => connected.map_err(|error| away(&address, &error)),
                Err(_) => Err(silent(limit)),
            };
            (number, address, since.elapsed(), connected)
        });
    }
    let mut done = attempts.join_all().await;
    done.sort_by_key(|(number, ..)| *number);
    let mut reached = None;
    let mut failed = Vec::new();
    for (_, address, took, connected) in done {
        match connected {
            Ok(stream) if reached.is_none() => reached = Some((stream, address, took)),
            Ok(_) => {}
            Err(failure) => failed.push((address, failure)),
        }
    }
    let Some((stream, address, took)) = reached else {
        let first = failed.into_iter().next().map(|(_, failure)| failure);
        return Err(first.unwrap_or_else(|| Failure::new(Exit::SOFTWARE, "there is no address to connect to")));
    };
    let refused: Vec<String> = failed.iter().map(|(address, _)| address.to_string()).collect();
    let finding = match refused.is_empty() {
        true => connected(&address.to_string(), took),
        false => Finding::warn(
            Check::Connect,
            format!(
                "{address} answers, and these addresses of the name do not: {}",
                refused.join(", ")
            ),
            "let the server listen at all of its addresses, or remove the others from its name",
        )
        .fact("address", address.to_string())
        .fact("connect_us", micros(took)),
    };
    let reached = Reached {
        stream,
        address: Some(address),
    };
    Ok((finding.fact("unreachable", refused), reached))
}

fn connected(place: &str, took: Duration) -> Finding {
    Finding::ok(Check::Connect, format!("{place} in {took:.1?}"))
        .fact("address", place)
        .fact("connect_us", micros(took))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
