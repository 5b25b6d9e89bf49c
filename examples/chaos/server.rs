//! The processes of the servers.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use dflockd_client::server::{Cluster, Server};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

use crate::job::{ClusterJob, KEPT_BY_MEMBERS, Order, ServerJob};

/// Serves until standard input ends.
pub(crate) async fn run(job: ServerJob) -> Result<ExitCode, Box<dyn Error>> {
    let server = Server::builder().port(job.port).release(&job.release)?.start().await?;
    say(&server.local_addr().to_string())?;
    let mut orders = BufReader::new(stdin()).lines();
    while orders.next_line().await?.is_some() {}
    Ok(ExitCode::SUCCESS)
}

/// Obeys until standard input ends.
pub(crate) async fn run_cluster(job: ClusterJob) -> Result<ExitCode, Box<dyn Error>> {
    let each = Server::builder().orphan_ttl(KEPT_BY_MEMBERS);
    let cluster = Cluster::builder().members(job.members).options(each).start().await?;
    for address in cluster.addresses() {
        say(&address)?;
    }
    let mut orders = BufReader::new(stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        match serde_json::from_str(&order)? {
            Order::Lead(member) => cluster.move_leader(member)?,
            Order::Depose => cluster.depose(),
            Order::Stop(member) => cluster.stop(member).await?,
            Order::Start(member) => cluster.start(member).await?,
            Order::Isolate(member) => cluster.isolate(member)?,
            Order::Rejoin(member) => cluster.rejoin(member)?,
            Order::FallInFlight(next) => cluster.move_leader_in_flight(Some(next))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
