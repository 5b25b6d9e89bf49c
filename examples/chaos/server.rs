//! The processes of the servers.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use dflockd_client::server::{Cluster, Event, EventKind, Server};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::time::Instant;

use crate::history::record::{Entry, Kind, Name, What};
use crate::job::{ClusterJob, KEPT_BY_MEMBERS, Order, Record, ServerJob};
use crate::witness;

/// Serves until standard input ends.
pub(crate) async fn run(job: ServerJob) -> Result<ExitCode, Box<dyn Error>> {
    let server = Server::builder()
        .port(job.port)
        .release(&job.release)?
        .on_event(recorder(&job.record)?)
        .start()
        .await?;
    say(&server.local_addr().to_string())?;
    let mut orders = BufReader::new(stdin()).lines();
    while orders.next_line().await?.is_some() {}
    Ok(ExitCode::SUCCESS)
}

/// Obeys until standard input ends.
pub(crate) async fn run_cluster(job: ClusterJob) -> Result<ExitCode, Box<dyn Error>> {
    let each = Server::builder()
        .orphan_ttl(KEPT_BY_MEMBERS)
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
            Order::FallInFlight(next) => cluster.move_leader_in_flight(Some(next))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes each event down before any client can know of it.
fn recorder(to: &Record) -> std::io::Result<impl Fn(&Event) + Send + Sync + 'static> {
    let writer = witness::record(to)?;
    let server = Name::from(&to.name);
    // Both are the same clock, of which one does not tell its number.
    let (instant, number) = (Instant::now(), witness::now());
    let nanoseconds = move |at: Instant| {
        let since = u64::try_from(at.saturating_duration_since(instant).as_nanos());
        number.saturating_add(since.unwrap_or(u64::MAX))
    };
    Ok(move |event: &Event| {
        let entry = Entry {
            server: server.clone(),
            connection: event.connection,
            kind: match event.namespace {
                dflockd_client::Kind::Lock => Kind::Lock,
                dflockd_client::Kind::Semaphore => Kind::Semaphore,
            },
            key: Name::from(&event.key),
            limit: event.limit,
            token: event.token.as_ref().and_then(|token| token.as_str().parse().ok()),
            fence: event.fence.map(|fence| fence.0),
            place: event.place,
            ends: event.ends.map(nanoseconds),
        };
        writer.note_at(nanoseconds(event.at), named(event.kind)(entry));
    })
}

fn named(kind: EventKind) -> fn(Entry) -> What {
    match kind {
        EventKind::Queued => What::Queued,
        EventKind::Left => What::Left,
        EventKind::Granted => What::Granted,
        EventKind::Released => What::Released,
        EventKind::Disconnected => What::Disconnected,
        EventKind::Expired => What::Expired,
        EventKind::Orphaned => What::Orphaned,
        EventKind::Reclaimed => What::Reclaimed,
        EventKind::Forgotten => What::Forgotten,
        EventKind::RenewalRefused => What::RenewalRefused,
        // What was collected begins anew.
        _ => What::Renewed,
    }
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
