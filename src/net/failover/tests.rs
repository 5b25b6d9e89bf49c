//! Tests of which endpoint is next, and when.

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
fn a_redirect_to_a_member_is_followed_at_once_regardless_of_letter_case() {
    let mut failover = failover(Policy::Cluster, 3);
    assert_eq!(redirected(&mut failover, Some("M2:6388")), at("m2", Pace::AtOnce));
    assert_eq!(failover.connected(), None);
    assert_eq!(redirected(&mut failover, Some("m1:6388")), at("m1", Pace::AtOnce));
    let (from, why) = (2, FailoverReason::Deposed);
    assert_eq!(failover.connected(), Some(Switch { from, why }));
}

#[test]
fn after_a_redirect_to_an_unknown_address_or_without_an_address_the_next_member_is_tried() {
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
fn members_that_the_leader_names_are_tried_if_their_hosts_are_allowed() {
    let mut failover = admitting(1, "10.0.0.0/8");
    failover.note_members(["10.0.0.1:1", "M0:6388", "n2", "11.0.0.1:1", "10.0.0.1:1"]);
    assert_eq!(failover.len(), 2);
    assert_eq!(failed(&mut failover), ("10.0.0.1:1".into(), Pace::AtOnce));
    let mut standby = super::Failover::new(Policy::Standby, failover.endpoints.clone(), "");
    standby.note_members(["10.0.0.9:1"]);
    assert_eq!(standby.len(), 2, "only clusters have members that join");
}

#[test]
fn the_number_of_found_members_is_limited_and_the_one_in_use_is_kept() {
    let mut failover = admitting(1, "10.0.0.0/8");
    let address = |last: usize| format!("10.0.0.{last}:1");
    assert_eq!(failover.redirected(Some(&address(0))), Pace::AtOnce);
    failover.connected();
    for last in 1..100 {
        failover.note_members([&*address(last)]);
        assert!(failover.len() <= 1 + MOST_FOUND);
        assert_eq!(failover.current().to_string(), address(0));
    }
    let known = |wanted: String| failover.endpoints.iter().any(|known| **known.shared_text() == wanted);
    assert!(known("m0:6388".into()) && known(address(99)) && known(address(0)) && !known(address(50)));
}

#[test]
fn a_restart_continues_at_a_found_member() {
    let failover = failover(Policy::Cluster, 2).admitting(Admission::parse(["*.joined"]).unwrap(), "a.joined:1");
    assert_eq!(failover.current().to_string(), "a.joined:1");
}

#[test]
fn redirects_between_members_are_followed_a_limited_number_of_times_before_a_pause() {
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
fn a_standby_is_asked_only_after_all_leases_of_the_primary_are_over() {
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

/// This holds however the attempts at the primary fail, and whatever the reconnect policy is.
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
            assert!(late <= LAST_ATTEMPT, "{late:?} after {delay:?}");
        }
    }
}

/// A connection that is lost again and again is not opened again without a pause, however short the delay is.
#[test]
fn a_short_delay_still_leaves_a_pause() {
    let policy = ReconnectPolicy::exponential(Duration::from_secs(1), Duration::from_secs(1));
    let mut failover = failover(Policy::Standby, 2);
    let now = Instant::now();
    for delay in [Duration::ZERO, Duration::from_nanos(1), REOPEN_PAUSE / 2] {
        let pause = failover.lost(true, now, now + delay).pause(&mut policy.start());
        assert!(pause >= REOPEN_PAUSE, "{delay:?}: {pause:?}");
    }
}

#[test]
fn after_a_useless_connection_the_other_members_are_tried_first() {
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
fn follow_adopts_only_a_known_endpoint() {
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
fn a_restart_continues_at_the_last_endpoint() {
    let endpoints: Vec<_> = ["a:1", "b:1"].map(|text| Endpoint::parse(text).unwrap()).into();
    let at = |text| Failover::new(Policy::Standby, endpoints.clone(), text).at();
    assert_eq!((at("a:1"), at("b:1"), at("c:1")), (0, 1, 0));
}

#[test]
fn each_reason_has_its_name_in_metrics() {
    assert_eq!(
        FailoverReason::ALL.map(FailoverReason::as_str),
        ["lost", "deposed", "requested"]
    );
}
