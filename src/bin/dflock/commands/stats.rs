//! `dflock stats`: what servers hold.

use dflockd_client::Stats;
use serde::Serialize;

use crate::args::{SourceFlags, StatsArguments};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::sources::Sources;
use crate::tell;

/// What `--json` tells.
#[derive(Serialize)]
struct Told {
    shards: Vec<Shard>,
}

#[derive(Serialize)]
struct Shard {
    shard: usize,
    server: String,
    /// What the server says, as it says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Succeeds if any server answered; those that did not are told of.
pub(super) async fn stats(flags: &SourceFlags, of: &StatsArguments) -> Result<Exit, Failure> {
    let client = Sources::read(flags, &[], &[])?.client()?;
    let answers = client.all_stats().await;
    let health = client.health();
    if answers.iter().all(Result::is_err) {
        if let Some(Err(error)) = answers.into_iter().next() {
            return Err(error.into());
        }
        return Ok(Exit::SUCCESS);
    }
    let shards: Vec<Shard> = answers
        .into_iter()
        .enumerate()
        .map(|(shard, answer)| {
            let server = health.get(shard).map(|health| health.endpoint.to_string());
            let (stats, error) = match answer {
                Ok(stats) => (Some(stats), None),
                Err(error) => (None, Some(error.to_string())),
            };
            Shard {
                shard,
                server: server.unwrap_or_default(),
                stats,
                error,
            }
        })
        .collect();
    match of.json {
        true => output::json(&Told { shards })?,
        false => show(&shards)?,
    }
    Ok(Exit::SUCCESS)
}

fn show(shards: &[Shard]) -> Result<(), Failure> {
    let mut servers = Table::new(["SHARD", "SERVER", "CONNECTIONS", "LOCKS", "SEMAPHORES", "IDLE KEYS"]);
    let mut keys = Table::new(["KIND", "KEY", "HELD", "WAITERS", "LEASE ENDS IN", "SHARD"]);
    let mut has_keys = false;
    for shard in shards {
        let Some(stats) = &shard.stats else {
            tell::warn(&format!(
                "shard {} does not answer: {}",
                shard.shard,
                shard.error.as_deref().unwrap_or_default()
            ));
            continue;
        };
        servers.row([
            shard.shard.to_string(),
            shard.server.clone(),
            stats.connections.to_string(),
            stats.locks.len().to_string(),
            stats.semaphores.len().to_string(),
            (stats.idle_locks.len() + stats.idle_semaphores.len()).to_string(),
        ]);
        for lock in &stats.locks {
            has_keys = true;
            keys.row([
                "lock".to_owned(),
                lock.key.clone(),
                "1/1".to_owned(),
                lock.waiters.to_string(),
                format!("{}s", lock.lease_expires_in_s),
                shard.shard.to_string(),
            ]);
        }
        for semaphore in &stats.semaphores {
            has_keys = true;
            keys.row([
                "semaphore".to_owned(),
                semaphore.key.clone(),
                format!("{}/{}", semaphore.holders, semaphore.limit),
                semaphore.waiters.to_string(),
                "-".to_owned(),
                shard.shard.to_string(),
            ]);
        }
    }
    servers.print()?;
    if has_keys {
        output::line("")?;
        keys.print()?;
    }
    Ok(())
}
