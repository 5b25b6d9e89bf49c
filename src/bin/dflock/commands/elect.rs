//! `dflock elect`: runs a command while this process is the leader.

use dflockd_client::{Client, Election};

use super::run::{TTL, give_back, policy};
use super::{leave, leave_on_failure};
use crate::args::{ElectArguments, SourceFlags};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::holding::{Held, setting};
use crate::process::{Ending, Policy, Signals, supervise};
use crate::sources::Sources;
use crate::tell;

pub(super) async fn elect(flags: &SourceFlags, of: &ElectArguments) -> Result<Exit, Failure> {
    let own: Vec<(&str, String)> = of.ttl.map(|ttl| ("lease_ttl", setting(ttl))).into_iter().collect();
    let sources = Sources::read(flags, &own, &[("lease_ttl", TTL)])?;
    let mut signals = Signals::that_end()?;
    let (sources, policy) = policy(sources, &of.fate)?;
    let client = sources.client()?;
    let done = lead(&client, of, policy, &mut signals).await;
    leave_on_failure(&done, &client, &mut signals).await;
    done
}

async fn lead(client: &Client, of: &ElectArguments, policy: Policy, signals: &mut Signals) -> Result<Exit, Failure> {
    let election = Election::new(client.lock(&of.name)?);
    loop {
        let elected = tokio::select! {
            biased;
            exit = signals.ended() => {
                leave(client, signals).await;
                return Ok(exit);
            }
            elected = election.campaign() => elected,
        };
        let held = Held::Lock(elected?.into_guard());
        if !policy.times.fits(held.ttl()) {
            return Err(policy.times.too_long(held.ttl()));
        }
        let about = held.about(client)?;
        match supervise(&of.command, &held, &about, policy, signals).await? {
            Ending::Ended(exit) => {
                give_back(held, signals).await;
                return Ok(exit);
            }
            Ending::Lost(key, reason) => {
                drop(held);
                tell::warn(&format!(
                    "the lease of {key:?} was lost, and the command was stopped; dflock campaigns again: {reason}"
                ));
            }
        }
    }
}
