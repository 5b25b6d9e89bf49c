//! Suspect leases.

use super::*;

/// Acquires a lease whose connection then ends.
fn held_and_cut(bench: &mut Bench) -> HeldLease {
    let lease = bench.hold("k");
    bench.cut(bench.pipelined());
    lease
}

/// Acquires a lease, and tries another key. The member answers that it no longer leads. Also returns the connection to
/// this member, and the caller of the try.
fn held_where_deposed(bench: &mut Bench) -> (HeldLease, LaneId, Caller) {
    let lease = bench.hold("k");
    let before = bench.pipelined();
    let caller = bench.acquire("other", Patience::Try);
    bench.answer_to(before, RequestKind::Try, Response::Refused(Status::NotLeader(None)));
    (lease, before, caller)
}

#[test]
fn a_lease_whose_connection_ended_is_lost_at_once_where_the_cluster_is_not_known_to_keep_it() {
    let mut bench = Bench::cluster(|_| {});
    let lease = held_and_cut(&mut bench);
    assert!(is_lost(&bench, &lease, LostReason::Disconnected));
    // The cluster may still have the lease.
    let next = bench.leader_is_found();
    bench.sent_on(next, RequestKind::Release);
}

#[test]
fn a_lease_is_suspect_for_as_long_as_the_cluster_keeps_it() {
    let mut bench = Bench::keeping(4 * SECOND);
    let lease = held_and_cut(&mut bench);
    assert_eq!(state(&bench, &lease), LeaseState::Suspect);
    bench.pass(3 * SECOND);
    assert_eq!(state(&bench, &lease), LeaseState::Suspect);
    bench.pass(SECOND);
    assert!(is_lost(&bench, &lease, LostReason::Expired));
}

#[test]
fn a_suspect_lease_that_a_leader_renews_is_held_again() {
    let mut bench = Bench::keeping(4 * SECOND);
    let lease = held_and_cut(&mut bench);
    bench.leader_is_found();
    renewed(&mut bench);
    assert_eq!(state(&bench, &lease), LeaseState::Held);
    bench.pass(4 * SECOND);
    assert_eq!(state(&bench, &lease), LeaseState::Held);
}

#[test]
fn a_lease_that_survives_a_disconnect_is_suspect_until_its_end() {
    let mut bench = Bench::cluster(|settings| settings.survives_disconnect = true);
    let lease = held_and_cut(&mut bench);
    bench.pass(9 * SECOND);
    assert_eq!(state(&bench, &lease), LeaseState::Suspect);
    bench.pass(SECOND);
    assert!(is_lost(&bench, &lease, LostReason::Expired));
}

#[test]
fn the_connection_to_a_deposed_leader_stands_until_the_next_has_taken_over_the_leases() {
    let mut bench = Bench::cluster(|_| {});
    let (lease, before, mut caller) = held_where_deposed(&mut bench);
    assert_eq!(state(&bench, &lease), LeaseState::Suspect);
    bench.pass(2 * SECOND);
    assert!(
        bench.finished.is_empty(),
        "the member might lead again, and would release the leases of the connection"
    );
    bench.leader_is_found();
    renewed(&mut bench);
    assert_eq!(
        (state(&bench, &lease), bench.finished.clone()),
        (LeaseState::Held, vec![before])
    );
    bench.cut(before);
    assert_eq!(state(&bench, &lease), LeaseState::Held);
    assert!(is_waiting(&mut caller));
}

#[test]
fn a_lease_is_lost_with_the_connection_to_a_deposed_leader_if_no_other_has_confirmed_it() {
    let mut bench = Bench::cluster(|_| {});
    let (lease, before, _caller) = held_where_deposed(&mut bench);
    bench.cut(before);
    assert!(is_lost(&bench, &lease, LostReason::Disconnected));
}

#[test]
fn a_retired_connection_is_finished_when_its_leases_are_lost() {
    let mut bench = Bench::cluster(|_| {});
    let (lease, before, _caller) = held_where_deposed(&mut bench);
    bench.pass(12 * SECOND);
    assert!(is_lost(&bench, &lease, LostReason::Expired));
    assert_eq!(bench.finished, [before]);
}
