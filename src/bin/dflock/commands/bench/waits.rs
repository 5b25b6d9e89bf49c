//! `dflock bench waits`: measures the time from the holder's release to the grant of a waiting caller.

use std::time::Duration;

use dflockd_client::LockGuard;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use super::distribution::Distribution;
use super::keys::Keys;
use super::plot::Curve;
use super::progress::Progress;
use super::report::{Report, times};
use super::target::{Settings, Target};
use super::usage::Usage;
use crate::args::WaitsArguments;
use crate::exit::Exit;
use crate::failure::Failure;

/// Longer than a run with the default flags, so that its grants follow only releases and never an expiry.
const TTL: Duration = Duration::from_secs(600);

/// How long callers may take to get their keys after Ctrl-C, which releases all held keys at once.
const LEAVING: Duration = Duration::from_secs(1);

/// The number of the key, the time of the grant, and the guard.
type Granted = Result<(usize, Instant, LockGuard), dflockd_client::Error>;

pub(super) async fn waits(
    settings: Settings,
    of: &WaitsArguments,
    stop: &CancellationToken,
) -> Result<Report, Failure> {
    let target = Target::of(settings).await?;
    target.run_and_release(measure(&target, of, stop), stop).await
}

async fn measure(target: &Target, of: &WaitsArguments, stop: &CancellationToken) -> Result<Report, Failure> {
    let keys = Keys::of_this_run();
    let before = Usage::now();
    let waiter = target.client(target.builder().lease_ttl(TTL))?;
    let holder = match of.own {
        true => waiter.clone(),
        false => target.client(target.builder().lease_ttl(TTL))?,
    };
    let mut held = Vec::with_capacity(of.waits);
    for number in 0..of.waits {
        let lock = holder.lock(keys.key(number))?;
        let Some(guard) = stop.run_until_cancelled(lock.acquire()).await else {
            break;
        };
        held.push(guard?);
    }
    let mut waiting: JoinSet<Granted> = JoinSet::new();
    for number in 0..held.len() {
        let lock = waiter.lock(keys.key(number))?.acquire_timeout(TTL);
        waiting.spawn(async move {
            let guard = lock.acquire().await?;
            Ok((number, Instant::now(), guard))
        });
    }
    settle(of, stop).await;
    let usage = Usage::now();

    let released_at = release_all(held, of.releases, stop).await?;
    let mut distribution = Distribution::new()?;
    let mut guards = Vec::with_capacity(released_at.len());
    while guards.len() < released_at.len() {
        let granted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(granted) = waiting.join_next() => granted,
            else => break,
        };
        let failed = |error: tokio::task::JoinError| Failure::new(Exit::SOFTWARE, error.to_string());
        let (number, at, guard) = granted.map_err(failed)??;
        if let Some(released) = released_at.get(number) {
            distribution.record(at.saturating_duration_since(*released));
        }
        guards.push(guard);
    }
    // After Ctrl-C all keys have been released. Callers that still wait get their grants and release them. If they
    // gave up instead, a server that keeps leases without a connection might grant a key at the same moment.
    let still_waiting = async { while waiting.join_next().await.is_some() {} };
    if timeout(LEAVING, still_waiting).await.is_err() {
        waiting.shutdown().await;
    }
    drop(guards);

    let summary = distribution.summary();
    let mut report = Report::new("waits", "From a release to the next grant");
    report.figure("waits", of.waits);
    report.figure("granted", summary.count);
    report.figure("releases_per_s", of.releases);
    report.figure("connections", usage.since(before).sockets);
    report.figure("memory_bytes", usage.memory);
    report.figure("release_to_grant", summary);
    report.line(format!(
        "{} of {} callers that waited have had their grant; {} sockets",
        summary.count,
        of.waits,
        usage.since(before).sockets
    ));
    report.line(format!("from release to grant: {}", times(&summary)));
    report.curve(Curve {
        name: format!("{} callers", of.waits),
        times: distribution,
    });
    Ok(report)
}

/// Waits while the callers join the servers' queues.
async fn settle(of: &WaitsArguments, stop: &CancellationToken) {
    let time = of.settle.unwrap_or_else(|| {
        let connections = match of.own {
            true => 0,
            false => of.waits,
        };
        // A client opens at most 190 connections in a second, and fewer where attempts fail.
        Duration::from_secs(2 + connections as u64 / 120)
    });
    let progress = Progress::new("callers join the queues", time.as_secs().max(1) as usize);
    let end = Instant::now() + time;
    while Instant::now() < end && !stop.is_cancelled() {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(end.min(Instant::now() + Duration::from_secs(1))) => progress.step(),
        }
    }
}

/// Releases keys at an even pace, without waiting for the answers. Returns the time at which each release began. After
/// Ctrl-C it releases the remaining keys at once and does not count them.
async fn release_all(held: Vec<LockGuard>, releases: u32, stop: &CancellationToken) -> Result<Vec<Instant>, Failure> {
    let progress = Progress::new("keys are released", held.len());
    let mut pace = tokio::time::interval(Duration::from_secs(1) / releases);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut releasing = JoinSet::new();
    let mut released_at = Vec::with_capacity(held.len());
    for guard in held {
        pace.tick().await;
        if stop.is_cancelled() {
            break;
        }
        released_at.push(Instant::now());
        releasing.spawn(guard.release());
        progress.step();
    }
    loop {
        let released = tokio::select! {
            biased;
            // Ctrl-C does not wait for a server that does not answer.
            () = stop.cancelled() => break,
            released = releasing.join_next() => released,
        };
        let Some(released) = released else { break };
        released.map_err(|error| Failure::new(Exit::SOFTWARE, error.to_string()))??;
    }
    Ok(released_at)
}
