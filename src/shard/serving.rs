//! Tracks the server that serves the shard, the reconnecting, and the delay before another server may take over.

use std::time::Duration;

use tokio::time::Instant;

use super::effect::Handover;
use crate::net::backoff::OF_USE_AFTER;
use crate::net::failover::Failover;
use crate::net::reconnect::Reconnect;
use crate::net::takeover::TakeoverDelay;

/// The state of the serving server.
pub(super) struct Serving {
    pub(super) reconnect: Reconnect,
    takeover: TakeoverDelay,
    /// No pipelined connection is opened before this instant.
    hold_back: Instant,
}

impl Serving {
    pub(super) fn new(reconnect: Reconnect, takeover: TakeoverDelay, hold_back: Instant) -> Self {
        Self {
            reconnect,
            takeover,
            hold_back,
        }
    }

    pub(super) fn failover(&self) -> &Failover {
        self.reconnect.failover()
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.failover().is_cluster()
    }

    pub(super) fn is_standby(&self) -> bool {
        self.failover().is_standby()
    }

    /// Returns the index of the endpoint that serves or that the shard tries to reach.
    pub(super) fn at(&self) -> usize {
        self.failover().at()
    }

    /// Notes that the server may grant, or has granted, a lease with this TTL. Returns the new handover if this TTL is
    /// longer than all before.
    pub(super) fn note_ttl(&mut self, ttl: Duration) -> Option<Handover> {
        self.takeover.note_ttl(ttl).then(|| self.handover())
    }

    /// Notes that the serving server last answered at `now`.
    pub(super) fn heard(&mut self, now: Instant) {
        self.takeover.heard(now);
    }

    /// Returns when the shard may send requests to another server.
    pub(super) fn guarded_until(&self) -> Instant {
        self.takeover.until()
    }

    /// Returns when to give up an attempt that begins at `begins`, even before its connect timeout, because the shard
    /// may then try another server.
    pub(super) fn give_up_at(&self, begins: Instant) -> Option<Instant> {
        self.failover().give_up_at(begins, self.takeover.until())
    }

    /// Holds requests back until all leases of the serving server must have ended. Returns the duration.
    pub(super) fn hold_back(&mut self, now: Instant) -> Duration {
        self.takeover.heard(now);
        self.hold_back = self.takeover.until();
        self.takeover.delay()
    }

    /// Returns for how much longer requests are held back.
    pub(super) fn held_back_for(&self, now: Instant) -> Duration {
        self.hold_back.saturating_duration_since(now)
    }

    /// Returns the state that a replacement of this shard needs.
    pub(super) fn handover(&self) -> Handover {
        Handover {
            longest_ttl: self.takeover.longest_ttl(),
            hold_back: Some(self.hold_back),
        }
    }
}

/// Whether a pipelined connection was useful: it was up for long enough and did not end because of silence.
pub(super) fn was_of_use(up_since: Option<Instant>, was_silent: bool, now: Instant) -> bool {
    let stood = up_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    !was_silent && stood >= OF_USE_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::net::backoff::ReconnectPolicy;
    use crate::net::endpoint::Endpoint;
    use crate::net::failover::Policy;
    use crate::net::health::ShardHealth;
    use crate::shard::bench::SECOND;

    const SOON: Duration = Duration::from_millis(200);

    /// Creates two endpoints, of which the first serves, and assumes leases of at most 10 s.
    fn serving(policy: Policy, fixed: Option<Duration>, now: Instant) -> Serving {
        let endpoints: Vec<_> = ["a:1", "b:1"].map(|text| Endpoint::parse(text).unwrap()).into();
        let seen = ShardHealth::connecting(0, &endpoints[0]);
        let failover = Failover::new(policy, endpoints, "a:1");
        let pauses = ReconnectPolicy::of(|| Box::new(std::iter::repeat(SECOND)));
        let reconnect = Reconnect::new(0, failover, pauses, false, &seen);
        Serving::new(reconnect, TakeoverDelay::new(fixed, 10 * SECOND, now), now)
    }

    fn lost() -> Error {
        Error::new(ErrorKind::Disconnected, "lost")
    }

    #[test]
    fn no_other_server_is_asked_for_the_longest_ttl_and_a_margin_after_the_last_contact() {
        let now = Instant::now();
        let mut serving = serving(Policy::Standby, None, now);
        assert_eq!(
            serving.guarded_until(),
            now + SECOND * 21 / 2,
            "other clients may hold leases"
        );
        serving.heard(now + SECOND);
        assert_eq!(serving.guarded_until(), now + SECOND * 23 / 2);
        assert!(
            serving.note_ttl(10 * SECOND).is_none(),
            "this TTL is no longer than the one before"
        );
        let handover = serving
            .note_ttl(20 * SECOND)
            .expect("this TTL is longer than the one before");
        assert_eq!(handover.longest_ttl, 20 * SECOND);
        assert_eq!(serving.guarded_until(), now + 22 * SECOND);
        assert!(serving.note_ttl(SECOND).is_none());
        assert_eq!(serving.guarded_until(), now + 22 * SECOND, "the delay does not shrink");
    }

    #[test]
    fn a_fixed_delay_does_not_depend_on_ttls() {
        let now = Instant::now();
        let mut serving = serving(Policy::Standby, Some(3 * SECOND), now);
        assert!(serving.note_ttl(60 * SECOND).is_some());
        assert_eq!(serving.guarded_until(), now + 3 * SECOND);
        assert_eq!(serving.hold_back(now), 3 * SECOND);
    }

    #[test]
    fn an_attempt_is_given_up_for_another_server_only_in_standby_shards_and_during_the_delay() {
        let now = Instant::now();
        let standby = serving(Policy::Standby, None, now);
        let guarded = standby.guarded_until();
        assert_eq!(standby.give_up_at(now), Some(guarded));
        assert_eq!(
            standby.give_up_at(guarded),
            Some(guarded + SOON),
            "an attempt that begins late gets a minimum time"
        );
        assert_eq!(
            standby.give_up_at(guarded + SOON),
            None,
            "an attempt after the delay is not given up early"
        );
        for policy in [Policy::Single, Policy::Cluster] {
            assert_eq!(serving(policy, None, now).give_up_at(now), None, "{policy:?}");
        }
    }

    #[test]
    fn a_failback_holds_requests_back_until_the_leases_of_the_server_are_over() {
        let start = Instant::now();
        let mut serving = serving(Policy::Standby, None, start);
        assert_eq!(serving.held_back_for(start), Duration::ZERO);
        let now = start + 60 * SECOND;
        assert_eq!(serving.hold_back(now), SECOND * 21 / 2);
        assert_eq!(serving.held_back_for(now), SECOND * 21 / 2);
        assert_eq!(serving.held_back_for(now + 10 * SECOND), SECOND / 2);
        assert_eq!(serving.held_back_for(now + 11 * SECOND), Duration::ZERO);
        serving.heard(now + 5 * SECOND);
        assert_eq!(
            serving.held_back_for(now + 10 * SECOND),
            SECOND / 2,
            "a contact does not prolong the hold"
        );
    }

    #[test]
    fn a_replacing_shard_keeps_the_hold_and_the_delay() {
        let now = Instant::now();
        let mut before = serving(Policy::Standby, None, now);
        before.note_ttl(20 * SECOND);
        before.hold_back(now);
        let handover = before.handover();
        assert_eq!(handover.longest_ttl, 20 * SECOND);
        let hold_back = handover.hold_back.expect("the handover always has an instant");
        let takeover = TakeoverDelay::new(None, handover.longest_ttl, now);
        let after = Serving::new(before.reconnect, takeover, hold_back);
        assert_eq!(after.held_back_for(now + SECOND), 20 * SECOND);
        assert_eq!(after.guarded_until(), now + 21 * SECOND);
    }

    #[test]
    fn which_endpoint_serves_follows_the_failures() {
        let now = Instant::now();
        let mut standby = serving(Policy::Standby, None, now);
        assert!(standby.is_standby() && !standby.is_cluster());
        let guarded = standby.guarded_until();
        standby.reconnect.attempt_failed(&lost(), now, guarded);
        assert_eq!(standby.at(), 0, "guarded");
        standby.reconnect.attempt_failed(&lost(), guarded, guarded);
        assert_eq!((standby.at(), standby.failover().at()), (1, 1));

        let mut cluster = serving(Policy::Cluster, None, now);
        assert!(cluster.is_cluster() && !cluster.is_standby());
        cluster.reconnect.deposed(&lost(), Some("b:1"));
        assert_eq!(cluster.at(), 1);
        let single = serving(Policy::Single, None, now);
        assert!(!single.is_cluster() && !single.is_standby());
    }

    #[test]
    fn a_connection_was_useful_if_it_was_up_for_a_while_and_not_silent() {
        let now = Instant::now();
        let since = Some(now);
        assert!(was_of_use(since, false, now + OF_USE_AFTER));
        assert!(!was_of_use(since, false, now + OF_USE_AFTER - Duration::from_millis(1)));
        assert!(!was_of_use(since, true, now + 2 * OF_USE_AFTER));
        assert!(!was_of_use(None, false, now + 2 * OF_USE_AFTER), "it was never up");
    }
}
