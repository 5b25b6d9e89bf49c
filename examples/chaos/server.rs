//! The processes of the servers.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use dflockd_client::server::{Cluster, Event, Server};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::time::Instant;

use crate::history::record::Name;
use crate::job::{ClusterJob, ORPHAN_TTL_OF_MEMBERS, Order, Record, ServerJob};
use crate::{observed, witness};

/// Runs a standalone server until standard input ends.
pub(crate) async fn run(job: ServerJob) -> Result<ExitCode, Box<dyn Error>> {
    let server = Server::builder()
        .port(job.port)
        .release(&job.release)
        .on_event(recorder(&job.record)?)
        .start()
        .await?;
    say(&server.local_addr().to_string())?;
    let mut orders = BufReader::new(stdin()).lines();
    while orders.next_line().await?.is_some() {}
    Ok(ExitCode::SUCCESS)
}

/// Runs the cluster, and follows the controller's orders until standard input ends.
pub(crate) async fn run_cluster(job: ClusterJob) -> Result<ExitCode, Box<dyn Error>> {
    let each = Server::builder()
        .orphan_ttl(ORPHAN_TTL_OF_MEMBERS)
        .on_event(recorder(&job.record)?);
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
            Order::MoveLeaderInFlight(next) => cluster.move_leader_in_flight(Some(next))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a function for `on_event`. The server calls it for each event before any client can know of the event.
fn recorder(to: &Record) -> Result<impl Fn(&Event) + Send + Sync + 'static, Box<dyn Error>> {
    let writer = witness::record(to)?;
    let server = Name::from(&to.name);
    // `Instant` and `witness::now` read the same clock, but an `Instant` does not show its value. So `start` is the
    // `Instant` at which this clock was zero.
    let start = Instant::now().checked_sub(Duration::from_nanos(witness::now()));
    let start = start.ok_or("the clock goes back to its beginning")?;
    Ok(move |event: &Event| {
        if let Some(line) = observed::line(&server, event, start) {
            writer.note_at(line.at, line.what);
        }
    })
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
