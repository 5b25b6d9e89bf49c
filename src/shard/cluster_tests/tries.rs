//! Tests of tries that may have been granted although no answer arrived.

use super::*;

/// Acquires a lease on `k` that continues at the next leader, and loses a try of the same key.
fn held_and_lost(target: Target) -> (Bench, HeldLease, LaneId, Caller) {
    let mut bench = Bench::keeping(60 * SECOND);
    bench.target = target;
    bench.ttl = Ttl::from_secs(10);
    let lease = bench.hold("k");
    bench.ttl = Ttl::from_secs(2);
    let (lane, caller) = lost_try(&mut bench);
    renewed(&mut bench);
    (bench, lease, lane, caller)
}

#[test]
fn a_try_whose_connection_broke_is_asked_again_under_the_same_name_and_its_grant_is_found() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = lost_try(&mut bench);
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(5)));
    assert!(
        is_waiting(&mut caller),
        "the age of the grant is unknown before its confirmation"
    );
    confirmed(&mut bench);
    let lease = lease(&mut caller);
    assert_eq!(lease.cell.token, grant(5).token);
    // The lease now belongs to the pipelined connection, so the other connection may end.
    assert_eq!(bench.finished, [lane]);
    bench.cut(lane);
    assert_eq!(state(&bench, &lease), LeaseState::Held);
}

#[test]
fn a_try_that_a_deposed_leader_refused_is_asked_again_under_the_same_name() {
    let mut bench = Bench::cluster(|_| {});
    for (number, refused) in [(5, Status::NotLeader(None)), (6, Status::Draining)] {
        let mut caller = tries(&mut bench);
        let before = bench.pipelined();
        let name = name_of(&bench, before);
        bench.answer_to(before, RequestKind::Try, Response::Refused(refused));
        assert!(!bench.has_sent(RequestKind::Repeat));
        bench.leader_is_found();
        let (lane, presented) = reopened(&mut bench);
        assert_eq!(presented, name);
        bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(number)));
        confirmed(&mut bench);
        lease(&mut caller);
        bench.sent.clear();
    }
}

#[test]
fn the_grant_of_a_lost_try_is_released_if_its_caller_is_gone() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, caller) = lost_try(&mut bench);
    drop(caller);
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(5)));
    bench.sent(RequestKind::Release);
}

#[test]
fn a_lost_try_without_a_grant_learns_that_the_key_is_held_and_leaves_no_position() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = lost_try(&mut bench);
    bench.answer_to(lane, RequestKind::Repeat, Response::TimedOut);
    assert!(is_busy(&mut caller));
    let request = bench.sent_on(lane, RequestKind::GiveUp);
    assert!(bench.finished.is_empty());
    bench.answer(lane, request, Response::Refused(Status::NotEnqueued));
    bench.pass(10 * SECOND);
    assert!(bench.closed.contains(&lane) || bench.finished.contains(&lane));
}

#[test]
fn a_lost_try_is_repeated_as_often_as_redirects_are_followed() {
    let mut bench = Bench::cluster(|_| {});
    let (mut lane, mut caller) = lost_try(&mut bench);
    for _ in 0..2 {
        bench.cut_unanswered(lane, RequestKind::Repeat);
        bench.pass(2 * SECOND);
        lane = reopened(&mut bench).0;
    }
    bench.cut_unanswered(lane, RequestKind::Repeat);
    assert_eq!(failed(&mut caller), ErrorKind::Disconnected);
    assert!(bench.shard.repeats.is_empty());
}

#[test]
fn a_lost_try_at_a_standalone_server_fails() {
    let mut bench = Bench::connected(|_| {});
    let mut caller = tries(&mut bench);
    bench.cut_unanswered(bench.pipelined(), RequestKind::Try);
    assert_eq!(failed(&mut caller), ErrorKind::Disconnected);
}

#[test]
fn a_waiting_caller_gets_the_grant_of_a_lost_try_of_its_key() {
    let mut bench = Bench::cluster(|settings| settings.exclusive = 1);
    let (_, _other) = waits(&mut bench, "other");
    let mut caller = asks_to_wait(&mut bench, "k");
    bench.pass(SECOND);
    bench.cut_unanswered(bench.pipelined(), RequestKind::Probe);
    bench.leader_is_found();
    let (lane, _) = reopened(&mut bench);
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(5)));
    confirmed(&mut bench);
    assert_eq!(lease(&mut caller).cell.token, grant(5).token);
}

#[test]
fn a_lease_that_a_lost_try_finds_is_not_handed_out_twice() {
    let (mut bench, lease, lane, mut caller) = held_and_lost(Target::Lock);
    // There are server builds whose renewals do not move a lease to another connection. They answer like this.
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(1)));
    assert!(is_busy(&mut caller), "this client itself holds the lock");
    // The server has restarted the lease with the TTL of the try, so the lease must be renewed with its own TTL.
    assert!(lease.cell.remaining_at(bench.now.into()) <= 2 * SECOND);
    answers_with_ttl(&mut bench, RequestKind::Renew, 10, Response::Renewed(Some(10)));
    assert_eq!(state(&bench, &lease), LeaseState::Held);
    assert!(lease.cell.remaining_at(bench.now.into()) > 9 * SECOND);
}

#[test]
fn a_lost_try_of_a_semaphore_is_repeated_until_it_finds_a_grant_without_a_caller() {
    let target = Target::Semaphore(Limit::new(3).unwrap());
    let (mut bench, held, lane, mut caller) = held_and_lost(target);
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(1)));
    assert!(is_waiting(&mut caller));
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(2)));
    confirmed(&mut bench);
    let found = lease(&mut caller);
    assert_ne!(found.cell.token, held.cell.token);
}

#[test]
fn a_lease_that_is_being_released_is_not_the_grant_of_a_lost_try() {
    let mut bench = Bench::keeping(60 * SECOND);
    let held = bench.hold("k");
    bench.handle(Input::Release {
        id: held.id(),
        reply: None,
    });
    std::mem::forget(held);
    let (lane, mut caller) = lost_try(&mut bench);
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(1)));
    assert!(is_waiting(&mut caller));
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(2)));
    confirmed(&mut bench);
    assert_eq!(lease(&mut caller).cell.token, grant(2).token);
}

#[test]
fn with_fail_fast_lost_tries_fail_without_a_leader_and_their_grants_are_released() {
    let mut bench = Bench::cluster(|settings| settings.fail_fast = true);
    let mut caller = tries(&mut bench);
    bench.cut_unanswered(bench.pipelined(), RequestKind::Try);
    for _ in 0..3 {
        bench.fail(bench.pipelined());
    }
    assert_eq!(failed(&mut caller), ErrorKind::Unavailable);
    bench.leader_is_found();
    let (lane, _) = reopened(&mut bench);
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(5)));
    bench.sent(RequestKind::Release);
}

#[test]
fn a_shutdown_waits_for_the_grants_of_lost_tries_and_releases_them() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = lost_try(&mut bench);
    let until = bench.now + 5 * SECOND;
    bench.handle(Input::Shutdown(input::Shutdown { until, reply: None }));
    assert!(bench.report.is_none());
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(5)));
    assert_eq!(failed(&mut caller), ErrorKind::Shutdown);
    let (over, request) = bench.sent(RequestKind::Release);
    bench.answer(over, request, Response::Done);
    assert!(bench.report.is_some());
}
