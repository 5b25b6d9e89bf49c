//! The shard under test.

use std::time::Duration;

use arbitrary::Arbitrary;

use crate::lease::schedule::{Pace, Schedule};
use crate::net::admission::Admission;
use crate::net::backoff::ReconnectPolicy;
use crate::net::endpoint::Endpoint;
use crate::net::failover::Policy;
use crate::net::fencing::Fencing;
use crate::net::health::ShardHealth;
use crate::protocol::StableRef;
use crate::shard::effect::Handover;
use crate::shard::{Refs, Settings, Setup};
use crate::shards::ShardPlan;
use crate::telemetry::sink::ShardSink;
use crate::types::Ttl;

/// The choices that describe a shard.
#[derive(Arbitrary, Debug)]
pub(super) struct Terms {
    policy: u8,
    flags: u8,
    pipelined: u8,
    exclusive: u8,
    redirects: u8,
    orphan_ttl: u8,
    lease_ttl: u8,
    pause: u8,
}

impl Terms {
    fn has(&self, flag: u8) -> bool {
        self.flags >> flag & 1 == 1
    }

    pub(super) fn survives_disconnect(&self) -> bool {
        self.has(0) || self.policy % 3 == 1
    }

    pub(super) fn setup(&self) -> Setup {
        let (policy, endpoints): (_, &[&str]) = match self.policy % 3 {
            0 => (Policy::Single, &["a:1"]),
            1 => (Policy::Cluster, &["a:1", "b:1", "c:1"]),
            _ => (Policy::Standby, &["a:1", "b:1"]),
        };
        let is_cluster = policy == Policy::Cluster;
        let endpoints: Vec<_> = endpoints.iter().map(|text| Endpoint::parse(text).unwrap()).collect();
        let health = ShardHealth::connecting(0, &endpoints[0]);
        let pause = Duration::from_millis(u64::from(self.pause) * 10 + 1);
        let second = Duration::from_secs(1);
        let orphan_ttl = (is_cluster && self.orphan_ttl > 0).then(|| second * u32::from(self.orphan_ttl % 32));
        Setup {
            index: 0,
            plan: ShardPlan {
                policy,
                endpoints,
                takeover_delay: self.has(1).then_some(2 * second),
                admission: Admission::default(),
                orphan_ttl,
                stable_ref: (is_cluster && self.has(2)).then(|| StableRef::new("name").unwrap()),
            },
            settings: Settings {
                schedule: Schedule {
                    longest_suspend: self.has(3).then_some(23 * second),
                    pace: Pace::new(0.5, 0.1).unwrap(),
                    margin: None,
                },
                reconnect: ReconnectPolicy::of(move || Box::new(std::iter::repeat(pause))),
                fail_fast: self.has(4),
                keepalive: 10 * second,
                server_read_timeout: 23 * second,
                survives_disconnect: self.has(0),
                fencing: match self.has(5) {
                    true => Fencing::Required,
                    false => Fencing::IfKnown,
                },
                pipelined: usize::from(self.pipelined % 3) + 1,
                exclusive: usize::from(self.exclusive % 5),
                exclusive_per_key: usize::from(self.exclusive / 5 % 4) + 1,
                idle_timeout: 5 * second,
                lease_ttl: Ttl::from_secs(u64::from(self.lease_ttl % 16)),
                max_redirects: u32::from(self.redirects % 4),
            },
            sink: ShardSink::nowhere(),
            jitter: fastrand::Rng::with_seed(7),
            refs: Refs::new(StableRef::new("fuzz").unwrap()),
            health,
            handover: Handover::default(),
        }
    }
}
