//! How long a failover takes: from the end of a cluster's leader to the first lease that is renewed at the next, and to the last.
//!
//!     cargo run --release --example failover_time -- --leases 10000 --rounds 9
//!
//! Cluster and client are in this process, on the same cores. Times are those of the cluster's own record. Two ways for the
//! leader to go: it dies (its connections end, nobody leads for a moment, then the next member does), or the leadership moves on
//! and it says so to whoever asks it. How long real servers take to elect a leader comes on top.
//! Medians, and in parentheses the least and the most: a client that has asked all members in vain makes a pause of 50 to 100 ms, so
//! a leader that dies costs one pause more or less.

use std::collections::HashSet;
use std::error::Error;
use std::time::Duration;

use clap::Parser;
use dflockd_client::server::{Cluster, EventKind, Server};
use dflockd_client::{Client, LeaseState, LockGuard, Shard};
use tokio::time::Instant;

#[derive(Parser)]
struct Arguments {
    /// How many leases are held.
    #[arg(long, default_value_t = 10_000)]
    leases: usize,
    /// Their TTL in seconds.
    #[arg(long, default_value_t = 60)]
    ttl: u64,
    /// How many rounds are counted; one more warms up.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

/// How the leader goes.
#[derive(Clone, Copy)]
enum End {
    Dies,
    Moves,
}

/// What came of it, counted from the leader's end.
struct Round {
    /// Until the next one led.
    led: Duration,
    first: Duration,
    last: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut rounds = [(End::Dies, Vec::new()), (End::Moves, Vec::new())];
    for number in 0..=arguments.rounds {
        for (end, rounds) in &mut rounds {
            let round = lose_the_leader(*end, &arguments).await?;
            if number > 0 {
                rounds.push(round);
            }
        }
    }
    println!(
        "{} leases, medians of {} rounds, from the end of the leader:",
        arguments.leases, arguments.rounds
    );
    for (end, rounds) in &rounds {
        let title = match end {
            End::Dies => "it dies",
            End::Moves => "the leadership moves on",
        };
        let [led, first, last] = [
            |round: &Round| round.led,
            |round: &Round| round.first,
            |round: &Round| round.last,
        ]
        .map(|time| spread(rounds.iter().map(time)));
        println!("{title}: the next leads after {led}, first renewal after {first}, last after {last}");
    }
    Ok(())
}

async fn lose_the_leader(how: End, arguments: &Arguments) -> Result<Round, Box<dyn Error>> {
    let kept = Duration::from_secs(arguments.ttl);
    let each = Server::builder()
        .orphan_ttl(kept)
        .max_locks(arguments.leases.saturating_mul(2))
        .record_events(true);
    let cluster = Cluster::builder().options(each).start().await?;
    let client = Client::builder()
        .shards([Shard::cluster(cluster.addresses()).orphan_ttl(kept)])
        .lease_ttl(Duration::from_secs(arguments.ttl))
        .connect()
        .await?;
    let guards = acquire_all(&client, arguments.leases).await?;

    let ended = Instant::now();
    if let End::Dies = how {
        cluster.stop(0).await?;
    }
    cluster.move_leader(1)?;
    let led = Instant::now();
    let mut health = client.watch_health(0).ok_or("there is a shard")?;
    if let End::Moves = how {
        // A client hears of it with the next request; this is one that changes nothing.
        client.lock("time/nothing")?.acquire().await?.release().await?;
    }
    health
        .wait_for(|health| health.is_connected() && health.failovers == 1)
        .await?;
    // Every lease was suspect before the next leader was connected.
    while guards.iter().any(|guard| guard.state() == LeaseState::Suspect) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if guards.iter().any(|guard| !guard.is_held()) {
        return Err("leases were lost".into());
    }

    let held: HashSet<_> = guards.iter().map(|guard| guard.key().clone()).collect();
    let mut renewed = HashSet::new();
    let mut times = Vec::new();
    for event in cluster.events() {
        // The request that changes nothing is a grant that is confirmed by a renewal, if its first answer was lost.
        let is_held = held.contains(&event.key);
        if event.kind == EventKind::Renewed && event.at >= led && is_held && renewed.insert(event.key) {
            times.push(event.at);
        }
    }
    if times.len() != guards.len() {
        return Err(format!("{} of {} leases were renewed", times.len(), guards.len()).into());
    }
    client.shutdown(Duration::from_secs(30)).await;
    let (first, last) = (times.first().ok_or("no leases")?, times.last().ok_or("no leases")?);
    Ok(Round {
        led: led - ended,
        first: *first - ended,
        last: *last - ended,
    })
}

async fn acquire_all(client: &Client, leases: usize) -> Result<Vec<LockGuard>, Box<dyn Error>> {
    let mut running = tokio::task::JoinSet::new();
    let tasks = 64;
    for task in 0..tasks {
        let client = client.clone();
        running.spawn(async move {
            let mut guards = Vec::new();
            for number in (task..leases).step_by(tasks) {
                guards.push(client.lock(format!("time/{number}"))?.acquire().await?);
            }
            Ok::<_, dflockd_client::Error>(guards)
        });
    }
    let mut all = Vec::with_capacity(leases);
    while let Some(finished) = running.join_next().await {
        all.extend(finished??);
    }
    Ok(all)
}

fn spread(times: impl Iterator<Item = Duration>) -> String {
    let mut sorted: Vec<Duration> = times.collect();
    sorted.sort();
    match sorted.as_slice() {
        [] => "-".to_owned(),
        [least, ..] => {
            let (median, most) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
            format!("{median:.1?} ({least:.1?} to {most:.1?})")
        }
    }
}
