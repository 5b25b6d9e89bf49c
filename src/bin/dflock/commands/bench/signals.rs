//! `dflock bench signals`: measures the rate and the latency of signals, and the memory of subscriptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dflockd_client::{Overflow, SignalConn, SignalOptions};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::distribution::Distribution;
use super::keys::Keys;
use super::plot::Curve;
use super::progress::Progress;
use super::report::{Report, per, rounded, times};
use super::target::{Settings, Target};
use super::usage::Usage;
use crate::args::SignalsArguments;
use crate::exit::Exit;
use crate::failure::Failure;

/// If no signal arrives for this long, the rest counts as lost.
const SILENCE: Duration = Duration::from_secs(3);

/// The number of signals that are emitted one at a time. The first `WARM_UP` of them are a warm-up, and do not count.
const SINGLE: usize = 11_000;
const WARM_UP: usize = 1_000;

/// The number of tasks that subscribe.
const TASKS: usize = 50;

pub(super) async fn signals(
    settings: Settings,
    of: &SignalsArguments,
    stop: &CancellationToken,
) -> Result<Report, Failure> {
    let target = Target::of(settings).await?;
    let keys = Keys::of_this_run();
    let mut report = Report::new("signals", "A signal, one at a time");
    rates(&target, &keys, of, stop, &mut report).await?;
    if !stop.is_cancelled() {
        one_at_a_time(&target, &keys, stop, &mut report).await?;
    }
    let subscriptions = subscriptions(&target, &keys, of.subscriptions, &mut report);
    stop.run_until_cancelled(subscriptions).await.transpose()?;
    Ok(report)
}

async fn open(target: &Target, options: SignalOptions) -> Result<SignalConn, Failure> {
    Ok(SignalConn::open(target.builder(), options).await?)
}

async fn subscribe(target: &Target, options: SignalOptions, channel: String) -> Result<SignalConn, Failure> {
    let conn = open(target, options).await?;
    conn.listen(channel, None).await?;
    Ok(conn)
}

/// Emits signals from many tasks at once, and measures the time until the last subscriber has received all of them.
async fn rates(
    target: &Target,
    keys: &Keys,
    of: &SignalsArguments,
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<(), Failure> {
    let each = of.signals.div_ceil(of.publishers);
    let all = each * of.publishers;
    let mut receiving = JoinSet::new();
    for _ in 0..of.subscribers {
        let options = SignalOptions::default().buffer(all + 1).overflow(Overflow::Disconnect);
        let subscribed = subscribe(target, options, keys.channel("rates.*"));
        let Some(conn) = stop.run_until_cancelled(subscribed).await else {
            return Ok(());
        };
        let (mut conn, stop) = (conn?, stop.child_token());
        receiving.spawn(async move {
            let mut last = Instant::now();
            let mut count = 0_u64;
            while count < all as u64 {
                match stop.run_until_cancelled(timeout(SILENCE, conn.next_signal())).await {
                    Some(Ok(Some(_))) => (count, last) = (count + 1, Instant::now()),
                    Some(Ok(None) | Err(_)) | None => break,
                }
            }
            (count, last)
        });
    }
    let opened = open(target, SignalOptions::default());
    let Some(publisher) = stop.run_until_cancelled(opened).await.transpose()? else {
        return Ok(());
    };
    let progress = Arc::new(Progress::new("signals", all));
    let emitted = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut emitting = JoinSet::new();
    for task in 0..of.publishers {
        let (handle, channel) = (publisher.handle(), keys.channel(format_args!("rates.{task}")));
        let (emitted, progress) = (Arc::clone(&emitted), Arc::clone(&progress));
        emitting.spawn(async move {
            for number in 0..each {
                handle.emit(&channel, number.to_string()).await?;
                progress.step();
                emitted.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, dflockd_client::Error>(())
        });
    }
    let failed = |error: tokio::task::JoinError| Failure::new(Exit::SOFTWARE, error.to_string());
    loop {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            ended = emitting.join_next() => ended,
        };
        let Some(ended) = ended else { break };
        ended.map_err(failed)??;
    }
    emitting.shutdown().await;
    let emitted = emitted.load(Ordering::Relaxed);
    let emitting_took = started.elapsed();
    let (mut received, mut last) = (0, started);
    while let Some(ended) = receiving.join_next().await {
        let (count, at) = ended.map_err(failed)?;
        (received, last) = (received + count, last.max(at));
    }
    let rate = |count: u64, time: Duration| rounded(count as f64 / time.as_secs_f64().max(1e-9), 0);
    let (emits, deliveries) = (rate(emitted, emitting_took), rate(received, last - started));
    let lost = (emitted * of.subscribers as u64).saturating_sub(received);
    report.figure("subscribers", of.subscribers);
    report.figure("publishers", of.publishers);
    report.figure("emitted", emitted);
    report.figure("emitted_per_s", emits);
    report.figure("received", received);
    report.figure("received_per_s", deliveries);
    report.figure("lost", lost);
    report.line(format!(
        "publishers: {}, subscribers: {}: {emits} signals/s emitted, {deliveries} deliveries/s received, {lost} lost",
        of.publishers, of.subscribers
    ));
    Ok(())
}

/// Emits one signal at a time, and measures the time until the server's answer and until the subscriber receives the
/// signal.
async fn one_at_a_time(
    target: &Target,
    keys: &Keys,
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<(), Failure> {
    let channel = keys.channel("single");
    let opened = async {
        let subscriber = subscribe(target, SignalOptions::default(), channel.clone()).await?;
        Ok::<_, Failure>((subscriber, open(target, SignalOptions::default()).await?))
    };
    let Some((mut subscriber, publisher)) = stop.run_until_cancelled(opened).await.transpose()? else {
        return Ok(());
    };
    let progress = Progress::new("one at a time", SINGLE);
    let (mut answered, mut heard) = (Distribution::new()?, Distribution::new()?);
    for number in 0..SINGLE {
        let started = Instant::now();
        let signalled = async {
            publisher.emit(&channel, "x").await?;
            let until_answered = started.elapsed();
            match timeout(SILENCE, subscriber.next_signal()).await {
                Ok(Some(_)) => Ok(until_answered),
                Ok(None) | Err(_) => Err(Failure::new(
                    Exit::SERVER_AWAY,
                    "a signal did not reach its only subscriber",
                )),
            }
        };
        let Some(until_answered) = stop.run_until_cancelled(signalled).await.transpose()? else {
            break;
        };
        if number >= WARM_UP {
            answered.record(until_answered);
            heard.record(started.elapsed());
        }
        progress.step();
    }
    report.figure("emit_to_answer", answered.summary());
    report.figure("emit_to_signal", heard.summary());
    report.line(format!("one at a time, answered after: {}", times(&answered.summary())));
    report.line(format!("one at a time, received after: {}", times(&heard.summary())));
    for (name, times) in [("answered", answered), ("received", heard)] {
        report.curve(Curve {
            name: name.to_owned(),
            times,
        });
    }
    Ok(())
}

/// Measures the memory of many subscriptions on one connection.
async fn subscriptions(target: &Target, keys: &Keys, count: usize, report: &mut Report) -> Result<(), Failure> {
    let conn = open(target, SignalOptions::default()).await?;
    conn.listen(keys.channel("memory.warm-up"), None).await?;
    let before = Usage::now();
    let mut listening = JoinSet::new();
    for task in 0..TASKS {
        let (handle, keys) = (conn.handle(), keys.clone());
        listening.spawn(async move {
            for number in (task..count).step_by(TASKS) {
                let channel = keys.channel(format_args!("memory.{number}"));
                handle.listen(channel, None).await?;
            }
            Ok::<_, dflockd_client::Error>(())
        });
    }
    while let Some(ended) = listening.join_next().await {
        ended.map_err(|error| Failure::new(Exit::SOFTWARE, error.to_string()))??;
    }
    let bytes = rounded(per(Usage::now().since(before).memory as f64, count as u64), 0);
    report.figure("subscriptions", count);
    report.figure("memory_bytes_per_subscription", bytes);
    report.line(format!("{count} subscriptions: {bytes} bytes of memory for each"));
    Ok(())
}
