//! The setup of shards in tests and benchmarks.

use super::*;
use crate::clock::Moment;
use crate::lease::schedule::Pace;
use crate::net::abilities::Abilities;
use crate::net::admission::Admission;
use crate::net::connect::Shown;
use crate::net::dial::LaneEvent;
use crate::net::failover::Policy;
use crate::net::fencing::FencesShown;
use crate::net::lane::{LaneReport, Outgoing};
use crate::net::pipeline::{Received, Reply};
use crate::protocol::Response;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn settings() -> Settings {
    Settings {
        schedule: Schedule {
            longest_suspend: None,
            pace: Pace::new(0.5, 0.1).unwrap(),
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

/// Creates a plan with these servers and default values.
pub(super) fn plan(policy: Policy, endpoints: &[&str]) -> ShardPlan {
    let endpoints = endpoints.iter().map(|text| Endpoint::parse(text).unwrap());
    ShardPlan {
        policy,
        endpoints: endpoints.collect(),
        takeover_delay: None,
        admission: Admission::default(),
        orphan_ttl: None,
        stable_ref: None,
    }
}

/// Creates the event of a new connection to a server of the newest release. `sessions` says whether it supports
/// sessions.
pub(super) fn shown(sessions: Option<bool>) -> LaneEvent<Pending> {
    LaneEvent::Up(Shown {
        abilities: Abilities {
            ping: Some(true),
            sessions,
        },
        cluster: None,
        fences: FencesShown::Nothing,
    })
}

/// Creates the report of answers that arrive in one read, to requests sent at `sent_at`.
pub(super) fn report(
    answers: impl IntoIterator<Item = (Outgoing<Pending>, Response)>,
    sent_at: Instant,
) -> LaneEvent<Pending> {
    let mut received = Received::nothing();
    let replies = answers.into_iter().map(|(request, response)| Reply {
        tag: request.tag,
        response,
        sent_at: Moment {
            at: sent_at,
            suspended: Duration::ZERO,
        },
    });
    received.replies.extend(replies);
    LaneEvent::Report(LaneReport {
        received,
        skipped: Vec::new(),
    })
}

/// Creates the setup of a client's first shard, without a metrics recorder and with fixed randomness.
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
