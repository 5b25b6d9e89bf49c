//! `dflock stats`: shows what servers hold.

mod block;
mod told;
mod watch;

use std::io::stdout;

use crate::args::{SourceFlags, StatsArguments};
use crate::colors;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::process::Signals;
use crate::sources::Sources;
use crate::survey::{Missing, Survey};

use self::told::Told;

/// Shows the servers' state. A single look succeeds if any server answered; a watch goes on until a signal ends it.
pub(super) async fn stats(flags: &SourceFlags, of: &StatsArguments) -> Result<Exit, Failure> {
    let sources = Sources::read(flags, &[], &[])?;
    let mut signals = Signals::that_end()?;
    let survey = Survey::new(sources.client()?);
    if let Some(period) = of.watch {
        return watch::watch(survey, period, of, &mut signals).await;
    }
    let round = tokio::select! {
        biased;
        exit = signals.ended() => return Ok(exit),
        round = survey.once() => round,
    };
    if round.looks.iter().all(|look| look.stats.is_err()) {
        if let Some(Err(Missing::Failed(error))) = round.looks.first().map(|look| &look.stats) {
            return Err(error.clone().into());
        }
    }
    match of.json {
        true => output::json(&Told::once(round, &of.shown))?,
        false => {
            let colors = colors::taken_by(&stdout());
            for line in block::block(&round, &of.shown) {
                output::line(line.painted(colors))?;
            }
        }
    }
    Ok(Exit::SUCCESS)
}
