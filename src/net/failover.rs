//! Which of a shard's endpoints is tried next. Pure: no sockets, no clocks but the caller's.
//!
//! | policy | endpoints | when the one in use is lost |
//! | --- | --- | --- |
//! | single | one | tried again |
//! | cluster | members that share their state | tried again, then the next; a member that names the leader is believed if that is a member, or [may become one](Admission) |
//! | standby | servers that know nothing of each other | tried again until every lease of its may be over; only then the next |

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::admission::Admission;
use super::backoff::Attempts;
use super::endpoint::Endpoint;
use crate::clock::after;

/// How the endpoints of a shard stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Single,
    Cluster,
    Standby,
}

/// Why another endpoint than before serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailoverReason {
    /// The one before was lost.
    Lost,
    /// The one before does not lead its cluster any more.
    Deposed,
    /// It was [asked for](crate::Client::failback).
    Requested,
}

impl FailoverReason {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Lost, Self::Deposed, Self::Requested];

    /// Its name as metrics and logs carry it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Deposed => "deposed",
            Self::Requested => "requested",
        }
    }
}

impl fmt::Display for FailoverReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When the next attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    AtOnce,
    /// After the next pause of the reconnect policy.
    AfterAPause,
    /// The same, but after this time at the latest.
    AfterAPauseOfAtMost(Duration),
}

/// An attempt that begins when the next server may be asked gets so much time.
const LAST_CHANCE: Duration = Duration::from_millis(200);

/// The most members that are known besides those that were given.
const MOST_FOUND: usize = 16;

/// The least pause before a connection that was lost is made again, unless the reconnect policy makes a shorter one.
const BREATH: Duration = Duration::from_millis(50);

impl Pace {
    /// Returns the time to the next attempt, and counts the one that failed.
    pub(crate) fn pause(self, attempts: &mut Attempts) -> Duration {
        match self {
            Self::AtOnce => {
                attempts.failed_here();
                Duration::ZERO
            }
            Self::AfterAPause => attempts.failed(),
            Self::AfterAPauseOfAtMost(longest) => attempts.failed().min(longest),
        }
    }
}

/// The state of one shard's choice.
#[derive(Clone, Debug)]
pub(crate) struct Failover {
    policy: Policy,
    /// There is at least one. Those that were given come first, then those that were found.
    endpoints: Vec<Endpoint>,
    /// How many were given.
    given: usize,
    /// Where members may be found that were not given.
    admission: Admission,
    /// Which of those that were found is replaced next, if there are too many.
    replaced: usize,
    current: usize,
    /// How many attempts in a row failed without a pause.
    tried: usize,
    /// How many redirects were followed since an endpoint proved itself.
    followed: usize,
    /// The endpoint that was connected last.
    served: Option<usize>,
    /// Why the one that was connected last is not any more.
    why: Option<FailoverReason>,
}

/// Another endpoint than before serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) from: usize,
    pub(crate) why: FailoverReason,
}

impl Failover {
    /// Begins with an endpoint that is among them, or else with the first.
    pub(crate) fn new(policy: Policy, endpoints: Vec<Endpoint>, at: &str) -> Self {
        let current = endpoints.iter().position(|endpoint| &**endpoint.as_text() == at);
        Self {
            policy,
            given: endpoints.len(),
            admission: Admission::default(),
            replaced: 0,
            endpoints,
            current: current.unwrap_or_default(),
            tried: 0,
            followed: 0,
            served: None,
            why: None,
        }
    }

    /// Lets members be found that were not given. `at`: where to begin, if it is one of these.
    pub(crate) fn admitting(mut self, admission: Admission, at: &str) -> Self {
        self.admission = admission;
        if let Some(found) = self.find(at) {
            self.current = found;
        }
        self
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.policy == Policy::Cluster
    }

    pub(crate) fn is_standby(&self) -> bool {
        self.policy == Policy::Standby
    }

    /// How many endpoints there are.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The index of the one that is connected, or tried.
    pub(crate) fn at(&self) -> usize {
        self.current
    }

    /// The one that is connected, or tried.
    pub(crate) fn current(&self) -> &Endpoint {
        &self.endpoints[self.current]
    }

    /// One of them.
    pub(crate) fn endpoint(&self, index: usize) -> &Endpoint {
        self.endpoints.get(index).unwrap_or(&self.endpoints[0])
    }

    /// It is connected. Which one was before, if it was another.
    pub(crate) fn connected(&mut self) -> Option<Switch> {
        let why = self.why.take().unwrap_or(FailoverReason::Lost);
        let from = self.served.replace(self.current)?;
        (from != self.current).then_some(Switch { from, why })
    }

    /// It has done what was asked of it: from here on attempts are counted anew.
    pub(crate) fn proved(&mut self) {
        self.tried = 0;
        self.followed = 0;
    }

    /// The connection was lost. A leader that was cut off may still lead, so it is asked first. `proved`: it was of use.
    /// `guarded_until`: before that, no other server may be asked for what this one may have granted.
    pub(crate) fn lost(&mut self, proved: bool, now: Instant, guarded_until: Instant) -> Pace {
        self.why.get_or_insert(FailoverReason::Lost);
        match self.policy {
            Policy::Cluster if proved && self.endpoints.len() > 1 => Pace::AtOnce,
            Policy::Cluster => self.next(),
            Policy::Standby if now < guarded_until => Pace::AfterAPauseOfAtMost((guarded_until - now).max(BREATH)),
            Policy::Single | Policy::Standby => Pace::AfterAPause,
        }
    }

    /// An attempt failed. `guarded_until`: as in [`lost`](Self::lost). The last attempt before that begins right then, so that the next
    /// server is asked in time, however long the pauses of the reconnect policy are by now.
    pub(crate) fn failed(&mut self, now: Instant, guarded_until: Instant) -> Pace {
        match self.policy {
            Policy::Single => Pace::AfterAPause,
            Policy::Standby if now < guarded_until => Pace::AfterAPauseOfAtMost(guarded_until - now),
            Policy::Cluster | Policy::Standby => self.next(),
        }
    }

    /// When an attempt that begins then is given up even if the connect timeout is not over: because the next server may be asked.
    pub(crate) fn give_up_at(&self, begins: Instant, guarded_until: Instant) -> Option<Instant> {
        let is_guarded = self.is_standby() && begins <= guarded_until;
        is_guarded.then(|| guarded_until.max(after(begins, LAST_CHANCE)))
    }

    /// The member that was asked does not lead; it may have said who does. Only a member is believed in, and only so often in
    /// a row: members that point at each other are no better than members that know nothing.
    pub(crate) fn redirected(&mut self, leader: Option<&str>) -> Pace {
        self.why.get_or_insert(FailoverReason::Deposed);
        let known = leader.and_then(|leader| self.find(leader));
        match known {
            Some(member) if member != self.current && self.followed < self.endpoints.len() => {
                self.followed += 1;
                self.current = member;
                Pace::AtOnce
            }
            _ => self.next(),
        }
    }

    /// The first endpoint is to serve again.
    pub(crate) fn go_back(&mut self) {
        self.why = Some(FailoverReason::Requested);
        self.current = 0;
        self.tried = 0;
    }

    /// Somebody else has chosen, if it is one of them: whether that is another than before.
    pub(crate) fn follow(&mut self, endpoint: &str, why: Option<FailoverReason>) -> bool {
        let chosen = self.endpoints.iter().position(|known| &**known.as_text() == endpoint);
        let Some(chosen) = chosen.filter(|chosen| *chosen != self.current) else {
            return false;
        };
        self.why = why;
        self.current = chosen;
        true
    }

    /// The leader names the members of its cluster. Those that may join are from here on tried like those that were given. Names that
    /// are no addresses say nothing.
    pub(crate) fn note_members<'a>(&mut self, members: impl IntoIterator<Item = &'a str>) {
        for member in members {
            self.find(member);
        }
    }

    /// The index of an address: of one that is known, whatever the case of its letters, or of one that may join, which is known from here
    /// on. When there are too many, it takes the place of one that was found before and is not in use.
    fn find(&mut self, address: &str) -> Option<usize> {
        let same = |endpoint: &Endpoint| endpoint.as_text().eq_ignore_ascii_case(address);
        if let Some(known) = self.endpoints.iter().position(same) {
            return Some(known);
        }
        let endpoint = Endpoint::parse(address).ok()?;
        if !self.is_cluster() || !self.admission.admits(&endpoint) {
            return None;
        }
        if self.endpoints.len() < self.given + MOST_FOUND {
            self.endpoints.push(endpoint);
            return Some(self.endpoints.len() - 1);
        }
        let is_in_use = |index: usize| index == self.current || Some(index) == self.served;
        let found = (0..MOST_FOUND).map(|after| self.given + (self.replaced + after) % MOST_FOUND);
        let replaced = found.into_iter().find(|index| !is_in_use(*index))?;
        self.replaced = replaced - self.given + 1;
        self.endpoints[replaced] = endpoint;
        Some(replaced)
    }

    /// The next in turn: a pause is made when all were tried.
    fn next(&mut self) -> Pace {
        self.current = (self.current + 1) % self.endpoints.len();
        self.tried += 1;
        if self.tried < self.endpoints.len() {
            return Pace::AtOnce;
        }
        self.tried = 0;
        self.followed = 0;
        Pace::AfterAPause
    }
}

/// How long no lease may outlive its last renewal, as far as is known here: the longest TTL in use, with a margin on top.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TakeoverDelay {
    /// Set by the user, whatever is seen.
    fixed: Option<Duration>,
    longest_ttl: Duration,
    last_contact: Instant,
}

/// The part of the longest TTL that is added to it: clocks do not run equally fast.
const GUARD_MARGIN_PART: u32 = 20;

impl TakeoverDelay {
    /// Before the client was there, others may have been: their leases are guarded from `now` on.
    pub(crate) fn new(fixed: Option<Duration>, longest_ttl: Duration, now: Instant) -> Self {
        Self {
            fixed,
            longest_ttl,
            last_contact: now,
        }
    }

    /// A lease of this TTL was granted. Whether none before was as long.
    pub(crate) fn note_ttl(&mut self, ttl: Duration) -> bool {
        let is_longer = ttl > self.longest_ttl;
        self.longest_ttl = self.longest_ttl.max(ttl);
        is_longer
    }

    /// The longest TTL in use.
    pub(crate) fn longest_ttl(&self) -> Duration {
        self.longest_ttl
    }

    /// The server that served was heard of no later than now.
    pub(crate) fn lost_contact(&mut self, now: Instant) {
        self.last_contact = now;
    }

    /// For how long, from the last contact on.
    pub(crate) fn delay(&self) -> Duration {
        let margin = self.longest_ttl / GUARD_MARGIN_PART;
        self.fixed.unwrap_or_else(|| self.longest_ttl.saturating_add(margin))
    }

    /// No other server may be asked before that.
    pub(crate) fn until(&self) -> Instant {
        after(self.last_contact, self.delay())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::backoff::ReconnectPolicy;

    fn failover(policy: Policy, endpoints: usize) -> Failover {
        let endpoints = (0..endpoints).map(|index| Endpoint::parse(&format!("m{index}:6388")).unwrap());
        Failover::new(policy, endpoints.collect(), "m0:6388")
    }

    fn failed(failover: &mut Failover) -> (String, Pace) {
        let now = Instant::now();
        let pace = failover.failed(now, now);
        (failover.current().to_string(), pace)
    }

    fn lost(failover: &mut Failover, proved: bool) -> Pace {
        let now = Instant::now();
        failover.lost(proved, now, now)
    }

    fn redirected(failover: &mut Failover, leader: Option<&str>) -> (String, Pace) {
        let pace = failover.redirected(leader);
        (failover.current().to_string(), pace)
    }

    fn at(member: &str, pace: Pace) -> (String, Pace) {
        (format!("{member}:6388"), pace)
    }

    #[test]
    fn a_single_endpoint_is_tried_again_after_a_pause() {
        let mut failover = failover(Policy::Single, 1);
        assert_eq!(lost(&mut failover, true), Pace::AfterAPause);
        assert_eq!(failed(&mut failover), at("m0", Pace::AfterAPause));
        assert_eq!(redirected(&mut failover, Some("m1:6388")), at("m0", Pace::AfterAPause));
    }

    #[test]
    fn all_members_of_a_cluster_are_tried_before_a_pause() {
        let mut failover = failover(Policy::Cluster, 3);
        assert_eq!(failover.connected(), None, "the first is no change");
        assert_eq!(lost(&mut failover, true), Pace::AtOnce);
        assert_eq!(failed(&mut failover), at("m1", Pace::AtOnce));
        assert_eq!(failed(&mut failover), at("m2", Pace::AtOnce));
        assert_eq!(failed(&mut failover), at("m0", Pace::AfterAPause));
        assert_eq!(failed(&mut failover), at("m1", Pace::AtOnce));
        let (from, why) = (0, FailoverReason::Lost);
        assert_eq!(failover.connected(), Some(Switch { from, why }));
        assert_eq!(failover.connected(), None);
    }

    #[test]
    fn a_leader_that_is_a_member_is_gone_to_at_once_whatever_its_case() {
        let mut failover = failover(Policy::Cluster, 3);
        assert_eq!(redirected(&mut failover, Some("M2:6388")), at("m2", Pace::AtOnce));
        assert_eq!(failover.connected(), None);
        assert_eq!(redirected(&mut failover, Some("m1:6388")), at("m1", Pace::AtOnce));
        let (from, why) = (2, FailoverReason::Deposed);
        assert_eq!(failover.connected(), Some(Switch { from, why }));
    }

    #[test]
    fn a_stranger_and_no_leader_at_all_mean_the_next_member() {
        let mut failover = failover(Policy::Cluster, 3);
        assert_eq!(
            redirected(&mut failover, Some("evil.example:6388")),
            at("m1", Pace::AtOnce)
        );
        assert_eq!(redirected(&mut failover, None), at("m2", Pace::AtOnce));
        assert_eq!(
            redirected(&mut failover, Some("m2:6388")),
            at("m0", Pace::AfterAPause),
            "it named itself"
        );
    }

    fn admitting(endpoints: usize, rule: &str) -> Failover {
        failover(Policy::Cluster, endpoints).admitting(Admission::parse([rule]).unwrap(), "m0:6388")
    }

    #[test]
    fn a_leader_at_an_allowed_host_joins_the_members() {
        let mut failover = admitting(2, "*.joined");
        assert_eq!(
            redirected(&mut failover, Some("a.joined:1")),
            ("a.joined:1".into(), Pace::AtOnce)
        );
        assert_eq!(redirected(&mut failover, Some("b.elsewhere:1")), at("m0", Pace::AtOnce));
        assert_eq!(failed(&mut failover), at("m1", Pace::AtOnce));
        assert_eq!(failed(&mut failover), ("a.joined:1".into(), Pace::AfterAPause));
        assert_eq!(failover.len(), 3);
    }

    #[test]
    fn members_that_the_leader_names_are_tried_as_far_as_their_hosts_are_allowed() {
        let mut failover = admitting(1, "10.0.0.0/8");
        failover.note_members(["10.0.0.1:1", "M0:6388", "n2", "11.0.0.1:1", "10.0.0.1:1"]);
        assert_eq!(failover.len(), 2);
        assert_eq!(failed(&mut failover), ("10.0.0.1:1".into(), Pace::AtOnce));
        let mut standby = super::Failover::new(Policy::Standby, failover.endpoints.clone(), "");
        standby.note_members(["10.0.0.9:1"]);
        assert_eq!(standby.len(), 2, "only clusters have members that join");
    }

    #[test]
    fn so_many_members_are_found_and_the_one_in_use_is_not_forgotten() {
        let mut failover = admitting(1, "10.0.0.0/8");
        let address = |last: usize| format!("10.0.0.{last}:1");
        assert_eq!(failover.redirected(Some(&address(0))), Pace::AtOnce);
        failover.connected();
        for last in 1..100 {
            failover.note_members([&*address(last)]);
            assert!(failover.len() <= 1 + MOST_FOUND);
            assert_eq!(failover.current().to_string(), address(0));
        }
        let known = |wanted: String| failover.endpoints.iter().any(|known| **known.as_text() == wanted);
        assert!(known("m0:6388".into()) && known(address(99)) && known(address(0)) && !known(address(50)));
    }

    #[test]
    fn one_that_starts_again_goes_on_at_a_member_that_was_found() {
        let failover = failover(Policy::Cluster, 2).admitting(Admission::parse(["*.joined"]).unwrap(), "a.joined:1");
        assert_eq!(failover.current().to_string(), "a.joined:1");
    }

    #[test]
    fn members_that_point_at_each_other_are_followed_so_often_and_then_there_is_a_pause() {
        let mut failover = failover(Policy::Cluster, 3);
        let mut pauses = 0;
        for _ in 0..60 {
            let other = if failover.current().to_string() == "m0:6388" {
                "m1:6388"
            } else {
                "m0:6388"
            };
            pauses += usize::from(failover.redirected(Some(other)) == Pace::AfterAPause);
        }
        assert!((10..=20).contains(&pauses), "{pauses} pauses in 60 attempts");
    }

    #[test]
    fn a_standby_is_asked_only_when_nothing_of_the_primary_can_be_held_any_more() {
        let mut failover = failover(Policy::Standby, 2);
        failover.connected();
        let lost = Instant::now();
        let guarded = lost + Duration::from_secs(35);
        let left = |secs| Pace::AfterAPauseOfAtMost(Duration::from_secs(35 - secs));
        assert_eq!(failover.lost(true, lost, guarded), left(0));
        for secs in [0, 10, 34] {
            assert_eq!(failover.failed(lost + Duration::from_secs(secs), guarded), left(secs));
            assert_eq!(failover.current().to_string(), "m0:6388", "{secs}");
        }
        assert_eq!(failover.failed(guarded, guarded), Pace::AtOnce);
        assert_eq!(failover.current().to_string(), "m1:6388");
        let (from, why) = (0, FailoverReason::Lost);
        assert_eq!(failover.connected(), Some(Switch { from, why }));
        failover.go_back();
        let (from, why) = (1, FailoverReason::Requested);
        assert_eq!(failover.connected(), Some(Switch { from, why }));
        assert_eq!(failover.current().to_string(), "m0:6388");
    }

    /// However the attempts at the primary fail, and whatever the reconnect policy.
    #[test]
    fn a_standby_is_asked_as_soon_as_it_may_be() {
        let secs = Duration::from_secs;
        let policies = [(0, 0), (0, 5), (2, 2), (3600, 3600)]
            .map(|(first, longest)| ReconnectPolicy::exponential(secs(first), secs(longest)));
        for (policy, takes) in policies
            .iter()
            .flat_map(|policy| [(policy, Duration::ZERO), (policy, secs(10))])
        {
            for delay in [
                Duration::from_millis(1050),
                Duration::from_millis(3150),
                secs(33),
                secs(3600),
            ] {
                let (mut failover, mut attempts) = (failover(Policy::Standby, 2), policy.start());
                failover.connected();
                let mut now = Instant::now();
                let guarded = now + delay;
                let mut pace = failover.lost(true, now, guarded);
                while failover.at() == 0 {
                    now += pace.pause(&mut attempts);
                    let given_up = failover.give_up_at(now, guarded).map_or(takes, |when| when - now);
                    now += takes.min(given_up).max(Duration::from_millis(1));
                    pace = failover.failed(now, guarded);
                }
                assert_eq!(pace, Pace::AtOnce);
                let late = now - guarded;
                assert!(late <= LAST_CHANCE, "{late:?} after {delay:?}");
            }
        }
    }

    /// A connection that is lost again and again is not made again without a pause, however short the delay.
    #[test]
    fn a_short_delay_makes_no_storm() {
        let policy = ReconnectPolicy::exponential(Duration::from_secs(1), Duration::from_secs(1));
        let mut failover = failover(Policy::Standby, 2);
        let now = Instant::now();
        for delay in [Duration::ZERO, Duration::from_nanos(1), BREATH / 2] {
            let pause = failover.lost(true, now, now + delay).pause(&mut policy.start());
            assert!(pause >= BREATH, "{delay:?}: {pause:?}");
        }
    }

    #[test]
    fn a_member_that_connects_and_is_of_no_use_is_not_asked_again_before_the_others() {
        let mut failover = failover(Policy::Cluster, 2);
        failover.connected();
        assert_eq!((lost(&mut failover, false), failover.at()), (Pace::AtOnce, 1));
        failover.connected();
        assert_eq!((lost(&mut failover, false), failover.at()), (Pace::AfterAPause, 0));
        failover.connected();
        failover.proved();
        assert_eq!((lost(&mut failover, true), failover.at()), (Pace::AtOnce, 0));
    }

    #[test]
    fn one_that_follows_goes_where_it_is_told_if_that_is_one_of_them() {
        let mut failover = failover(Policy::Standby, 2);
        failover.connected();
        let requested = Some(FailoverReason::Requested);
        assert!(!failover.follow("m0:6388", requested) && !failover.follow("m2:6388", requested));
        assert_eq!((failover.at(), failover.connected()), (0, None));
        assert!(failover.follow("m1:6388", requested));
        let (from, why) = (0, FailoverReason::Requested);
        assert_eq!((failover.at(), failover.connected()), (1, Some(Switch { from, why })));
    }

    #[test]
    fn one_that_starts_again_goes_on_where_it_was() {
        let endpoints: Vec<_> = ["a:1", "b:1"].map(|text| Endpoint::parse(text).unwrap()).into();
        let at = |text| Failover::new(Policy::Standby, endpoints.clone(), text).at();
        assert_eq!((at("a:1"), at("b:1"), at("c:1")), (0, 1, 0));
    }

    #[test]
    fn the_guard_covers_the_longest_lease_and_a_margin_unless_it_is_fixed() {
        let start = Instant::now();
        let secs = Duration::from_secs;
        let mut guard = TakeoverDelay::new(None, secs(40), start);
        assert!(!guard.note_ttl(secs(10)));
        assert_eq!(guard.until(), start + secs(42));
        assert!(guard.note_ttl(secs(100)));
        guard.lost_contact(start + secs(7));
        assert_eq!(guard.until(), start + secs(7) + secs(105));
        let mut fixed = TakeoverDelay::new(Some(secs(3)), secs(40), start);
        fixed.note_ttl(secs(100));
        assert_eq!(fixed.until(), start + secs(3));
    }
}
