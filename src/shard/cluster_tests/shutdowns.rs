//! Tests of a leader that shuts down in an orderly way.

use super::*;

#[test]
fn a_wait_that_a_leader_ends_with_a_bare_error_goes_on_at_the_next() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    bench.answer_to(lane, RequestKind::Wait, Response::Refused(Status::Error));
    assert!(is_waiting(&mut caller));
    let again = goes_on(&mut bench);
    bench.answer_to(again, RequestKind::Wait, Response::Granted(grant(1)));
    confirmed(&mut bench);
    assert_eq!(state(&bench, &lease(&mut caller)), LeaseState::Held);
}

#[test]
fn a_ticket_whose_wait_a_leader_ends_with_a_bare_error_goes_on_at_the_next() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = collects(&mut bench, SECOND);
    bench.answer_to(lane, RequestKind::Collect, Response::Refused(Status::Error));
    assert!(is_waiting(&mut caller));
    let again = goes_on(&mut bench);
    bench.answer_to(again, RequestKind::Rejoin, Response::Queued);
    bench.answer_to(again, RequestKind::Collect, Response::Granted(grant(1)));
    confirmed(&mut bench);
    lease(&mut caller);
}

#[test]
fn a_wait_that_a_standalone_server_ends_with_a_bare_error_fails() {
    let mut bench = Bench::connected(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    bench.answer_to(lane, RequestKind::Wait, Response::Refused(Status::Error));
    assert_eq!(failed(&mut caller), ErrorKind::Draining);
}

#[test]
fn a_release_that_a_draining_leader_refuses_goes_on_at_the_next_and_counts_as_done_if_nothing_is_held() {
    let mut bench = Bench::cluster(|_| {});
    let held = bench.hold("k");
    let id = held.id();
    let reply = Some(ReleaseReply::new(&held.cell, None));
    let mut answer = ReleaseAnswer::new(&held.cell, None);
    bench.handle(Input::Release { id, reply });
    bench.answer_to(
        bench.pipelined(),
        RequestKind::Release,
        Response::Refused(Status::Draining),
    );
    let next = bench.leader_is_found();
    // The lease has ended at the draining leader.
    bench.answer_to(next, RequestKind::Release, Response::Refused(Status::Error));
    assert!(answer.try_recv().unwrap().is_ok());
}

#[test]
fn a_wait_whose_grant_ends_with_a_draining_leader_before_its_confirmation_goes_on_at_the_next() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    bench.cut_unanswered(lane, RequestKind::Wait);
    let again = goes_on(&mut bench);
    bench.answer_to(again, RequestKind::Wait, Response::Granted(grant(1)));
    bench.answer_to(
        bench.pipelined(),
        RequestKind::Confirm,
        Response::Refused(Status::Draining),
    );
    bench.cut(again);
    let next = bench.leader_is_found();
    bench.answer_to(next, RequestKind::Confirm, Response::Refused(Status::Error));
    assert!(is_waiting(&mut caller), "the caller has time left");
    let lane = bench.opens();
    bench.answer_to(lane, RequestKind::Wait, Response::Granted(grant(2)));
    assert_eq!(lease(&mut caller).cell.token, grant(2).token);
}

#[test]
fn a_try_whose_grant_ends_before_its_confirmation_is_repeated() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = lost_try(&mut bench);
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(5)));
    let pipelined = bench.pipelined();
    bench.answer_to(pipelined, RequestKind::Confirm, Response::Refused(Status::Error));
    assert!(is_waiting(&mut caller));
    bench.answer_to(pipelined, RequestKind::Try, Response::TimedOut);
    assert!(is_busy(&mut caller));
}

#[test]
fn a_connection_whose_wait_a_shutdown_ends_stays_open_while_it_owns_leases() {
    let mut bench = Bench::cluster(|settings| settings.exclusive = 1);
    bench.policy.never = true;
    let mut leases = Vec::new();
    for (name, number) in [("k", 1), ("another", 2)] {
        let (lane, mut holder) = waits(&mut bench, name);
        bench.answer_to(lane, RequestKind::Wait, Response::Granted(grant(number)));
        leases.push((lane, lease(&mut holder)));
    }
    let (lane, lease) = leases.swap_remove(0);
    let _waiting = asks_to_wait(&mut bench, "other");
    // The limits allow no further connection.
    bench.answer_to(lane, RequestKind::Wait, Response::Refused(Status::Error));
    assert!(
        !bench.closed.contains(&lane),
        "the server would release the leases of the connection"
    );
    assert_eq!(state(&bench, &lease), LeaseState::Held);
    bench.cut(lane);
    assert!(is_lost(&bench, &lease, LostReason::Disconnected));
}
