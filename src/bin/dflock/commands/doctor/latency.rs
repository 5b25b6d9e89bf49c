//! `latency`: the round-trip time of the smallest request.

use std::time::Duration;

use dflockd_client::protocol::functions::ping;
use tokio::time::Instant;

use super::abilities::Abilities;
use super::greet::serves_leases;
use super::report::{Check, Finding};
use super::way::Connection;
use crate::failure::Failure;

/// A 99th percentile above this causes a warning: every acquire and every renewal waits for a round trip.
const SLOW: Duration = Duration::from_millis(500);

/// Makes this number of requests, one after the other. Stops early when half of `limit` is over.
pub(super) async fn check(
    connection: &mut Connection,
    abilities: Abilities,
    requests: usize,
    limit: Duration,
) -> Result<Finding, Failure> {
    let since = Instant::now();
    let mut took = Vec::with_capacity(requests);
    // The time is checked only between requests. The caller's own limit ends a request that takes too long.
    while took.len() < requests && (took.is_empty() || since.elapsed() < limit / 2) {
        let sent = Instant::now();
        request(connection, abilities).await?;
        took.push(sent.elapsed());
    }
    Ok(judge(took))
}

async fn request(connection: &mut Connection, abilities: Abilities) -> Result<(), Failure> {
    match abilities.ping {
        true => Ok(ping(connection).await?),
        false => serves_leases(connection).await.map(drop),
    }
}

fn judge(mut took: Vec<Duration>) -> Finding {
    took.sort_unstable();
    let (p50, p99) = (quantile(&took, 50), quantile(&took, 99));
    let what = format!("p50 {p50:.1?}, p99 {p99:.1?} of {} requests", took.len());
    let finding = match p99 > SLOW {
        false => Finding::ok(Check::Latency, what),
        true => Finding::warn(
            Check::Latency,
            what,
            "look at the load of the server and at the network; give leases a TTL that outlasts such delays",
        ),
    };
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    finding
        .fact("requests", took.len())
        .fact("p50_us", micros(p50))
        .fact("p99_us", micros(p99))
}

/// Returns the smallest time that `percent` percent of the sorted times do not exceed.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::report::Verdict;

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let millis = |times: &[u64]| times.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        for (times, p50, p99) in [
            (vec![], 0, 0),
            (vec![7], 7, 7),
            (vec![1, 2], 1, 2),
            ((1..=100).collect(), 50, 99),
            ((1..=1000).collect(), 500, 990),
        ] {
            let times = millis(&times);
            let found = [50, 99].map(|percent| quantile(&times, percent).as_millis());
            assert_eq!(found, [p50, p99], "{times:?}");
        }
    }

    #[test]
    fn a_slow_server_is_warned_of() {
        let times = |slowest| vec![Duration::from_millis(1), Duration::from_millis(slowest)];
        assert_eq!(judge(times(500)).verdict, Verdict::Ok);
        assert_eq!(judge(times(501)).verdict, Verdict::Warn);
    }
}
