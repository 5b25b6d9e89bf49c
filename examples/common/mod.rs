//! What the recipes share: a server to run against, and a story to tell.

use std::time::Instant;

use dflockd_client::server::Server;
use dflockd_client::{Client, Error, Fencing};

/// A client of the servers that `DFLOCKD_SERVERS=host:port,…` names, or of an embedded one that lives as long as what is
/// returned. With [`Fencing::Required`] servers that make no fences (before release 2.1) are an error.
pub(crate) async fn connect(fencing: Fencing) -> Result<(Client, Option<Server>), Error> {
    let (servers, embedded) = match std::env::var("DFLOCKD_SERVERS") {
        Ok(list) => (list.split(',').map(|server| server.trim().to_owned()).collect(), None),
        Err(_) => {
            let server = Server::builder().port(0).start().await?;
            (vec![server.local_addr().to_string()], Some(server))
        }
    };
    let client = Client::builder().servers(servers).fencing(fencing).connect().await?;
    Ok((client, embedded))
}

/// Prints what happens, with the time since the beginning.
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
