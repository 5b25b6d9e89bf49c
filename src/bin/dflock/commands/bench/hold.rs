//! `dflock bench hold`: measures the cost of held leases, and the latency of another caller meanwhile.

use std::time::Duration;

use dflockd_client::{Client, LockGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::distribution::Distribution;
use super::keys::Keys;
use super::plot::Curve;
use super::progress::Progress;
use super::report::{Report, per, rounded, times};
use super::target::{Settings, Target, leave, pair};
use super::usage::Usage;
use crate::args::HoldArguments;
use crate::exit::Exit;
use crate::failure::Failure;

/// The interval between two pairs of the other caller. It is constant, so that a slow pair does not shift the later
/// pairs.
const PACE: Duration = Duration::from_millis(2);

/// The number of tasks that acquire the leases. A service would use several tasks, too.
const TASKS: usize = 64;

pub(super) async fn hold(settings: Settings, of: &HoldArguments, stop: &CancellationToken) -> Result<Report, Failure> {
    let target = Target::of(settings).await?;
    target.run_and_release(measure(&target, of, stop), stop).await
}

async fn measure(target: &Target, of: &HoldArguments, stop: &CancellationToken) -> Result<Report, Failure> {
    let keys = Keys::of_this_run();
    let before = Usage::now();
    let client = target.client(target.builder())?;
    // One pair comes first, so that one-time costs such as the connection are not counted.
    pair(&client.lock(keys.other())?, stop).await?;

    let began = Usage::now();
    let idle = other_caller("nothing is held", &client, &keys, of.idle, stop).await?;
    let empty = Usage::now();
    let started = Instant::now();
    let guards = acquire_all(&client, &keys, of.leases, stop).await?;
    let taken = started.elapsed();
    let full = Usage::now();
    let leases = guards.iter().map(Vec::len).sum::<usize>() as u64;

    let held_from = Instant::now();
    let busy = other_caller("leases are held", &client, &keys, of.time, stop).await?;
    let held_for = held_from.elapsed();
    let held = guards.iter().flatten().filter(|guard| guard.is_held()).count();
    let used = Usage::now().since(full).processor;
    // The phase in which nothing was held shows the processor time of one pair of the other caller.
    let of_a_pair = per(empty.since(began).processor, idle.count());
    let by_leases = (used - of_a_pair * busy.count() as f64).max(0.0);
    let share = |seconds: f64| rounded(100.0 * seconds / held_for.as_secs_f64().max(1e-9), 2);

    let giving_back = Instant::now();
    let ended = leave(&client, stop).await;
    let given_back = giving_back.elapsed();

    let bytes = rounded(per(full.since(empty).memory as f64, leases), 0);
    let mut report = Report::new("hold", "A pair of another caller");
    report.figure("leases", leases);
    report.figure("taken_s", rounded(taken.as_secs_f64(), 3));
    report.figure("still_held", held);
    report.figure("held_s", rounded(held_for.as_secs_f64(), 3));
    report.figure("memory_bytes_per_lease", bytes);
    report.figure("connections", full.since(before).sockets);
    report.figure("cpu_percent", share(used));
    report.figure("cpu_percent_of_leases", share(by_leases));
    report.figure("other_caller_idle", idle.summary());
    report.figure("other_caller_holding", busy.summary());
    report.figure("released", ended.released);
    report.figure("unreleased", ended.unreleased.len());
    report.figure("given_back_s", rounded(given_back.as_secs_f64(), 3));
    report.line(format!("{leases} leases taken in {taken:.2?}"));
    report.line(format!(
        "{bytes} bytes of memory for each; sockets: {}",
        full.since(before).sockets
    ));
    report.line(format!("{held} still held after {held_for:.1?}"));
    report.line(format!(
        "processor: {} % of one core, {} % without the pairs of the other caller",
        share(used),
        share(by_leases)
    ));
    report.line(format!(
        "pairs of the other caller, nothing held: {}",
        times(&idle.summary())
    ));
    report.line(format!(
        "pairs of the other caller, all held:     {}",
        times(&busy.summary())
    ));
    report.line(format!(
        "{} released in {given_back:.2?}, {} not",
        ended.released,
        ended.unreleased.len()
    ));
    for (name, times) in [("nothing held", idle), ("all held", busy)] {
        report.curve(Curve {
            name: name.to_owned(),
            times,
        });
    }
    Ok(report)
}

/// Acquires and releases one key at an even pace for this time. Returns how long the pairs took.
async fn other_caller(
    what: &str,
    client: &Client,
    keys: &Keys,
    time: Duration,
    stop: &CancellationToken,
) -> Result<Distribution, Failure> {
    let mut distribution = Distribution::new()?;
    let lock = client.lock(keys.other())?;
    let seconds = time.as_secs().max(1);
    let progress = Progress::new(what, seconds as usize);
    let began = Instant::now();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = 0;
    while began.elapsed() < time && !stop.is_cancelled() {
        pace.tick().await;
        let asked = Instant::now();
        if pair(&lock, stop).await? {
            distribution.record(asked.elapsed());
        }
        while told < began.elapsed().as_secs() {
            told += 1;
            progress.step();
        }
    }
    Ok(distribution)
}

/// Acquires many leases from few tasks. Each task returns its guards in a vector without spare capacity, which would
/// count as memory of the leases.
async fn acquire_all(
    client: &Client,
    keys: &Keys,
    leases: usize,
    stop: &CancellationToken,
) -> Result<Vec<Vec<LockGuard>>, Failure> {
    let mut running = JoinSet::new();
    for task in 0..TASKS {
        let (client, keys, stop) = (client.clone(), keys.clone(), stop.clone());
        running.spawn(async move {
            let mut guards = Vec::with_capacity((task..leases).step_by(TASKS).len());
            for number in (task..leases).step_by(TASKS) {
                let lock = client.lock(keys.key(number))?;
                let Some(guard) = stop.run_until_cancelled(lock.acquire()).await else {
                    break;
                };
                guards.push(guard?);
            }
            Ok::<_, dflockd_client::Error>(guards)
        });
    }
    let mut all = Vec::with_capacity(TASKS);
    while let Some(ended) = running.join_next().await {
        all.push(ended.map_err(|error| Failure::new(Exit::SOFTWARE, error.to_string()))??);
    }
    Ok(all)
}
