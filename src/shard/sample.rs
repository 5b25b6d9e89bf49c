//! What tests and benchmarks set up a shard with.

use super::*;
use crate::lease::schedule::RenewRatio;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn settings() -> Settings {
    Settings {
        schedule: Schedule {
            longest_suspend: None,
            renew_ratio: RenewRatio::new(0.5).unwrap(),
            margin: None,
        },
        reconnect: ReconnectPolicy::of(|| Box::new(std::iter::repeat(SECOND))),
        fail_fast: false,
        fencing: Fencing::IfKnown,
        keepalive: 10 * SECOND,
        server_read_timeout: 23 * SECOND,
        survives_disconnect: false,
        pipelined: 1,
        exclusive: 4,
        exclusive_per_key: 4,
        idle_timeout: 5 * SECOND,
        lease_ttl: None,
        max_redirects: 3,
    }
}

/// For the first shard of a client, without a recorder of metrics, and with the same randomness each time.
pub(super) fn setup(plan: ShardPlan, settings: Settings) -> Setup {
    let health = ShardHealth::connecting(0, &plan.endpoints[0]);
    Setup {
        index: 0,
        plan,
        settings,
        sink: ShardSink::nowhere(),
        jitter: fastrand::Rng::with_seed(7),
        refs: Refs::new(StableRef::new("test").unwrap()),
        health,
        handover: Handover::default(),
    }
}
