//! `dflock bench pairs`: measures acquires and releases by many tasks.

use std::sync::Arc;
use std::time::Duration;

use dflockd_client::Client;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::distribution::{Distribution, Recorder, Summary};
use super::keys::Keys;
use super::plot::Curve;
use super::progress::Progress;
use super::report::{Report, human, per, rounded};
use super::target::{Settings, Target, pair};
use super::usage::Usage;
use crate::args::PairsArguments;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Table;

/// The number of steps of the progress bar for each number of tasks.
const STEPS: u32 = 50;

/// The results for one number of tasks.
#[derive(Serialize)]
struct Row {
    tasks: usize,
    pairs: u64,
    seconds: f64,
    pairs_per_s: f64,
    latency: Summary,
    /// The processor time of this process, which runs the client.
    cpu_us_per_pair: f64,
    connections: usize,
    memory_bytes: usize,
}

pub(super) async fn pairs(
    settings: Settings,
    of: &PairsArguments,
    stop: &CancellationToken,
) -> Result<Report, Failure> {
    let target = Target::of(settings).await?;
    target.run_and_release(levels(&target, of, stop), stop).await
}

/// Measures each requested number of tasks.
async fn levels(target: &Target, of: &PairsArguments, stop: &CancellationToken) -> Result<Report, Failure> {
    let keys = Keys::of_this_run();
    let before = Usage::now();
    let client = target.client(target.builder())?;
    // Fails at once if there is no server.
    pair(&client.lock(keys.other())?, stop).await?;

    let levels = match of.sweep.as_slice() {
        [] => std::slice::from_ref(&of.tasks),
        levels => levels,
    };
    let mut rows = Vec::new();
    let mut report = Report::new("pairs", "A pair of acquire and release");
    for tasks in levels {
        if stop.is_cancelled() {
            break;
        }
        let (row, times) = level(&client, &keys, *tasks, of, before, stop).await?;
        let name = match tasks {
            1 => "1 task".to_owned(),
            tasks => format!("{tasks} tasks"),
        };
        report.curve(Curve { name, times });
        rows.push(row);
    }
    table(&rows).lines().into_iter().for_each(|line| report.line(line));
    report.figure("rows", rows);
    Ok(report)
}

/// Measures the pairs that this number of tasks makes in the requested time.
async fn level(
    client: &Client,
    keys: &Keys,
    tasks: usize,
    of: &PairsArguments,
    before: Usage,
    stop: &CancellationToken,
) -> Result<(Row, Distribution), Failure> {
    let recorder = Arc::new(Recorder::new()?);
    let from = Instant::now() + of.warm_up;
    // Ends the tasks of this level, whatever ends the level.
    let over = stop.child_token();
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (lock, recorder, over) = (client.lock(keys.key(task))?, Arc::clone(&recorder), over.clone());
        running.spawn(async move {
            while !over.is_cancelled() {
                let began = Instant::now();
                lock.acquire().await?.release().await?;
                if began >= from && !over.is_cancelled() {
                    recorder.record(task, began.elapsed());
                }
            }
            Ok::<_, dflockd_client::Error>(())
        });
    }

    let progress = Progress::new(format!("{tasks} at once"), STEPS as usize);
    let measuring = async {
        tokio::time::sleep_until(from).await;
        let (began, used) = (Instant::now(), Usage::now());
        for step in 1..=STEPS {
            let at = began + of.time * step / STEPS;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(at) => progress.step(),
            }
        }
        let now = Usage::now();
        (began.elapsed(), now, now.since(used))
    };
    let (took, now, used) = tokio::select! {
        biased;
        measured = measuring => measured,
        () = stop.cancelled() => (Duration::ZERO, Usage::now(), Usage::default()),
        // A task that ends before this level is over has failed.
        Some(ended) = running.join_next() => {
            ended.map_err(|error| Failure::new(Exit::SOFTWARE, error.to_string()))??;
            (Duration::ZERO, Usage::now(), Usage::default())
        }
    };
    over.cancel();
    loop {
        let ended = tokio::select! {
            biased;
            // Ctrl-C does not wait for a server that does not answer.
            () = stop.cancelled() => break,
            ended = running.join_next() => ended,
        };
        let Some(ended) = ended else { break };
        ended.map_err(|error| Failure::new(Exit::SOFTWARE, error.to_string()))??;
    }
    running.shutdown().await;

    let times = recorder.sum()?;
    let pairs = times.count();
    let row = Row {
        tasks,
        pairs,
        seconds: rounded(took.as_secs_f64(), 3),
        pairs_per_s: match took.is_zero() {
            true => 0.0,
            false => rounded(pairs as f64 / took.as_secs_f64(), 0),
        },
        latency: times.summary(),
        cpu_us_per_pair: rounded(per(used.processor * 1e6, pairs), 2),
        connections: now.since(before).sockets,
        memory_bytes: now.memory,
    };
    Ok((row, times))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "TASKS",
        "PAIRS/S",
        "P50",
        "P90",
        "P99",
        "P99.9",
        "LONGEST",
        "CPU A PAIR",
        "SOCKETS",
        "MEMORY",
    ]);
    for row in rows {
        let times = &row.latency;
        table.row([
            row.tasks.to_string(),
            format!("{:.0}", row.pairs_per_s),
            human(times.p50_us),
            human(times.p90_us),
            human(times.p99_us),
            human(times.p999_us),
            human(times.max_us),
            format!("{:.2} us", row.cpu_us_per_pair),
            row.connections.to_string(),
            format!("{:.1} MiB", row.memory_bytes as f64 / f64::from(1 << 20)),
        ]);
    }
    table
}
