//! `dflock bench`: measures the client and the servers.

mod distribution;
#[cfg(feature = "server")]
mod failover;
mod hold;
mod keys;
mod pairs;
mod plot;
mod progress;
mod report;
mod signals;
mod target;
mod usage;
mod waits;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::plot::Canvas;
use self::report::Report;
use self::target::Settings;
use crate::args::{Bench, BenchArguments, SourceFlags};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::holding::setting;
use crate::process::Signals;
use crate::tell;

/// Runs a benchmark on all cores.
pub(super) fn bench(flags: &SourceFlags, of: &BenchArguments) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(measure(flags, of));
    // Threads that still run, for example to resolve a name, are not awaited.
    runtime.shutdown_background();
    exit
}

async fn measure(flags: &SourceFlags, of: &BenchArguments) -> Result<Exit, Failure> {
    // Cancelled when the measuring must stop.
    let stop = CancellationToken::new();
    let output = match &of.what {
        Bench::Pairs(of) => &of.output,
        Bench::Hold(of) => &of.output,
        Bench::Waits(of) => &of.output,
        Bench::Signals(of) => &of.output,
        #[cfg(feature = "server")]
        Bench::Failover(of) => &of.output,
    };
    // The picture's file is opened first, so that the benchmark fails before it measures if the file cannot be
    // written.
    let canvas = output.svg.as_deref().map(Canvas::open).transpose()?;
    // The settings are read before signals are handled: reading a file may block for long, and meanwhile this process
    // would handle no signal.
    let (report, exit) = match &of.what {
        Bench::Pairs(of) => {
            let settings = Settings::read(flags, &of.target, &[])?;
            until_ended(pairs::pairs(settings, of, &stop), &stop).await?
        }
        Bench::Hold(of) => {
            let ttl = of.ttl.map(|ttl| ("lease_ttl", setting(ttl)));
            let settings = Settings::read(flags, &of.target, ttl.as_slice())?;
            until_ended(hold::hold(settings, of, &stop), &stop).await?
        }
        Bench::Waits(of) => {
            let settings = Settings::read(flags, &of.target, &[])?;
            until_ended(waits::waits(settings, of, &stop), &stop).await?
        }
        Bench::Signals(of) => {
            let settings = Settings::read(flags, &of.target, &[])?;
            until_ended(signals::signals(settings, of, &stop), &stop).await?
        }
        #[cfg(feature = "server")]
        Bench::Failover(of) => until_ended(failover::failover(flags, of, &stop), &stop).await?,
    };
    if let Some(report) = report {
        report.tell(output.json, canvas, exit.is_some())?;
    }
    Ok(exit.unwrap_or(Exit::SUCCESS))
}

/// Runs a benchmark. The first ending signal stops the measuring, and the results up to then count. A second signal
/// ends the process without a report.
async fn until_ended(
    benchmark: impl Future<Output = Result<Report, Failure>>,
    stop: &CancellationToken,
) -> Result<(Option<Report>, Option<Exit>), Failure> {
    let mut signals = Signals::that_end()?;
    let mut benchmark = pin!(benchmark);
    let exit = tokio::select! {
        biased;
        report = &mut benchmark => return Ok((Some(report?), None)),
        exit = signals.ended() => exit,
    };
    stop.cancel();
    let slow = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tell::warn("the servers have not confirmed all releases yet; a second Ctrl-C ends this at once");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        report = benchmark => Ok((Some(report?), Some(exit))),
        again = signals.ended() => Ok((None, Some(again))),
        () = slow => Ok((None, Some(exit))),
    }
}
