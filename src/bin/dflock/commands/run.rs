//! `dflock run`: runs a command under a lock or a slot.

use std::time::Duration;

use dflockd_client::{Client, Key, LayeredOptions, LostReason};

use super::{leave, leave_on_failure};
use crate::args::{Fate, OnLoss, RunArguments, SourceFlags};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::grace::Times;
use crate::holding::{Held, setting};
use crate::process::{Ending, Policy, Signals, supervise};
use crate::sources::Sources;
use crate::tell;

/// The default TTL. It must be known before the acquire, because the grace depends on it.
pub(super) const TTL: &str = "30s";

/// The default time between TERM and KILL for processes that outlive the command.
const REMAINING_GRACE: Duration = Duration::from_secs(5);

pub(super) async fn run(flags: &SourceFlags, of: &RunArguments) -> Result<Exit, Failure> {
    let sources = Sources::read(flags, &of.hold.settings(), &[("lease_ttl", TTL)])?;
    let mut signals = Signals::that_end()?;
    let (sources, policy) = policy(sources, &of.fate)?;
    let client = sources.client()?;
    let done = hold(&client, of, policy, &mut signals).await;
    leave_on_failure(&done, &client, &mut signals).await;
    done
}

async fn hold(client: &Client, of: &RunArguments, policy: Policy, signals: &mut Signals) -> Result<Exit, Failure> {
    let acquired = tokio::select! {
        biased;
        exit = signals.ended() => {
            leave(client, signals).await;
            return Ok(exit);
        }
        held = Held::acquire(client, &of.hold) => held,
    };
    let held = acquired?;
    if !policy.times.fits(held.ttl()) {
        return Err(policy.times.too_long(held.ttl()));
    }
    let about = held.about(client)?;
    match supervise(&of.command, &held, &about, policy, signals).await? {
        Ending::Ended(exit) => {
            give_back(held, signals).await;
            Ok(exit)
        }
        Ending::Lost(key, reason) => Err(lost(&key, reason)),
    }
}

/// Releases the leases. A failure does not change the exit code; a signal ends the wait for the server's answer.
pub(super) async fn give_back(held: Held, signals: &mut Signals) {
    let released = tokio::select! {
        biased;
        _ = signals.ended() => return,
        released = held.release() => released,
    };
    if let Err(error) = released {
        tell::warn(&format!(
            "the command has ended, but its lease was not given back: {error}"
        ));
    }
}

/// Returns the failure for a lost lease, whose command was stopped.
fn lost(key: &Key, reason: LostReason) -> Failure {
    let remedy = match reason {
        LostReason::Expired => "look at the server and the network; a longer --ttl outlasts longer disturbances",
        // The other reasons end a lease whatever its TTL is.
        _ => "look at the server and the network",
    };
    Failure::new(
        Exit::LOST,
        format!("the lease of {key:?} was lost, and the command was stopped: {reason}"),
    )
    .remedy(remedy)
}

/// Returns the settings with which the client reports a loss early enough, and the policy that says when the command
/// is stopped.
pub(super) fn policy(sources: Sources, fate: &Fate) -> Result<(Sources, Policy), Failure> {
    let ttl = time(&sources, "lease_ttl")?.unwrap_or_default();
    let margin = time(&sources, "loss_margin")?;
    let grace = match fate.on_loss {
        OnLoss::Term => fate.grace,
        OnLoss::Kill | OnLoss::Ignore => Some(Duration::ZERO),
    };
    let times = match Times::new(ttl, grace, margin) {
        Ok(times) => times,
        // If the settings themselves are invalid, that error comes first.
        Err(too_long) => return Err(sources.checked().err().unwrap_or(too_long)),
    };
    let ratio = number(&sources, "renew_ratio")?.unwrap_or(1.0);
    let early = LayeredOptions::from_pairs([
        ("loss_margin", setting(times.loss_margin())),
        ("renew_ratio", ratio.min(times.renew_ratio()).to_string()),
    ])?;
    let policy = Policy {
        on_loss: fate.on_loss,
        times,
        remaining_grace: fate.grace.unwrap_or(REMAINING_GRACE),
    };
    Ok((sources.below(early), policy))
}

fn text(sources: &Sources, name: &str) -> Result<Option<String>, Failure> {
    Ok(sources
        .values()?
        .into_iter()
        .find(|setting| setting.name == name)
        .and_then(|setting| setting.value))
}

fn time(sources: &Sources, name: &str) -> Result<Option<Duration>, Failure> {
    let text = text(sources, name)?;
    Ok(text.map(|text| dflockd_client::parse_duration(&text)).transpose()?)
}

fn number(sources: &Sources, name: &str) -> Result<Option<f64>, Failure> {
    Ok(text(sources, name)?.and_then(|text| text.parse().ok()))
}
