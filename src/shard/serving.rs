//! The server that serves the shard: reconnecting to it, and the delay before another server may take over.

use std::time::Duration;

use tokio::time::Instant;

use super::effect::Handover;
use crate::net::backoff::OF_USE_AFTER;
use crate::net::failover::Failover;
use crate::net::reconnect::Reconnect;
use crate::net::takeover::TakeoverDelay;

/// The state of who serves.
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

    /// Returns the index of the endpoint that serves or is tried.
    pub(super) fn at(&self) -> usize {
        self.failover().at()
    }

    /// Notes a lease with this TTL, which the server may grant. Returns the new handover if no earlier TTL was as long.
    pub(super) fn note_ttl(&mut self, ttl: Duration) -> Option<Handover> {
        self.takeover.note_ttl(ttl).then(|| self.handover())
    }

    /// Notes that the serving server was last heard at `now`.
    pub(super) fn heard(&mut self, now: Instant) {
        self.takeover.lost_contact(now);
    }

    /// Returns when another server may be asked.
    pub(super) fn guarded_until(&self) -> Instant {
        self.takeover.until()
    }

    /// Returns when an attempt that begins at `begins` is given up, even before its connect timeout, because another
    /// server may be asked then.
    pub(super) fn give_up_at(&self, begins: Instant) -> Option<Instant> {
        self.failover().give_up_at(begins, self.takeover.until())
    }

    /// Holds requests back until all leases of the serving server must be over. Returns the duration.
    pub(super) fn hold_back(&mut self, now: Instant) -> Duration {
        self.takeover.lost_contact(now);
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

/// Whether a pipelined connection was useful: it stood for long enough and did not end in silence.
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
    fn another_server_is_guarded_against_for_the_longest_ttl_and_a_margin_from_the_last_contact_on() {
        let now = Instant::now();
        let mut serving = serving(Policy::Standby, None, now);
        assert_eq!(serving.guarded_until(), now + SECOND * 21 / 2, "others may hold leases");
        serving.heard(now + SECOND);
        assert_eq!(serving.guarded_until(), now + SECOND * 23 / 2);
        assert!(serving.note_ttl(10 * SECOND).is_none(), "no longer than before");
        let handover = serving.note_ttl(20 * SECOND).expect("longer than before");
        assert_eq!(handover.longest_ttl, 20 * SECOND);
        assert_eq!(serving.guarded_until(), now + 22 * SECOND);
        assert!(serving.note_ttl(SECOND).is_none());
        assert_eq!(serving.guarded_until(), now + 22 * SECOND, "never shorter again");
    }

    #[test]
    fn a_fixed_guard_stays_whatever_ttl_is_seen() {
        let now = Instant::now();
        let mut serving = serving(Policy::Standby, Some(3 * SECOND), now);
        assert!(serving.note_ttl(60 * SECOND).is_some());
        assert_eq!(serving.guarded_until(), now + 3 * SECOND);
        assert_eq!(serving.hold_back(now), 3 * SECOND);
    }

    #[test]
    fn an_attempt_is_given_up_for_the_next_server_in_standby_only_and_while_guarded() {
        let now = Instant::now();
        let standby = serving(Policy::Standby, None, now);
        let guarded = standby.guarded_until();
        assert_eq!(standby.give_up_at(now), Some(guarded));
        assert_eq!(standby.give_up_at(guarded), Some(guarded + SOON), "the last chance");
        assert_eq!(standby.give_up_at(guarded + SOON), None, "no other may be asked before");
        for policy in [Policy::Single, Policy::Cluster] {
            assert_eq!(serving(policy, None, now).give_up_at(now), None, "{policy:?}");
        }
    }

    #[test]
    fn the_way_back_holds_requests_back_until_the_leases_of_the_server_are_over() {
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
            "a contact prolongs nothing"
        );
    }

    #[test]
    fn the_next_shard_holds_back_and_guards_for_as_long() {
        let now = Instant::now();
        let mut before = serving(Policy::Standby, None, now);
        before.note_ttl(20 * SECOND);
        before.hold_back(now);
        let handover = before.handover();
        assert_eq!(handover.longest_ttl, 20 * SECOND);
        let hold_back = handover.hold_back.expect("it always says since when");
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
    fn a_connection_was_of_use_if_it_stood_for_a_while_and_was_not_silent() {
        let now = Instant::now();
        let since = Some(now);
        assert!(was_of_use(since, false, now + OF_USE_AFTER));
        assert!(!was_of_use(since, false, now + OF_USE_AFTER - Duration::from_millis(1)));
        assert!(!was_of_use(since, true, now + 2 * OF_USE_AFTER));
        assert!(!was_of_use(None, false, now + 2 * OF_USE_AFTER), "it was never up");
    }
}
