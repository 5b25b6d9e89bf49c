//! Shared by several examples: a function that connects to servers, and a type that prints events with their times.

use std::time::Instant;

use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, Error, Fencing};

/// Connects to the servers that the environment names in `DFLOCKD_URL` or `DFLOCKD_SERVERS=host:port,…`. See
/// `docs/guide/src/configuration.md` for all variables.
///
/// If the environment names no servers, this function starts one embedded server for each of `shards` shards. Dropping
/// the returned servers ends them. With [`Fencing::Required`], a server before release 2.1 is an error, because it
/// issues no fences.
pub(crate) async fn connect(fencing: Fencing, shards: usize) -> Result<(Client, Vec<Server>), Error> {
    let mut builder = ClientBuilder::from_env()?.fencing(fencing);
    let mut embedded = Vec::new();
    if !has_servers() {
        for _ in 0..shards {
            embedded.push(Server::builder().port(0).start().await?);
        }
        builder = builder.servers(embedded.iter().map(|server| server.local_addr().to_string()));
    }
    Ok((builder.connect().await?, embedded))
}

/// Returns whether the environment names servers.
fn has_servers() -> bool {
    ["DFLOCKD_URL", "DFLOCKD_SERVERS"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
}

/// Prints each event with the time since the start of the example.
#[derive(Clone, Copy)]
pub(crate) struct Story {
    began: Instant,
}

impl Story {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now() }
    }

    pub(crate) fn tell(&self, what: impl AsRef<str>) {
        println!("{:>6.3} s  {}", self.began.elapsed().as_secs_f64(), what.as_ref());
    }
}
