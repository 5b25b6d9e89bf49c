//! `dflock elect`: a command while this is the leader.

use dflockd_client::Election;

use super::leave;
use super::run::{TTL, give_back, lost, policy};
use crate::args::{ElectArguments, SourceFlags};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::holding::{Held, setting};
use crate::process::{Ending, Signals, supervise};
use crate::sources::Sources;

pub(super) async fn elect(flags: &SourceFlags, of: &ElectArguments) -> Result<Exit, Failure> {
    let mut signals = Signals::that_end()?;
    let own: Vec<(&str, String)> = of.ttl.map(|ttl| ("lease_ttl", setting(ttl))).into_iter().collect();
    let sources = Sources::read(flags, &own, &[("lease_ttl", TTL)])?;
    let (sources, policy) = policy(sources, &of.fate)?;
    let client = sources.client()?;
    let election = Election::new(client.lock(&of.name)?);
    loop {
        let elected = tokio::select! {
            biased;
            exit = signals.ended() => {
                leave(&client, &mut signals).await;
                return Ok(exit);
            }
            elected = election.campaign() => elected,
        };
        let held = Held::Lock(elected?.into_guard());
        if !policy.times.fits(held.ttl()) {
            return Err(policy.times.too_long(held.ttl()));
        }
        let about = held.about(&client)?;
        match supervise(&of.command, &held, &about, policy, &mut signals).await? {
            Ending::Ended(exit) => {
                give_back(held, &mut signals).await;
                return Ok(exit);
            }
            Ending::Lost(key, reason) => {
                drop(held);
                lost(&key, reason).remedy("nothing: this campaigns again").tell();
            }
        }
    }
}
