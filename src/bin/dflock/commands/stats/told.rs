//! The output of `dflock stats --json`.

use std::time::UNIX_EPOCH;

use dflockd_client::Stats;
use serde::Serialize;

use crate::args::Shown;
use crate::survey::{Look, Round, arrange};

#[derive(Serialize)]
pub(super) struct Told {
    /// The time of the look in milliseconds since 1970, if it is one of a watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    unix_ms: Option<u64>,
    shards: Vec<Shard>,
}

#[derive(Serialize)]
struct Shard {
    shard: usize,
    server: String,
    state: &'static str,
    failovers: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    /// The state that the server reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Told {
    pub(super) fn once(round: Round, shown: &Shown) -> Self {
        let shards = round.looks.into_iter().map(|look| Shard::new(look, shown));
        Self {
            unix_ms: None,
            shards: shards.collect(),
        }
    }

    pub(super) fn of_watch(round: Round, shown: &Shown) -> Self {
        let since = round.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            unix_ms: u64::try_from(since.as_millis()).ok(),
            ..Self::once(round, shown)
        }
    }
}

impl Shard {
    fn new(look: Look, shown: &Shown) -> Self {
        let (stats, error) = match look.stats {
            Ok(mut stats) => {
                arrange(&mut stats, shown.filter.as_ref(), shown.sort);
                (Some(stats), None)
            }
            Err(missing) => (None, Some(missing.to_string())),
        };
        Self {
            shard: look.shard,
            server: look.server,
            state: look.state,
            failovers: look.failovers,
            // Microseconds are precise enough.
            latency_ms: look.latency.map(|latency| (latency.as_secs_f64() * 1e6).round() / 1e3),
            stats,
            error,
        }
    }
}
