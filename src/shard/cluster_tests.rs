//! The shard of a cluster, step by step: what it makes of the answers that members give.

use super::acquire::Patience;
use super::bench::{Bench, SECOND, ask, grant};
use super::held::{Acquired, HeldLease};
use super::rules::RequestKind;
use super::*;
use crate::error::{ErrorKind, Result};
use crate::lease::cell::{LeaseState, LostReason};
use crate::lease::policy::RenewPolicy;
use crate::net::connect::Purpose;
use crate::net::lane::Outgoing;
use crate::protocol::{Request, Response, Status};
use crate::types::{Grant, Limit, Target};

type Caller = tokio::sync::oneshot::Receiver<Result<Acquired>>;

fn lease(caller: &mut Caller) -> HeldLease {
    match caller.try_recv() {
        Ok(Ok(Acquired::Lease(lease))) => lease,
        Ok(Ok(_)) => panic!("it is busy, or queued"),
        Ok(Err(error)) => panic!("{error}"),
        Err(error) => panic!("{error}"),
    }
}

fn state(bench: &Bench, lease: &HeldLease) -> LeaseState {
    lease.cell.state_at(bench.now.into())
}

fn is_busy(caller: &mut Caller) -> bool {
    matches!(caller.try_recv(), Ok(Ok(Acquired::Busy(_))))
}

fn is_waiting(caller: &mut Caller) -> bool {
    matches!(caller.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty))
}

fn failed(caller: &mut Caller) -> ErrorKind {
    match caller.try_recv() {
        Ok(Err(error)) => error.kind(),
        _ => panic!("no error"),
    }
}

fn names_ttl(request: &Outgoing<Pending>) -> u64 {
    match request.request {
        Request::Renew { ttl: Some(ttl), .. } => ttl.as_secs(),
        _ => panic!("it is no renewal with a TTL"),
    }
}

/// A grant as a `w` tells it: with what is left of it.
fn left_of(number: u64, left: u64) -> Response {
    Response::Granted(Grant {
        ttl: Ttl::from_secs(left).unwrap(),
        ..grant(number)
    })
}

/// A wait on the server, over the connection that is returned.
fn waits(bench: &mut Bench, name: &str) -> (LaneId, Caller) {
    let until = bench.now + 60 * SECOND;
    let refusal = progress::Refusal { at: bench.now, own: 0 };
    let caller = bench.acquire(name, Patience::Until(until, refusal));
    let lane = bench.opened();
    bench.up(lane);
    (lane, caller)
}

/// A ticket's place on a connection, and a caller that waits there.
fn collects(bench: &mut Bench, after: Duration) -> (LaneId, Caller) {
    let mut queued = bench.acquire("k", Patience::Enqueue);
    let lane = bench.opened();
    bench.up(lane);
    let request = bench.sent_on(lane, RequestKind::Enqueue);
    bench.answer(lane, request, Response::Queued);
    let Ok(Ok(Acquired::Queued(ticket))) = queued.try_recv() else {
        panic!("it is queued")
    };
    bench.pass(after);
    let (ask, caller) = ask();
    bench.handle(Input::Collect(ticket.id(), bench.now + 60 * SECOND, ask));
    std::mem::forget(ticket);
    (lane, caller)
}

// Tickets.

#[test]
fn a_ticket_is_renewed_with_the_ttl_that_was_asked_for_and_not_with_what_is_left() {
    for policy in [
        RenewPolicy::default(),
        RenewPolicy {
            never: true,
            ..RenewPolicy::default()
        },
    ] {
        let mut bench = Bench::cluster(|_| {});
        bench.ttl = Ttl::from_secs(30);
        bench.policy = policy;
        let (lane, mut caller) = collects(&mut bench, 29 * SECOND + SECOND / 2);
        let request = bench.sent_on(lane, RequestKind::Collect);
        // Less than a second is left, which is told as nothing, and that as the server's default.
        bench.answer(lane, request, left_of(1, 33));
        assert!(is_waiting(&mut caller), "nobody gets it before it is confirmed");
        let pipelined = bench.pipelined();
        let request = bench.sent_on(pipelined, RequestKind::Confirm);
        assert_eq!(names_ttl(&request), 30);
        bench.answer(pipelined, request, Response::Renewed(Some(30)));
        assert_eq!(lease(&mut caller).cell.ttl.as_secs(), 30);
    }
}

#[test]
fn a_ticket_that_was_granted_just_now_is_confirmed_in_a_cluster_all_the_same() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = collects(&mut bench, Duration::ZERO);
    let request = bench.sent_on(lane, RequestKind::Collect);
    bench.answer(lane, request, left_of(1, 9));
    let pipelined = bench.pipelined();
    let request = bench.sent_on(pipelined, RequestKind::Confirm);
    assert_eq!(names_ttl(&request), 10);
    bench.answer(pipelined, request, Response::Refused(Status::LeaseExpired));
    assert_eq!(failed(&mut caller), ErrorKind::LeaseExpired);
}

#[test]
fn a_ticket_without_a_ttl_has_that_of_the_server_as_an_acquire_was_told_it() {
    for (told, expected) in [(Some(20), 20), (None, 33)] {
        let mut bench = Bench::connected(|_| {});
        bench.ttl = None;
        if let Some(told) = told {
            let caller = bench.acquire("other", Patience::Try);
            let pipelined = bench.pipelined();
            let request = bench.sent_on(pipelined, RequestKind::Try);
            bench.answer(pipelined, request, left_of(7, told));
            std::mem::forget(caller);
        }
        let (lane, mut caller) = collects(&mut bench, SECOND);
        let request = bench.sent_on(lane, RequestKind::Collect);
        bench.answer(lane, request, left_of(1, 4));
        let pipelined = bench.pipelined();
        let request = bench.sent_on(pipelined, RequestKind::Confirm);
        assert_eq!(names_ttl(&request), expected);
        bench.answer(pipelined, request, Response::Renewed(Some(expected)));
        assert_eq!(lease(&mut caller).cell.ttl.as_secs(), expected);
    }
}

// An orderly shutdown of the leader.

#[test]
fn a_wait_that_a_leader_ends_with_a_bare_error_goes_on_at_the_next() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    let request = bench.sent_on(lane, RequestKind::Wait);
    bench.answer(lane, request, Response::Refused(Status::Error));
    assert!(is_waiting(&mut caller));
    bench.pass(2 * SECOND);
    let again = bench.opened();
    bench.up(again);
    let request = bench.sent_on(again, RequestKind::Wait);
    bench.answer(again, request, Response::Granted(grant(1)));
    let pipelined = bench.pipelined();
    let request = bench.sent_on(pipelined, RequestKind::Confirm);
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
    assert_eq!(state(&bench, &lease(&mut caller)), LeaseState::Held);
}

#[test]
fn a_ticket_whose_wait_a_leader_ends_with_a_bare_error_goes_on_at_the_next() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = collects(&mut bench, SECOND);
    let request = bench.sent_on(lane, RequestKind::Collect);
    bench.answer(lane, request, Response::Refused(Status::Error));
    assert!(is_waiting(&mut caller));
    bench.pass(2 * SECOND);
    let again = bench.opened();
    bench.up(again);
    let request = bench.sent_on(again, RequestKind::Rejoin);
    bench.answer(again, request, Response::Queued);
    let request = bench.sent_on(again, RequestKind::Collect);
    bench.answer(again, request, Response::Granted(grant(1)));
    let pipelined = bench.pipelined();
    let request = bench.sent_on(pipelined, RequestKind::Confirm);
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
    lease(&mut caller);
}

#[test]
fn a_server_that_stands_alone_and_ends_a_wait_with_a_bare_error_costs_the_waiter() {
    let mut bench = Bench::connected(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    let request = bench.sent_on(lane, RequestKind::Wait);
    bench.answer(lane, request, Response::Refused(Status::Error));
    assert_eq!(failed(&mut caller), ErrorKind::Draining);
}

#[test]
fn a_release_that_a_draining_leader_refuses_goes_on_at_the_next_and_counts_as_done_if_nothing_is_held() {
    let mut bench = Bench::cluster(|_| {});
    let held = bench.hold("k");
    let id = held.id();
    let (told, mut answer) = tokio::sync::oneshot::channel();
    bench.handle(Input::Release { id, told: Some(told) });
    let draining = bench.pipelined();
    let request = bench.sent_on(draining, RequestKind::Release);
    bench.answer(draining, request, Response::Refused(Status::Draining));
    let next = bench.leader_is_found();
    let request = bench.sent_on(next, RequestKind::Release);
    // The connection that owned it has ended, and the lease with it.
    bench.answer(next, request, Response::Refused(Status::Error));
    assert!(answer.try_recv().unwrap().is_ok());
}

#[test]
fn a_wait_whose_grant_is_gone_with_a_draining_leader_before_it_is_confirmed_goes_on_at_the_next() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    let request = bench.sent_on(lane, RequestKind::Wait);
    bench.cut_with(lane, vec![request]);
    bench.pass(2 * SECOND);
    let again = bench.opened();
    bench.up(again);
    let request = bench.sent_on(again, RequestKind::Wait);
    bench.answer(again, request, Response::Granted(grant(1)));
    let draining = bench.pipelined();
    let request = bench.sent_on(draining, RequestKind::Confirm);
    bench.answer(draining, request, Response::Refused(Status::Draining));
    bench.cut(again);
    let next = bench.leader_is_found();
    let request = bench.sent_on(next, RequestKind::Confirm);
    bench.answer(next, request, Response::Refused(Status::Error));
    assert!(is_waiting(&mut caller), "it has time left");
    let lane = bench.opened();
    bench.up(lane);
    let request = bench.sent_on(lane, RequestKind::Wait);
    bench.answer(lane, request, Response::Granted(grant(2)));
    assert_eq!(lease(&mut caller).cell.token, grant(2).token);
}

#[test]
fn a_try_whose_grant_is_gone_before_it_is_confirmed_is_made_again() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = lost_try(&mut bench, tries);
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::Granted(grant(5)));
    let pipelined = bench.pipelined();
    let request = bench.sent_on(pipelined, RequestKind::Confirm);
    bench.answer(pipelined, request, Response::Refused(Status::Error));
    assert!(is_waiting(&mut caller));
    let request = bench.sent_on(pipelined, RequestKind::Try);
    bench.answer(pipelined, request, Response::TimedOut);
    assert!(is_busy(&mut caller));
}

// Waits whose time is over.

#[test]
fn a_place_is_given_up_when_the_time_of_its_wait_is_over_and_what_comes_of_it_is_given_back() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    let request = bench.sent_on(lane, RequestKind::Wait);
    bench.cut_with(lane, vec![request]);
    bench.pass(2 * SECOND);
    let again = bench.opened();
    bench.up(again);
    let request = bench.sent_on(again, RequestKind::Wait);
    bench.pass(60 * SECOND);
    bench.answer(again, request, Response::TimedOut);
    assert!(is_busy(&mut caller));
    let request = bench.sent_on(again, RequestKind::GiveUp);
    bench.answer(again, request, Response::Granted(grant(1)));
    let pipelined = bench.pipelined();
    bench.sent_on(pipelined, RequestKind::Release);
}

#[test]
fn a_place_that_is_over_is_not_asked_for_again() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    let request = bench.sent_on(lane, RequestKind::Wait);
    bench.pass(60 * SECOND);
    bench.answer(lane, request, Response::TimedOut);
    assert!(is_busy(&mut caller));
    // It may be that its member has ceased to lead, and so did not end it.
    let request = bench.sent_on(lane, RequestKind::GiveUp);
    bench.answer(lane, request, Response::Refused(Status::NotEnqueued));
    assert!(!bench.has_sent(RequestKind::Rejoin));
    assert!(bench.opened.iter().all(|(_, opening)| opening.role != Role::Exclusive));
}

#[test]
fn a_member_that_does_not_lead_any_more_ends_no_place_so_the_next_leader_is_told() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    let request = bench.sent_on(lane, RequestKind::Wait);
    bench.pass(60 * SECOND);
    bench.answer(lane, request, Response::TimedOut);
    assert!(is_busy(&mut caller));
    let request = bench.sent_on(lane, RequestKind::GiveUp);
    bench.answer(lane, request, Response::Refused(Status::NotLeader(None)));
    bench.leader_is_found();
    let errand = bench.opened();
    bench.up(errand);
    // Without an `e`: behind that the first `w` would not end it.
    assert!(!bench.has_sent(RequestKind::Rejoin));
    let request = bench.sent_on(errand, RequestKind::GiveUp);
    bench.answer(errand, request, Response::TimedOut);
    let request = bench.sent_on(errand, RequestKind::GiveUp);
    bench.answer(errand, request, Response::Refused(Status::NotEnqueued));
    assert!(!bench.has_sent(RequestKind::GiveUp));
}

#[test]
fn the_place_of_a_ticket_is_given_up_when_the_time_of_its_wait_is_over() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = collects(&mut bench, SECOND);
    let request = bench.sent_on(lane, RequestKind::Collect);
    bench.pass(60 * SECOND);
    bench.answer(lane, request, Response::TimedOut);
    assert!(is_busy(&mut caller));
    let request = bench.sent_on(lane, RequestKind::GiveUp);
    bench.answer(lane, request, Response::Granted(grant(1)));
    let pipelined = bench.pipelined();
    bench.sent_on(pipelined, RequestKind::Release);
}

// Leases in doubt.

fn is_lost(bench: &Bench, lease: &HeldLease, why: LostReason) -> bool {
    state(bench, lease) == LeaseState::Lost(why)
}

/// Answers the renewal that is under way.
fn renewed(bench: &mut Bench, over: LaneId) {
    let request = bench.sent_on(over, RequestKind::Renew);
    bench.answer(over, request, Response::Renewed(Some(10)));
}

#[test]
fn a_lease_whose_connection_ended_is_lost_at_once_where_the_cluster_is_not_known_to_keep_it() {
    let mut bench = Bench::cluster(|_| {});
    let lease = bench.hold("k");
    bench.cut(bench.pipelined());
    assert!(is_lost(&bench, &lease, LostReason::Disconnected));
    // In case the cluster has it still.
    let next = bench.leader_is_found();
    bench.sent_on(next, RequestKind::Release);
}

#[test]
fn a_lease_is_in_doubt_for_as_long_as_the_cluster_is_said_to_keep_it_and_no_longer() {
    let mut bench = Bench::keeping(4 * SECOND);
    let lease = bench.hold("k");
    bench.cut(bench.pipelined());
    assert_eq!(state(&bench, &lease), LeaseState::Suspect);
    bench.pass(3 * SECOND);
    assert_eq!(state(&bench, &lease), LeaseState::Suspect);
    bench.pass(SECOND);
    assert!(is_lost(&bench, &lease, LostReason::Expired));
}

#[test]
fn a_lease_in_doubt_that_a_leader_confirms_goes_on_to_its_own_end() {
    let mut bench = Bench::keeping(4 * SECOND);
    let lease = bench.hold("k");
    bench.cut(bench.pipelined());
    let next = bench.leader_is_found();
    renewed(&mut bench, next);
    assert_eq!(state(&bench, &lease), LeaseState::Held);
    bench.pass(4 * SECOND);
    assert_eq!(state(&bench, &lease), LeaseState::Held);
}

#[test]
fn what_survives_a_disconnect_is_in_doubt_to_its_own_end() {
    let mut bench = Bench::cluster(|settings| settings.survives_disconnect = true);
    let lease = bench.hold("k");
    bench.cut(bench.pipelined());
    bench.pass(9 * SECOND);
    assert_eq!(state(&bench, &lease), LeaseState::Suspect);
    bench.pass(SECOND);
    assert!(is_lost(&bench, &lease, LostReason::Expired));
}

#[test]
fn the_connection_to_a_deposed_leader_stands_until_the_next_has_taken_over_the_leases() {
    let mut bench = Bench::cluster(|_| {});
    let lease = bench.hold("k");
    let before = bench.pipelined();
    let mut caller = bench.acquire("other", Patience::Try);
    let request = bench.sent_on(before, RequestKind::Try);
    bench.answer(before, request, Response::Refused(Status::NotLeader(None)));
    assert_eq!(state(&bench, &lease), LeaseState::Suspect);
    bench.pass(2 * SECOND);
    assert!(
        bench.finished.is_empty(),
        "it might lead again, and release what its connection owned"
    );
    let next = bench.leader_is_found();
    renewed(&mut bench, next);
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
    let lease = bench.hold("k");
    let before = bench.pipelined();
    let caller = bench.acquire("other", Patience::Try);
    let request = bench.sent_on(before, RequestKind::Try);
    bench.answer(before, request, Response::Refused(Status::NotLeader(None)));
    bench.cut(before);
    assert!(is_lost(&bench, &lease, LostReason::Disconnected));
    drop(caller);
}

#[test]
fn a_connection_that_stands_for_leases_that_are_lost_is_closed() {
    let mut bench = Bench::cluster(|_| {});
    let lease = bench.hold("k");
    let before = bench.pipelined();
    let caller = bench.acquire("other", Patience::Try);
    let request = bench.sent_on(before, RequestKind::Try);
    bench.answer(before, request, Response::Refused(Status::NotLeader(None)));
    bench.pass(12 * SECOND);
    assert!(is_lost(&bench, &lease, LostReason::Expired));
    assert_eq!(bench.finished, [before]);
    drop(caller);
}

#[test]
fn a_connection_whose_wait_is_ended_by_a_shutdown_stands_as_long_as_it_owns_leases() {
    let mut bench = Bench::cluster(|settings| settings.exclusive = 1);
    bench.policy.never = true;
    let mut leases = Vec::new();
    for (name, number) in [("k", 1), ("another", 2)] {
        let (lane, mut holder) = waits(&mut bench, name);
        let request = bench.sent_on(lane, RequestKind::Wait);
        bench.answer(lane, request, Response::Granted(grant(number)));
        leases.push((lane, lease(&mut holder)));
    }
    let (lane, lease) = leases.swap_remove(0);
    let until = bench.now + 60 * SECOND;
    let refusal = progress::Refusal { at: bench.now, own: 0 };
    let _waiting = bench.acquire("other", Patience::Until(until, refusal));
    // There is no room for one more connection.
    let request = bench.sent_on(lane, RequestKind::Wait);
    bench.answer(lane, request, Response::Refused(Status::Error));
    assert!(!bench.closed.contains(&lane), "the server would release what it owns");
    assert_eq!(state(&bench, &lease), LeaseState::Held);
    bench.cut(lane);
    assert!(is_lost(&bench, &lease, LostReason::Disconnected));
}

#[test]
fn a_place_is_given_up_until_a_leader_has_answered() {
    let mut bench = Bench::cluster(|_| {});
    let (mut lane, caller) = waits(&mut bench, "k");
    let request = bench.sent_on(lane, RequestKind::Wait);
    drop(caller);
    bench.answer(lane, request, Response::TimedOut);
    for _ in 0..6 {
        let request = bench.sent_on(lane, RequestKind::GiveUp);
        bench.cut_with(lane, vec![request]);
        bench.pass(2 * SECOND);
        bench
            .opened
            .retain(|(_, opening)| matches!(opening.purpose, Purpose::Session(_)));
        lane = opened_as(&mut bench).0;
        bench.up(lane);
    }
    bench.sent_on(lane, RequestKind::GiveUp);
}

// Tries that may have been carried out.

/// The connection that was opened last, and the name under which it is to find something.
fn opened_as(bench: &mut Bench) -> (LaneId, String) {
    let (lane, opening) = bench.opened.pop().expect("a connection is opened");
    match opening.purpose {
        Purpose::Session(name) => (lane, name.expose().to_owned()),
        other => panic!("{other:?}"),
    }
}

fn name_of(bench: &Bench, pipelined: LaneId) -> String {
    let connection = bench.shard.connections.get(pipelined).unwrap();
    connection.name.clone().unwrap().expose().to_owned()
}

/// A try whose connection breaks before it is answered; then the next leader is found. Returns the connection that asks again.
fn lost_try(bench: &mut Bench, caller: impl FnOnce(&mut Bench) -> Caller) -> (LaneId, Caller) {
    let caller = caller(bench);
    let before = bench.pipelined();
    let name = name_of(bench, before);
    let request = bench.sent_on(before, RequestKind::Try);
    bench.cut_with(before, vec![request]);
    bench.leader_is_found();
    let (lane, presented) = opened_as(bench);
    assert_eq!(presented, name, "under any other it would be granted to nobody");
    assert_ne!(name_of(bench, bench.pipelined()), name);
    bench.up(lane);
    (lane, caller)
}

fn tries(bench: &mut Bench) -> Caller {
    bench.acquire("k", Patience::Try)
}

/// Confirms the grant that was found.
fn confirmed(bench: &mut Bench) {
    let pipelined = bench.pipelined();
    let request = bench.sent_on(pipelined, RequestKind::Confirm);
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
}

#[test]
fn a_try_whose_connection_broke_is_asked_again_under_the_same_name_and_its_grant_is_found() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = lost_try(&mut bench, tries);
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::Granted(grant(5)));
    assert!(is_waiting(&mut caller), "its age is not known before it is confirmed");
    confirmed(&mut bench);
    let lease = lease(&mut caller);
    assert_eq!(lease.cell.token, grant(5).token);
    // It belongs to the pipelined connection now, so that the other may go.
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
        let request = bench.sent_on(before, RequestKind::Try);
        bench.answer(before, request, Response::Refused(refused));
        assert!(!bench.has_sent(RequestKind::Repeat));
        bench.leader_is_found();
        let (lane, presented) = opened_as(&mut bench);
        assert_eq!(presented, name);
        bench.up(lane);
        let request = bench.sent_on(lane, RequestKind::Repeat);
        bench.answer(lane, request, Response::Granted(grant(number)));
        confirmed(&mut bench);
        lease(&mut caller);
        bench.sent.clear();
    }
}

#[test]
fn what_a_name_has_found_for_a_caller_is_not_given_back_with_the_place_of_another() {
    let mut bench = Bench::cluster(|_| {});
    bench.target = Target::Semaphore(Limit::new(2).unwrap());
    let before = bench.pipelined();
    let mut callers = [tries(&mut bench), tries(&mut bench)];
    let mut lost = [bench.sent(RequestKind::Try).1, bench.sent(RequestKind::Try).1];
    lost.reverse();
    bench.cut_with(before, lost.into());
    bench.leader_is_found();
    let (lane, _) = opened_as(&mut bench);
    bench.up(lane);
    let second = bench.sent_on(lane, RequestKind::Repeat);
    let first = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, first, Response::Granted(grant(5)));
    bench.answer(lane, second, Response::TimedOut);
    // The server tells what the session has, as long as that is not another connection's.
    let request = bench.sent_on(lane, RequestKind::GiveUp);
    bench.answer(lane, request, Response::Granted(grant(5)));
    assert!(!bench.has_sent(RequestKind::Release));
    confirmed(&mut bench);
    let lease = lease(&mut callers[0]);
    let request = bench.sent_on(lane, RequestKind::GiveUp);
    bench.answer(lane, request, Response::Granted(grant(5)));
    assert!(!bench.has_sent(RequestKind::Release));
    assert_eq!(state(&bench, &lease), LeaseState::Held);
    let request = bench.sent_on(lane, RequestKind::GiveUp);
    bench.answer(lane, request, Response::TimedOut);
    assert!(is_busy(&mut callers[1]));
}

#[test]
fn what_a_name_has_found_is_no_grant_if_it_was_given_back_meanwhile() {
    let mut bench = Bench::keeping(60 * SECOND);
    let lease = bench.hold("k");
    let (lane, mut caller) = lost_try(&mut bench, tries);
    drop(lease);
    let id = bench.shard.leases.ids().next().unwrap();
    bench.handle(Input::Release { id, told: None });
    let release = bench.sent_on(bench.pipelined(), RequestKind::Release);
    bench.answer(bench.pipelined(), release, Response::Done);
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::Granted(grant(1)));
    assert!(!bench.has_sent(RequestKind::Confirm));
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::TimedOut);
    assert!(is_busy(&mut caller));
}

#[test]
fn a_name_goes_with_its_last_answer_and_not_before() {
    let mut bench = Bench::cluster(|_| {});
    let before = bench.pipelined();
    let mut callers = [0; 4].map(|_| tries(&mut bench));
    let lost = [0; 4].map(|_| bench.sent(RequestKind::Try).1);
    bench.cut_with(before, lost.into());
    bench.leader_is_found();
    let (lane, _) = opened_as(&mut bench);
    bench.up(lane);
    let repeats = [0; 4].map(|_| bench.sent_on(lane, RequestKind::Repeat));
    let granted = Response::Granted(grant(5));
    let answers = [
        Response::TimedOut,
        granted.clone(),
        Response::TimedOut,
        Response::TimedOut,
    ];
    bench.answer_all(lane, repeats.into_iter().zip(answers).collect());
    let ends = [0; 3].map(|_| bench.sent_on(lane, RequestKind::GiveUp));
    let answers = [Response::Refused(Status::NotEnqueued), granted.clone(), granted];
    bench.answer_all(lane, ends.into_iter().zip(answers).collect());
    assert!(!bench.has_sent(RequestKind::Release));
    confirmed(&mut bench);
    assert!(callers.iter_mut().any(|caller| !is_busy(caller)));
}

#[test]
fn what_is_found_of_a_try_whose_caller_is_gone_is_given_back() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, caller) = lost_try(&mut bench, tries);
    drop(caller);
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::Granted(grant(5)));
    bench.sent(RequestKind::Release);
}

#[test]
fn a_try_that_was_not_carried_out_hears_that_the_key_is_held_and_leaves_no_place() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = lost_try(&mut bench, tries);
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::TimedOut);
    assert!(is_busy(&mut caller));
    let request = bench.sent_on(lane, RequestKind::GiveUp);
    assert!(bench.finished.is_empty());
    bench.answer(lane, request, Response::Refused(Status::NotEnqueued));
    bench.pass(10 * SECOND);
    assert!(bench.closed.contains(&lane) || bench.finished.contains(&lane));
}

#[test]
fn a_try_is_asked_again_as_often_as_redirects_are_followed() {
    let mut bench = Bench::cluster(|_| {});
    let (mut lane, mut caller) = lost_try(&mut bench, tries);
    for _ in 0..2 {
        let request = bench.sent_on(lane, RequestKind::Repeat);
        bench.cut_with(lane, vec![request]);
        bench.pass(2 * SECOND);
        lane = opened_as(&mut bench).0;
        bench.up(lane);
    }
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.cut_with(lane, vec![request]);
    assert_eq!(failed(&mut caller), ErrorKind::Disconnected);
    assert!(bench.shard.repeats.is_empty());
}

#[test]
fn a_server_that_stands_alone_remembers_no_name_so_a_lost_try_fails() {
    let mut bench = Bench::connected(|_| {});
    let mut caller = tries(&mut bench);
    let before = bench.pipelined();
    let request = bench.sent_on(before, RequestKind::Try);
    bench.cut_with(before, vec![request]);
    assert_eq!(failed(&mut caller), ErrorKind::Disconnected);
}

#[test]
fn a_key_that_waits_for_its_turn_gets_what_a_lost_try_of_it_was_granted() {
    let mut bench = Bench::cluster(|settings| settings.exclusive = 1);
    let (_, _other) = waits(&mut bench, "other");
    let until = bench.now + 60 * SECOND;
    let refusal = progress::Refusal { at: bench.now, own: 0 };
    let mut caller = bench.acquire("k", Patience::Until(until, refusal));
    bench.pass(SECOND);
    let before = bench.pipelined();
    let request = bench.sent_on(before, RequestKind::Probe);
    bench.cut_with(before, vec![request]);
    bench.leader_is_found();
    let (lane, _) = opened_as(&mut bench);
    bench.up(lane);
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::Granted(grant(5)));
    confirmed(&mut bench);
    assert_eq!(lease(&mut caller).cell.token, grant(5).token);
}

/// A lease on `k` that goes on at the next leader, and a try of the key that was lost.
fn held_and_lost(target: Target) -> (Bench, HeldLease, LaneId, Caller) {
    let mut bench = Bench::keeping(60 * SECOND);
    bench.target = target;
    bench.ttl = Ttl::from_secs(10);
    let lease = bench.hold("k");
    let (lane, caller) = lost_try(&mut bench, |bench| {
        bench.ttl = Ttl::from_secs(2);
        tries(bench)
    });
    let pipelined = bench.pipelined();
    renewed(&mut bench, pipelined);
    (bench, lease, lane, caller)
}

#[test]
fn a_lease_that_a_lost_try_finds_is_not_handed_out_twice() {
    let (mut bench, lease, lane, mut caller) = held_and_lost(Target::Lock);
    let request = bench.sent_on(lane, RequestKind::Repeat);
    // As builds do whose renewals do not move a lease from its connection.
    bench.answer(lane, request, Response::Granted(grant(1)));
    assert!(is_busy(&mut caller), "this client holds it itself");
    // It was begun anew with the TTL of the try, and has to have its own again.
    assert!(lease.cell.remaining_at(bench.now.into()) <= 2 * SECOND);
    let pipelined = bench.pipelined();
    let request = bench.sent_on(pipelined, RequestKind::Renew);
    assert_eq!(names_ttl(&request), 10);
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
    assert_eq!(state(&bench, &lease), LeaseState::Held);
    assert!(lease.cell.remaining_at(bench.now.into()) > 9 * SECOND);
}

#[test]
fn of_a_semaphore_a_lost_try_asks_on_until_it_finds_what_nobody_has() {
    let target = Target::Semaphore(crate::types::Limit::new(3).unwrap());
    let (mut bench, held, lane, mut caller) = held_and_lost(target);
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::Granted(grant(1)));
    assert!(is_waiting(&mut caller));
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::Granted(grant(2)));
    confirmed(&mut bench);
    let found = lease(&mut caller);
    assert_ne!(found.cell.token, held.cell.token);
}

#[test]
fn what_is_on_its_way_back_is_not_found_as_the_grant_of_a_lost_try() {
    let mut bench = Bench::keeping(60 * SECOND);
    let held = bench.hold("k");
    bench.handle(Input::Release {
        id: held.id(),
        told: None,
    });
    std::mem::forget(held);
    let (lane, mut caller) = lost_try(&mut bench, tries);
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::Granted(grant(1)));
    assert!(is_waiting(&mut caller));
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::Granted(grant(2)));
    confirmed(&mut bench);
    assert_eq!(lease(&mut caller).cell.token, grant(2).token);
}

#[test]
fn callers_that_do_not_wait_for_a_leader_hear_so_and_what_is_found_for_them_is_given_back() {
    let mut bench = Bench::cluster(|settings| settings.fail_fast = true);
    let mut caller = tries(&mut bench);
    let before = bench.pipelined();
    let request = bench.sent_on(before, RequestKind::Try);
    bench.cut_with(before, vec![request]);
    for _ in 0..3 {
        let lane = bench.pipelined();
        bench.fail(lane);
    }
    assert_eq!(failed(&mut caller), ErrorKind::Unavailable);
    bench.leader_is_found();
    let (lane, _) = opened_as(&mut bench);
    bench.up(lane);
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::Granted(grant(5)));
    bench.sent(RequestKind::Release);
}

#[test]
fn a_shutdown_waits_for_what_lost_tries_have_found_and_gives_it_back() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = lost_try(&mut bench, tries);
    let until = bench.now + 5 * SECOND;
    bench.handle(Input::Shutdown(input::Shutdown { until, told: None }));
    assert!(bench.report.is_none());
    let request = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, request, Response::Granted(grant(5)));
    assert_eq!(failed(&mut caller), ErrorKind::Shutdown);
    let (over, request) = bench.sent(RequestKind::Release);
    bench.answer(over, request, Response::Done);
    assert!(bench.report.is_some());
}

// Who leads.

/// What a member says of itself.
fn stats_of(role: &str) -> Response {
    Response::Json(format!("{{\"cluster\":{{\"role\":\"{role}\"}}}}").into())
}

#[test]
fn a_member_at_which_callers_wait_is_asked_what_it_is_when_nothing_else_has_shown_it() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    let request = bench.sent_on(lane, RequestKind::Wait);
    bench.pass(11 * SECOND);
    let aside = bench.opened();
    bench.up(aside);
    let look = bench.sent_on(aside, RequestKind::Look);
    bench.answer(aside, look, stats_of("leader"));
    assert!(bench.shard.connections.is_serving());
    bench.pass(11 * SECOND);
    let aside = bench.opened();
    bench.up(aside);
    let look = bench.sent_on(aside, RequestKind::Look);
    bench.answer(aside, look, stats_of("follower"));
    assert!(!bench.shard.connections.is_serving());
    bench.leader_is_found();
    // What it tells of is over: its connection leads elsewhere.
    bench.cut_with(lane, vec![request]);
    let again = bench.opened();
    bench.up(again);
    bench.sent_on(again, RequestKind::Wait);
    assert!(is_waiting(&mut caller));
}

#[test]
fn nobody_is_asked_who_leads_while_nobody_waits_or_answers_show_it() {
    let mut bench = Bench::cluster(|_| {});
    bench.pass(60 * SECOND);
    let (_, _caller) = waits(&mut bench, "k");
    let _lease = bench.hold("renewed");
    for _ in 0..20 {
        bench.pass(SECOND);
        if bench.has_sent(RequestKind::Renew) {
            let pipelined = bench.pipelined();
            renewed(&mut bench, pipelined);
        }
    }
    assert!(bench.opened.is_empty(), "no connection is opened to ask");
}

// One name for all that a client holds.

#[test]
fn a_client_with_a_name_takes_back_what_an_earlier_one_held_once_it_is_confirmed() {
    let mut bench = Bench::named(60 * SECOND, "the-worker");
    assert_eq!(name_of(&bench, bench.pipelined()), "the-worker");
    let mut caller = tries(&mut bench);
    let pipelined = bench.pipelined();
    let request = bench.sent_on(pipelined, RequestKind::Try);
    bench.answer(pipelined, request, Response::Granted(grant(7)));
    assert!(is_waiting(&mut caller));
    confirmed(&mut bench);
    assert_eq!(lease(&mut caller).cell.token, grant(7).token);
    bench.cut(pipelined);
    bench.leader_is_found();
    assert_eq!(name_of(&bench, bench.pipelined()), "the-worker");
}

#[test]
fn a_client_with_a_name_is_not_handed_its_own_lease_a_second_time() {
    let mut bench = Bench::named(60 * SECOND, "the-worker");
    let mut first = tries(&mut bench);
    let pipelined = bench.pipelined();
    let request = bench.sent_on(pipelined, RequestKind::Try);
    bench.answer(pipelined, request, Response::Granted(grant(1)));
    confirmed(&mut bench);
    let held = lease(&mut first);
    bench.cut(pipelined);
    let next = bench.leader_is_found();
    let mut second = tries(&mut bench);
    let request = bench.sent_on(next, RequestKind::Try);
    // Before its renewal has come to this connection.
    bench.answer(next, request, Response::Granted(grant(1)));
    assert!(is_busy(&mut second));
    renewed(&mut bench, next);
    assert_eq!(state(&bench, &held), LeaseState::Held);
}
