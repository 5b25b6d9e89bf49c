//! `dflock doctor`: examines the servers that the settings name, from the resolution of a name to a lease.
//!
//! It makes each step separately, with the protocol functions of the library. A client would make all steps at once,
//! reconnect after a failure, and hide which step failed. Each check has a thin part, which measures, and a pure part,
//! which judges the results.

mod abilities;
mod cluster;
mod examine;
mod greet;
mod latency;
mod lease;
mod leftovers;
mod limits;
mod reach;
mod report;
#[cfg(feature = "tls")]
mod secure;
#[cfg(not(feature = "tls"))]
#[path = "secure_absent.rs"]
mod secure;
mod stream;
mod way;

use std::io::stdout;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dflockd_client::{ClientOptions, Endpoint, Shard};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::cluster::{Kind, judge_shard};
use self::examine::{Examined, Plan, examine};
use self::leftovers::Leftovers;
use self::limits::Caps;
use self::report::{Report, Section};
use crate::args::{DoctorArguments, SourceFlags};
use crate::colors;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::process::Signals;
use crate::sources::Sources;

/// How long the releases of the throw-away leases may take at the end. A lease that is not released by then ends with
/// its TTL.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn doctor(flags: &SourceFlags, of: &DoctorArguments) -> Result<Exit, Failure> {
    let options = Sources::read(flags, &[], &[])?.checked()?;
    let mut signals = Signals::that_end()?;
    let plan = Plan {
        limit: of.timeout,
        requests: of.requests,
        caps: Caps {
            max_locks: of.max_locks,
            max_connections: of.max_connections,
        },
    };
    let leftovers = Arc::new(Leftovers::default());
    let mut examination = pin!(examine_all(options, plan, &leftovers));
    let examined = tokio::select! {
        biased;
        exit = signals.ended() => Err(exit),
        report = &mut examination => Ok(report),
    };
    // The examination goes on meanwhile: only the answer to an acquire shows whether the server granted a lease.
    // Another signal ends this wait, too.
    tokio::select! {
        biased;
        _ = signals.ended() => {}
        _ = timeout(RELEASE_TIMEOUT, leftovers.end()) => {}
    }
    let report = match examined {
        Ok(report) => report?,
        Err(exit) => return Ok(exit),
    };
    match of.json {
        true => output::json(&report)?,
        false => output::line(report.text(colors::taken_by(&stdout())))?,
    }
    Ok(report.exit())
}

/// Examines all servers at the same time.
///
/// # Cancel safety
///
/// If the future is dropped, all examinations end, and `leftovers` lists the leases that they still hold.
async fn examine_all(options: ClientOptions, plan: Plan, leftovers: &Arc<Leftovers>) -> Result<Report, Failure> {
    let shards = options.shards().iter().map(described);
    let shards = shards
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::of_settings(&error))?;
    let mut under_way = JoinSet::new();
    for (shard, (kind, endpoints)) in shards.iter().enumerate() {
        for (number, endpoint) in endpoints.iter().cloned().enumerate() {
            let (options, leftovers, kind) = (options.clone(), Arc::clone(leftovers), *kind);
            under_way.spawn(async move {
                let examined = examine(&options, endpoint, kind, plan, &leftovers).await;
                ((shard, number), examined)
            });
        }
    }
    let mut examined = Vec::new();
    while let Some(done) = under_way.join_next().await {
        examined.push(done.map_err(|error| Failure::new(Exit::SOFTWARE, error.to_string()))?);
    }
    examined.sort_by_key(|(place, _)| *place);
    Ok(summed_up(&shards, examined))
}

/// Returns the kind of a shard, and its servers.
fn described(shard: &Shard) -> Result<(Kind, Vec<Endpoint>), dflockd_client::Error> {
    let kind = match (shard.is_cluster(), shard.is_standby()) {
        (true, _) => Kind::Cluster,
        (false, true) => Kind::Standby,
        (false, false) => Kind::Single,
    };
    Ok((kind, shard.endpoints()?))
}

fn summed_up(shards: &[(Kind, Vec<Endpoint>)], examined: Vec<((usize, usize), Examined)>) -> Report {
    let mut members = vec![Vec::new(); shards.len()];
    let mut servers = Vec::new();
    for ((shard, _), Examined { findings, member }) in examined {
        servers.push(Section::of_server(shard, member.server.as_str(), findings));
        members[shard].push(member);
    }
    let shards = shards
        .iter()
        .zip(&members)
        .enumerate()
        .filter_map(|(number, ((kind, endpoints), members))| {
            let finding = judge_shard(*kind, members)?;
            let names: Vec<&str> = endpoints.iter().map(Endpoint::as_str).collect();
            Some(Section::new(number, names.join("+"), vec![finding]))
        });
    Report::new(servers, shards.collect())
}
