//! What the recipes share: a function that connects to servers, and a printer of timed events.

use std::time::Instant;

use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, Error, Fencing};

/// Connects to the servers that the environment names (`DFLOCKD_URL`, or `DFLOCKD_SERVERS=host:port,…` and others, see
/// `docs/guide/src/configuration.md`). Without such variables it starts this many embedded servers, each one a shard, which live as long as
/// the returned values. With [`Fencing::Required`], servers without fences (before release 2.1) are an error.
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

/// Prints each event with the time since the beginning.
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
