//! Tests of the registry with a clock that the test controls.

use super::*;
use crate::lease::schedule::Pace;
use crate::lease::state::LeaseState;
use crate::telemetry::sink::ShardSink;
use crate::types::{Fence, Token, Ttl};

const RENEWAL_BATCHING: Batching = Batching {
    within: Duration::from_millis(10),
    most: 3,
};

fn registry(renew_ratio: f64) -> Registry {
    let schedule = Schedule {
        pace: Pace::new(renew_ratio, 0.1).unwrap(),
        margin: None,
        longest_suspend: None,
    };
    Registry::new(
        schedule,
        fastrand::Rng::with_seed(7),
        LeaseMetrics::new(&ShardSink::nowhere()),
        Instant::now(),
    )
}

fn ttl(secs: u64) -> Ttl {
    Ttl::from_secs(secs).unwrap()
}

fn insert(registry: &mut Registry, secs: u64, sent_at: Instant, policy: RenewTerms) -> (LeaseId, Arc<LeaseCell>) {
    let grant = Grant::new(Token::compose(Fence(1), 2), ttl(secs));
    let times = GrantTimes {
        sent_at: sent_at.into(),
        now: sent_at,
    };
    registry.insert(Key::new("k").unwrap(), Target::Lock, grant, times, 1, policy)
}

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

/// The limit on renewals changes while the lease is held.
#[tokio::test(start_paused = true)]
async fn the_last_limit_on_renewals_counts() {
    let mut registry = registry(0.5);
    let start = Instant::now();
    let (id, cell) = insert(&mut registry, 10, start, RenewTerms::default());
    registry.renew_for(id, secs(7.0), start);
    let due = registry.next_due().unwrap();
    assert!(due <= start + secs(5.0));
    tokio::time::advance(due - start).await;
    assert_eq!(registry.tick(due, RENEWAL_BATCHING, true).renew, vec![id]);
    // The time ended while the renewal was under way. The lease keeps its end, whatever TTL the server answers with.
    registry.renew_for(id, Duration::ZERO, due);
    assert!(registry.renewed(id, 1, due.into(), Some(10), due));
    assert_eq!(registry.next_due(), Some(start + secs(9.5)));
    tokio::time::advance(start + secs(9.5) - due).await;
    assert_eq!(
        registry.tick(start + secs(9.5), RENEWAL_BATCHING, true).expired.count(),
        1
    );
    assert_eq!(cell.state(), LeaseState::Lost(LostReason::Expired));
    registry.renew_for(id, secs(100.0), Instant::now());
    assert_eq!(
        (registry.held(), registry.next_due()),
        (0, None),
        "a lost lease stays lost"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_in_time_and_lost_before_the_server_may_grant_it_to_others() {
    let mut registry = registry(0.5);
    let start = Instant::now();
    let (id, cell) = insert(&mut registry, 10, start, RenewTerms::default());
    let due = registry.next_due().unwrap();
    assert!(due >= start + secs(4.5) && due <= start + secs(5.0));
    tokio::time::advance(due - start).await;
    assert_eq!(registry.tick(due, RENEWAL_BATCHING, true).renew, vec![id]);

    registry.renewed(id, 1, due.into(), Some(10), Instant::now());
    assert!(registry.next_due() >= Some(due + secs(4.5)));
    let second = registry.next_due().unwrap();
    assert_eq!(registry.tick(second, RENEWAL_BATCHING, true).renew, vec![id]);
    // The second renewal is not answered, so the deadline of the first one stands.
    assert_eq!(registry.next_due(), Some(due + secs(9.5)));
    assert_eq!(
        registry.tick(due + secs(9.5) - secs(0.005), RENEWAL_BATCHING, true),
        Due::default(),
        "the lease is not reported as lost early"
    );
    assert_eq!(cell.state(), LeaseState::Held);
    assert_eq!(
        registry.tick(due + secs(9.5), RENEWAL_BATCHING, true).expired.count(),
        1
    );
    assert_eq!(cell.state(), LeaseState::Lost(LostReason::Expired));
    // The late answer changes nothing.
    registry.renewed(id, 1, second.into(), Some(10), Instant::now());
    assert_eq!(cell.state(), LeaseState::Lost(LostReason::Expired));
    assert_eq!((registry.held(), registry.next_due()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_revive_a_lease_that_was_seen_to_be_lost() {
    let mut registry = registry(0.5);
    let start = Instant::now();
    let (id, cell) = insert(&mut registry, 10, start, RenewTerms::default());
    registry.tick(start + secs(5.0), RENEWAL_BATCHING, true);
    tokio::time::advance(secs(9.6)).await;
    assert_eq!(cell.state(), LeaseState::Lost(LostReason::Expired));
    registry.renewed(id, 1, (start + secs(5.0)).into(), Some(10), Instant::now());
    assert_eq!(cell.state(), LeaseState::Lost(LostReason::Expired));
    assert_eq!(registry.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_renewals_are_kept_for_the_next() {
    let mut registry = registry(0.5);
    let start = Instant::now();
    let (id, _cell) = insert(&mut registry, 10, start, RenewTerms::default());
    assert_eq!(registry.tick(start + secs(5.0), RENEWAL_BATCHING, false).renew, vec![]);
    assert_eq!(registry.take_overdue(), vec![id]);
    assert_eq!(registry.take_overdue(), vec![], "the renewal is returned once");
    registry.renewal_failed(id);
    assert_eq!(registry.take_overdue(), vec![id]);
}

#[tokio::test(start_paused = true)]
async fn the_leases_of_a_lost_connection_are_lost_or_suspect() {
    let mut registry = registry(0.5);
    let start = Instant::now();
    let (id, cell) = insert(&mut registry, 10, start, RenewTerms::default());
    assert!(
        registry
            .owner_gone(2, Survival::None, LostReason::Disconnected, Instant::now())
            .is_empty(),
        "another connection owns the lease"
    );
    assert!(
        registry
            .owner_gone(1, Survival::WholeTtl, LostReason::Disconnected, Instant::now())
            .is_empty()
    );
    assert_eq!(cell.state(), LeaseState::Suspect);
    assert_eq!(registry.take_overdue(), vec![id]);
    registry.renewed(id, 1, start.into(), Some(10), Instant::now());
    assert_eq!(cell.state(), LeaseState::Held);
    assert_eq!(
        registry
            .owner_gone(1, Survival::None, LostReason::Disconnected, Instant::now())
            .len(),
        1
    );
    assert_eq!(cell.state(), LeaseState::Lost(LostReason::Disconnected));
}

#[tokio::test(start_paused = true)]
async fn renewals_stop_as_the_terms_of_the_lease_say() {
    let start = Instant::now();
    let mut registry = registry(0.5);
    let never = RenewTerms {
        never: true,
        ..RenewTerms::default()
    };
    insert(&mut registry, 10, start, never);
    assert_eq!(registry.next_due(), Some(start + secs(9.5)));

    let mut registry = super::tests::registry(0.5);
    let hold = RenewTerms {
        max_hold: Some(secs(7.0)),
        ..RenewTerms::default()
    };
    let (id, _cell) = insert(&mut registry, 10, start, hold);
    let due = registry.next_due().unwrap();
    assert_eq!(registry.tick(due, RENEWAL_BATCHING, true).renew, vec![id]);
    registry.renewed(id, 1, due.into(), Some(10), Instant::now());
    assert_eq!(
        registry.next_due(),
        Some(due + secs(9.5)),
        "the next renewal would come later than 7 s after the grant"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_keeps_its_own_renew_ratio() {
    let start = Instant::now();
    let mut registry = registry(0.5);
    let early = RenewTerms {
        pace: Pace::new(0.2, 0.1).ok(),
        ..RenewTerms::default()
    };
    let (id, _cell) = insert(&mut registry, 10, start, early);
    let mut sent_at = start;
    for _ in 0..3 {
        let due = registry.next_due().unwrap();
        assert!(due >= sent_at + secs(1.8) && due <= sent_at + secs(2.0));
        assert_eq!(registry.tick(due, RENEWAL_BATCHING, true).renew, vec![id]);
        registry.renewed(id, 1, due.into(), Some(10), Instant::now());
        sent_at = due;
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_neither_renewed_nor_reported() {
    let mut registry = registry(0.5);
    let start = Instant::now();
    let (id, cell) = insert(&mut registry, 10, start, RenewTerms::default());
    registry.tick(start + secs(5.0), RENEWAL_BATCHING, true);
    assert!(registry.begin_release(id, Instant::now()).is_some());
    registry.renewed(id, 1, (start + secs(5.0)).into(), Some(10), Instant::now());
    assert_eq!((cell.state(), registry.next_due()), (LeaseState::Released, None));
    registry.remove(id, Instant::now());
    let (other, _) = insert(&mut registry, 10, start, RenewTerms::default());
    assert_ne!(id, other);
    assert!(
        registry.claim(id).is_none(),
        "an old identifier does not name a new lease"
    );
}

#[test]
fn a_smaller_ttl_from_the_server_counts_unless_it_is_only_rounded_down() {
    let given = |asked, left| granted_ttl(ttl(asked), left).map(Ttl::as_secs);
    assert_eq!(
        (given(10, None), given(10, Some(10)), given(10, Some(9))),
        (Some(10), Some(10), Some(10))
    );
    assert_eq!(
        (given(1, Some(0)), given(10, Some(8)), given(10, Some(0))),
        (Some(1), Some(8), None)
    );
    assert_eq!(given(10, Some(99)), Some(10));
}

/// The holder may keep the guard of a lost lease for any time, and meanwhile the session may be granted the same token
/// again.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_granted_again_belongs_to_the_later_lease() {
    let mut registry = registry(0.5).remembering_tokens(true);
    let (now, token) = (Instant::now(), Token::compose(Fence(1), 2));
    let (first, _lost) = insert(&mut registry, 10, now, RenewTerms::default());
    registry.lose(first, LostReason::Expired, now);
    assert!(matches!(registry.know(&token), Known::Lost));
    let (second, _held) = insert(&mut registry, 10, now, RenewTerms::default());
    registry.remove(first, now);
    assert!(matches!(registry.know(&token), Known::Held(id) if id == second));
    registry.remove(second, now);
    assert!(matches!(registry.know(&token), Known::Not));
}

#[tokio::test]
async fn holders_learn_of_the_end_of_the_registry() {
    let mut registry = registry(0.5);
    let (_, cell) = insert(&mut registry, 10, Instant::now(), RenewTerms::default());
    registry.lose_all(LostReason::ShardGone, Instant::now());
    assert_eq!(cell.state(), LeaseState::Lost(LostReason::ShardGone));
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_released_once_and_not_renewed_after_that() {
    let mut registry = registry(0.5);
    let start = Instant::now();
    let (id, _cell) = insert(&mut registry, 10, start, RenewTerms::default());
    assert!(registry.begin_release(id, Instant::now()).is_some());
    assert_eq!(registry.next_due(), None);
    assert_eq!(registry.tick(start + secs(9.9), RENEWAL_BATCHING, true), Due::default());
    assert!(
        registry.take_overdue().is_empty(),
        "a lease that is being released is not renewed after a reconnect"
    );
    assert!(registry.begin_release(id, Instant::now()).is_none());
    assert_eq!(registry.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_lease_is_lost_after_its_survival_unless_it_is_renewed() {
    let mut registry = registry(0.5);
    let now = Instant::now();
    let (id, cell) = insert(&mut registry, 100, now, RenewTerms::default());
    registry.suspect_all(Survival::Until(now + secs(20.0)));
    assert_eq!(cell.state(), LeaseState::Suspect);
    assert_eq!(cell.remaining(), secs(20.0));
    assert_eq!(registry.next_due(), Some(now + secs(20.0)));
    assert_eq!(registry.take_overdue(), [id]);
    tokio::time::advance(secs(1.0)).await;
    registry.renewed(id, 1, Instant::now().into(), None, Instant::now());
    assert_eq!((cell.state(), cell.remaining()), (LeaseState::Held, secs(95.0)));
    // After a change of the leader, the new one knows the lease. A survival never prolongs the lease.
    registry.suspect_all(Survival::WholeTtl);
    assert_eq!(cell.remaining(), secs(95.0));
    registry.suspect_all(Survival::Until(now + secs(1000.0)));
    assert_eq!(cell.remaining(), secs(95.0));
    registry.suspect_all(Survival::Until(now + secs(2.0)));
    tokio::time::advance(secs(1.0)).await;
    assert_eq!(
        cell.state(),
        LeaseState::Lost(LostReason::Expired),
        "the lease is lost without any input"
    );
    registry.renewed(id, 1, Instant::now().into(), None, Instant::now());
    assert_eq!(registry.tick(Instant::now(), RENEWAL_BATCHING, true).expired.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_lease_without_renewals_is_checked_and_keeps_its_end() {
    let mut registry = registry(0.5);
    let now = Instant::now();
    let never = RenewTerms {
        never: true,
        ..RenewTerms::default()
    };
    let (id, cell) = insert(&mut registry, 100, now, never);
    tokio::time::advance(secs(50.0)).await;
    registry.suspect_all(Survival::Until(now + secs(60.0)));
    assert_eq!(
        registry.take_overdue(),
        [id],
        "a renewal must show whether the lease is held"
    );
    registry.renewed(id, 1, Instant::now().into(), None, Instant::now());
    assert_eq!((cell.state(), cell.remaining()), (LeaseState::Held, secs(45.0)));
    assert!(registry.take_overdue().is_empty());
    assert_eq!(registry.next_due(), Some(now + secs(95.0)));
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_taken_over_by_a_renewal_unless_it_is_never_renewed() {
    let mut registry = registry(0.5);
    let now = Instant::now();
    let (id, _) = insert(&mut registry, 100, now, RenewTerms::default());
    let never = RenewTerms {
        never: true,
        ..RenewTerms::default()
    };
    let (left, _) = insert(&mut registry, 100, now, never);
    assert!(registry.renew_now(id, true));
    assert!(!registry.renew_now(id, true), "a renewal is under way");
    assert!(!registry.renew_now(left, true));
    assert_eq!(registry.change_owner(id, 7), Some(1));
    assert_eq!(
        registry.change_owner(id, 7),
        None,
        "the connection owns the lease already"
    );
    assert_eq!(registry.claim(id).unwrap().owner, 7);
    assert_eq!(registry.lose_all(LostReason::Failback, Instant::now()).count(), 2);
    assert_eq!(registry.change_owner(id, 8), None, "a lost lease keeps its owner");
    assert_eq!(registry.lose_all(LostReason::Failback, Instant::now()).count(), 0);
}

/// Renewals and deadlines become due earlier. A renewal that was sent before the suspend and answered after it counts
/// from the moment at which it was sent.
#[tokio::test(start_paused = true)]
async fn a_suspend_brings_renewals_and_deadlines_forward() {
    let mut registry = registry(0.5);
    let start = Instant::now();
    let (id, cell) = insert(&mut registry, 10, start, RenewTerms::default());
    let (_, other) = insert(&mut registry, 10, start, RenewTerms::default());
    let renewal = registry.next_due().unwrap();
    registry.note_suspended(secs(3.0), start);
    assert_eq!(registry.next_due(), Some(renewal - secs(3.0)));
    registry.note_suspended(secs(3.0), start);
    assert_eq!(
        registry.next_due(),
        Some(renewal - secs(3.0)),
        "the same total changes nothing"
    );
    let due = registry.tick(start + secs(2.0), RENEWAL_BATCHING, true);
    assert_eq!(due.renew.len(), 2);
    // Sent before a suspend of 4 s, answered after it.
    let sent = registry.moment(start + secs(2.0));
    registry.note_suspended(secs(7.0), start + secs(2.0));
    assert!(registry.renewed(id, 1, sent, Some(10), start + secs(2.0)));
    let now = registry.moment(start + secs(2.0));
    assert_eq!(cell.remaining_at(now), secs(9.5 - 4.0));
    // The other lease was not renewed: 9 s of it are over.
    assert_eq!(other.remaining_at(now), secs(0.5));
    registry.note_suspended(secs(7.5), start + secs(2.0));
    assert_eq!(
        registry.tick(start + secs(2.0), RENEWAL_BATCHING, true).expired.count(),
        1
    );
    assert_eq!(
        other.state_at(registry.moment(start)),
        LeaseState::Lost(LostReason::Expired)
    );
}

/// A lease with a long TTL is lost, too, because the server may have given up the connection.
#[tokio::test(start_paused = true)]
async fn a_long_suspend_ends_leases_that_depend_on_their_connection() {
    let start = Instant::now();
    let (insert, of) = (
        |registry: &mut Registry| {
            let times = GrantTimes {
                sent_at: start.into(),
                now: start,
            };
            let grant = Grant::new(Token::NEVER_ISSUED, Ttl::from_secs(600).unwrap());
            registry.insert(
                Key::new("k").unwrap(),
                Target::Lock,
                grant,
                times,
                1,
                RenewTerms::default(),
            )
        },
        |longest_suspend| {
            let mut registry = registry(0.5);
            registry.schedule.longest_suspend = longest_suspend;
            registry
        },
    );
    let mut depends = of(Some(secs(12.0)));
    let (id, cell) = insert(&mut depends);
    depends.note_suspended(secs(11.0), start);
    assert_eq!(depends.tick(start, RENEWAL_BATCHING, true), Due::default());
    // A renewal over the owning connection shows that this connection is still open. A renewal over another connection
    // does not.
    for (from, is_lost) in [(1, false), (2, true)] {
        assert!(depends.renew_now(id, true));
        let sent = depends.moment(start);
        assert!(depends.renewed(id, from, sent, None, start));
        let total = depends.suspended + secs(11.0);
        depends.note_suspended(total, start);
        let expired = depends.tick(start, RENEWAL_BATCHING, true).expired.count();
        assert_eq!(expired, usize::from(is_lost), "{from}");
        let state = cell.state_at(depends.moment(start));
        assert_eq!(
            matches!(state, LeaseState::Lost(LostReason::Expired)),
            is_lost,
            "{from}"
        );
    }
    let mut survives = of(None);
    let (_, cell) = insert(&mut survives);
    survives.note_suspended(secs(500.0), start);
    assert_eq!(cell.state_at(survives.moment(start)), LeaseState::Held);
}

#[test]
fn renewals_that_are_due_soon_are_sent_with_one_that_is_due_up_to_a_maximum() {
    let mut registry = registry(0.5);
    let start = Instant::now();
    for _ in 0..100 {
        insert(&mut registry, 10, start, RenewTerms::default());
    }
    // The renewals are spread over half a second, so some become due within 10 ms of another one. Those beyond the
    // maximum are left for the next tick.
    let mut renewed = 0;
    let mut largest = 0;
    while let Some(due) = registry.next_due().filter(|due| *due < start + secs(7.0)) {
        let now = registry.tick(due, RENEWAL_BATCHING, true).renew.len();
        assert!((1..=RENEWAL_BATCHING.most).contains(&now), "{now}");
        (renewed, largest) = (renewed + now, largest.max(now));
    }
    assert_eq!((renewed, largest), (100, RENEWAL_BATCHING.most));
    // All renewals that are due are sent together, even if there are more than the maximum.
    let late = start + secs(5.6);
    let mut registry = self::registry(0.5);
    for _ in 0..100 {
        insert(&mut registry, 10, start, RenewTerms::default());
    }
    assert_eq!(registry.tick(late, RENEWAL_BATCHING, true).renew.len(), 100);
}

/// The server may have answered the renewal under way before the lease was removed, so only the second answer counts.
#[tokio::test(start_paused = true)]
async fn a_check_of_a_lease_sends_another_renewal_while_one_is_under_way() {
    let mut registry = registry(0.5);
    let start = Instant::now();
    let (id, cell) = insert(&mut registry, 10, start, RenewTerms::default());
    let token = cell.token;
    assert_eq!(registry.find(&Token::NEVER_ISSUED), None);
    let due = registry.next_due().unwrap();
    tokio::time::advance(due - start).await;
    assert_eq!(registry.tick(due, RENEWAL_BATCHING, true).renew, vec![id]);
    assert_eq!(registry.find(&token), Some(id));
    assert_eq!(registry.check_now(id, true), Some(id));
    assert!(registry.renewed(id, 1, due.into(), Some(10), Instant::now()));
    assert!(registry.renewal_rejected(id, Instant::now()));
    assert_eq!(cell.state(), LeaseState::Lost(LostReason::Rejected));
    assert_eq!(registry.find(&token), None);
}

/// The renewal is sent as soon as there is a connection.
#[tokio::test(start_paused = true)]
async fn a_check_of_a_lease_without_a_connection_is_overdue() {
    let mut registry = registry(0.5);
    let (id, _cell) = insert(&mut registry, 10, Instant::now(), RenewTerms::default());
    assert_eq!(registry.check_now(id, false), None);
    assert_eq!(registry.take_overdue(), vec![id]);
}
