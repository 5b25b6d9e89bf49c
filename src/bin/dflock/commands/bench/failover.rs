//! `dflock bench failover`: measures the time from the end of a cluster's leader to the renewal of leases at the next
//! leader.

use std::collections::HashSet;
use std::time::Duration;

use dflockd_client::server::{Cluster, EventKind, Server};
use dflockd_client::{Client, LeaseState, LockGuard, Shard};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::distribution::{Distribution, Summary};
use super::keys::Keys;
use super::plot::Curve;
use super::progress::Progress;
use super::report::{Report, human};
use crate::args::{FailoverArguments, SourceFlags};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Table;

/// The number of tasks that acquire the leases.
const TASKS: usize = 64;

/// How the leader stops leading.
#[derive(Clone, Copy)]
enum End {
    Dies,
    Moves,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Dies => "dies",
            Self::Moves => "moves",
        }
    }
}

/// Times of all rounds, from the leader's end.
struct Rounds {
    end: End,
    /// Until the next member led.
    led: Distribution,
    /// Until the first lease was renewed at the new leader.
    first: Distribution,
    /// Until all leases were renewed.
    last: Distribution,
}

#[derive(Serialize)]
struct Row {
    leader: &'static str,
    rounds: u64,
    next_leads: Summary,
    first_renewal: Summary,
    last_renewal: Summary,
}

pub(super) async fn failover(
    flags: &SourceFlags,
    of: &FailoverArguments,
    stop: &CancellationToken,
) -> Result<Report, Failure> {
    if flags.given().is_some() {
        return Err(Failure::new(
            Exit::USAGE,
            "bench failover starts a cluster and a client of its own: --config, --url, --servers and --set do not apply",
        ));
    }
    let mut ends = Vec::new();
    for end in [End::Dies, End::Moves] {
        ends.push(Rounds {
            end,
            led: Distribution::new()?,
            first: Distribution::new()?,
            last: Distribution::new()?,
        });
    }
    let progress = Progress::new("rounds", 2 * (of.rounds + 1));
    for number in 0..=of.rounds {
        for rounds in &mut ends {
            let times = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                times = lose_the_leader(rounds.end, of) => times?,
            };
            progress.step();
            // The first round is a warm-up, and does not count.
            if number > 0 {
                rounds.led.record(times.led);
                rounds.first.record(times.first);
                rounds.last.record(times.last);
            }
        }
    }
    drop(progress);

    let mut table = Table::new([
        "LEADER",
        "ROUNDS",
        "NEXT LEADS P50",
        "FIRST RENEWAL P50",
        "LAST RENEWAL P50",
        "LONGEST",
    ]);
    let mut rows = Vec::new();
    let mut report = Report::new("failover", "From the end of the leader to the last renewal");
    for rounds in ends {
        let row = Row {
            leader: rounds.end.name(),
            rounds: rounds.last.count(),
            next_leads: rounds.led.summary(),
            first_renewal: rounds.first.summary(),
            last_renewal: rounds.last.summary(),
        };
        table.row([
            row.leader.to_owned(),
            row.rounds.to_string(),
            human(row.next_leads.p50_us),
            human(row.first_renewal.p50_us),
            human(row.last_renewal.p50_us),
            human(row.last_renewal.max_us),
        ]);
        rows.push(row);
        report.curve(Curve {
            name: format!("the leader {}", rounds.end.name()),
            times: rounds.last,
        });
    }
    report.figure("leases", of.leases);
    report.figure("rows", rows);
    report.line(format!("{} leases, times from the end of the leader:", of.leases));
    table.lines().into_iter().for_each(|line| report.line(line));
    Ok(report)
}

/// Times of one round, from the leader's end.
struct Times {
    led: Duration,
    first: Duration,
    last: Duration,
}

async fn lose_the_leader(how: End, of: &FailoverArguments) -> Result<Times, Failure> {
    let refused = |what: String| Failure::new(Exit::SOFTWARE, what);
    let keys = Keys::of_this_run();
    let each = Server::builder()
        .orphan_ttl(of.ttl)
        .max_locks(of.leases.saturating_mul(2).saturating_add(16))
        .record_events(true);
    let cluster = Cluster::builder().options(each).start().await?;
    let client = Client::builder()
        .shards([Shard::cluster(cluster.addresses()).orphan_ttl(of.ttl)])
        .lease_ttl(of.ttl)
        .connect()
        .await?;
    let guards = acquire_all(&client, &keys, of.leases).await?;

    let ended = Instant::now();
    if let End::Dies = how {
        cluster.stop(0).await?;
    }
    cluster.move_leader(1)?;
    let led = Instant::now();
    let mut health = client
        .watch_health(0)
        .ok_or_else(|| refused("the client has no shard".to_owned()))?;
    if let End::Moves = how {
        // The client learns of the new leader from the answer to its next request. This request has its own key, and
        // changes none of the leases.
        client.lock(keys.other())?.acquire().await?.release().await?;
    }
    let connected = health.wait_for(|health| health.is_connected() && health.failovers == 1);
    connected.await.map_err(|error| refused(error.to_string()))?;
    drop(health);
    // Every lease became suspect before the client connected to the next leader. A lease that is still suspect has not
    // been renewed yet.
    while guards.iter().any(|guard| guard.state() == LeaseState::Suspect) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let held: HashSet<_> = guards.iter().map(|guard| guard.key().clone()).collect();
    let mut renewed = HashSet::new();
    let mut at = Vec::new();
    for event in cluster.events() {
        let is_held = held.contains(&event.key);
        if event.kind == EventKind::Renewed && event.at >= led && is_held && renewed.insert(event.key) {
            at.push(event.at);
        }
    }
    client.shutdown(Duration::from_secs(30)).await;
    match (at.first(), at.last()) {
        (Some(first), Some(last)) if at.len() == guards.len() => Ok(Times {
            led: led - ended,
            first: *first - ended,
            last: *last - ended,
        }),
        _ => Err(refused(format!(
            "{} of {} leases were renewed at the next leader",
            at.len(),
            guards.len()
        ))),
    }
}

async fn acquire_all(client: &Client, keys: &Keys, leases: usize) -> Result<Vec<LockGuard>, Failure> {
    let mut running = JoinSet::new();
    for task in 0..TASKS {
        let (client, keys) = (client.clone(), keys.clone());
        running.spawn(async move {
            let mut guards = Vec::new();
            for number in (task..leases).step_by(TASKS) {
                guards.push(client.lock(keys.key(number))?.acquire().await?);
            }
            Ok::<_, dflockd_client::Error>(guards)
        });
    }
    let mut all = Vec::with_capacity(leases);
    while let Some(ended) = running.join_next().await {
        all.extend(ended.map_err(|error| Failure::new(Exit::SOFTWARE, error.to_string()))??);
    }
    Ok(all)
}
