//! Tests of the shard as a whole, step by step. Most of them reproduce faults that the [model](super::model) found.

use tokio::sync::oneshot;

use super::acquire::Patience;
use super::bench::{Bench, SECOND, ask, grant, key};
use super::held::{Acquired, HeldPlace};
use super::input::Shutdown;
use super::progress::Refusal;
use super::question::Question;
use super::rules::RequestKind;
use super::*;
use crate::error::{ErrorKind, Result};
use crate::lease::state::LeaseState;
use crate::protocol::{Call, Response};

#[test]
fn a_disposable_connection_that_was_busy_when_idle_ones_were_closed_is_closed_later() {
    let mut bench = Bench::connected(|settings| settings.idle_timeout = SECOND / 2);
    let (ask, _caller) = ask();
    bench.handle(Input::Ask(Question::of_any(Call::ping(), ask)));
    let lane = bench.opened();
    bench.up(lane);
    let (_, request) = bench.sent(RequestKind::Ask);
    bench.pass(5 * SECOND);
    assert!(bench.closed.is_empty(), "its answer is to come");
    bench.answer(lane, request, Response::Done);
    bench.pass(5 * SECOND);
    assert_eq!(bench.closed, [lane]);
}

#[test]
fn a_guard_that_is_dropped_during_the_shutdown_takes_nothing_from_its_report() {
    let mut bench = Bench::connected(|_| {});
    let lease = bench.hold("k");
    let until = bench.now + 5 * SECOND;
    bench.handle(Input::Shutdown(Shutdown { until, told: None }));
    let (id, _) = (lease.id(), drop(lease));
    bench.handle(Input::Release { id, told: None });
    // The release stays unanswered.
    bench.pass(5 * SECOND);
    let report = bench.report.expect("it is over");
    assert_eq!((report.released, report.unreleased), (0, vec![key("k")]));
}

/// Starts to confirm a grant at a ticket's queue position over the pipelined connection.
fn confirmed_grant(survives: bool) -> (Bench, LaneId, oneshot::Receiver<Result<Acquired>>) {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = survives);
    let mut receiver = bench.acquire("k", Patience::Enqueue);
    let owner = bench.opened();
    bench.up(owner);
    let (_, request) = bench.sent(RequestKind::Enqueue);
    bench.answer(owner, request, Response::Queued);
    let Ok(Ok(Acquired::Queued(ticket))) = receiver.try_recv() else {
        panic!("it is queued")
    };
    // So much time that the grant must be confirmed.
    bench.pass(6 * SECOND);
    let (ask, receiver) = ask();
    bench.handle(Input::Collect(ticket.id(), bench.now + SECOND, ask));
    let (_, request) = bench.sent(RequestKind::Collect);
    bench.answer(owner, request, Response::Granted(grant(1)));
    (bench, owner, receiver)
}

#[test]
fn a_grant_whose_connection_ended_while_it_was_confirmed_is_no_grant() {
    let (mut bench, owner, mut receiver) = confirmed_grant(false);
    let (pipelined, request) = bench.sent(RequestKind::Confirm);
    bench.cut(owner);
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
    match receiver.try_recv().unwrap() {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Disconnected),
        Ok(_) => panic!("it went with its connection"),
    }
    // The server may not have noticed the end of the connection yet.
    bench.sent(RequestKind::Release);
}

#[test]
fn a_grant_that_is_confirmed_during_the_shutdown_is_given_back() {
    let (mut bench, _, mut receiver) = confirmed_grant(false);
    let (pipelined, request) = bench.sent(RequestKind::Confirm);
    let until = bench.now + 5 * SECOND;
    bench.handle(Input::Shutdown(Shutdown { until, told: None }));
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
    match receiver.try_recv().unwrap() {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Shutdown),
        Ok(_) => panic!("its client is shut down"),
    }
    let (pipelined, request) = bench.sent(RequestKind::Release);
    assert_eq!(bench.report, None, "the release is not answered yet");
    bench.answer(pipelined, request, Response::Done);
    assert!(bench.report.is_some());
}

/// Starts a wait on the server. Returns its connection and its caller.
fn waiting(bench: &mut Bench, name: &str) -> (LaneId, oneshot::Receiver<Result<Acquired>>) {
    let refusal = Refusal { at: bench.now, own: 0 };
    let receiver = bench.acquire(name, Patience::Until(bench.now + 60 * SECOND, refusal));
    (bench.opens(), receiver)
}

#[test]
fn what_waits_at_a_server_that_fell_silent_waits_at_the_next_connection() {
    let mut bench = Bench::connected(|_| {});
    let (lane, mut receiver) = waiting(&mut bench, "k");
    bench.falls_silent(bench.pipelined());
    assert_eq!(bench.hung_up, [lane]);
    bench.cut_unanswered(lane, RequestKind::Wait);
    assert!(receiver.try_recv().is_err(), "its caller waits on");
    let first = bench.opened();
    assert!(!bench.has_sent(RequestKind::Wait));
    bench.up(first);
    bench.pass(2 * SECOND);
    let again = bench.opens();
    bench.answer_to(again, RequestKind::Wait, Response::Granted(grant(1)));
    assert!(matches!(receiver.try_recv(), Ok(Ok(Acquired::Lease(_)))));
}

#[test]
fn a_grant_of_a_server_that_was_thought_silent_is_given_back() {
    let mut bench = Bench::connected(|_| {});
    let (lane, mut receiver) = waiting(&mut bench, "k");
    bench.falls_silent(bench.pipelined());
    bench.answer_to(lane, RequestKind::Wait, Response::Granted(grant(1)));
    bench.cut(lane);
    let first = bench.opened();
    bench.up(first);
    assert!(receiver.try_recv().is_err(), "its caller waits on");
    bench.sent_on(first, RequestKind::Release);
}

#[test]
fn waits_stay_where_a_server_answers_or_leases_would_go_with_them() {
    let mut bench = Bench::connected(|_| {});
    let (lane, _receiver) = waiting(&mut bench, "k");
    bench.cut(bench.pipelined());
    assert!(bench.hung_up.is_empty(), "it was lost, and not by silence");
    let first = bench.opened();
    bench.up(first);
    bench.shard.connections.own(lane);
    bench.falls_silent(first);
    assert!(bench.hung_up.is_empty(), "it owns a lease");

    let mut bench = Bench::connected(|settings| settings.pipelined = 2);
    let (_lane, _receiver) = waiting(&mut bench, "k");
    let second = bench.shard.connections.in_slots()[1];
    bench.up(second);
    bench.falls_silent(bench.pipelined());
    assert!(bench.hung_up.is_empty(), "another connection serves");
}

#[test]
fn where_leases_survive_it_a_confirmed_grant_counts_to_the_connection_that_confirmed_it() {
    let (mut bench, owner, mut receiver) = confirmed_grant(true);
    let (pipelined, request) = bench.sent(RequestKind::Confirm);
    bench.cut(owner);
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
    let Ok(Ok(Acquired::Lease(lease))) = receiver.try_recv() else {
        panic!("it is held")
    };
    assert_eq!(lease.cell.state_at(bench.now.into()), LeaseState::Held);
    bench.cut(pipelined);
    assert_eq!(lease.cell.state_at(bench.now.into()), LeaseState::Suspect);
}

#[test]
fn where_leases_survive_it_a_renewed_lease_counts_to_the_connection_that_renewed_it() {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
    let lease = bench.hold("k");
    for _ in 0..2 {
        let pipelined = bench.shard.connections.in_slots()[0];
        bench.cut(pipelined);
        assert_eq!(lease.cell.state_at(bench.now.into()), LeaseState::Suspect);
        let again = bench.opened();
        bench.up(again);
        let (lane, request) = bench.sent(RequestKind::Renew);
        bench.answer(lane, request, Response::Renewed(Some(10)));
        assert_eq!(lease.cell.state_at(bench.now.into()), LeaseState::Held);
    }
}

/// Takes a ticket whose queue position is on a connection of its own.
fn ticket(bench: &mut Bench) -> (LaneId, HeldPlace) {
    let mut receiver = bench.acquire("k", Patience::Enqueue);
    let owner = bench.opens();
    bench.answer_to(owner, RequestKind::Enqueue, Response::Queued);
    match receiver.try_recv() {
        Ok(Ok(Acquired::Queued(ticket))) => (owner, ticket),
        _ => panic!("it is queued"),
    }
}

fn begin_shutdown(bench: &mut Bench) {
    let until = bench.now + 5 * SECOND;
    bench.handle(Input::Shutdown(Shutdown { until, told: None }));
}

/// Answers the request that gives the position up. A grant in the answer is released.
fn place_is_given_up(bench: &mut Bench, owner: LaneId, granted: bool) {
    if !granted {
        return bench.answer_to(owner, RequestKind::GiveUp, Response::TimedOut);
    }
    bench.answer_to(owner, RequestKind::GiveUp, Response::Granted(grant(1)));
    let (pipelined, request) = bench.sent(RequestKind::Release);
    bench.answer(pipelined, request, Response::Done);
}

#[test]
fn where_leases_survive_it_a_shutdown_gives_back_what_is_granted_at_a_place_that_is_being_given_up() {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
    let (owner, ticket) = ticket(&mut bench);
    bench.handle(Input::GiveUp(ticket.id()));
    begin_shutdown(&mut bench);
    assert_eq!(bench.report, None, "what is granted there would be held by no caller");
    place_is_given_up(&mut bench, owner, true);
    assert!(bench.report.is_some());
}

#[test]
fn where_leases_survive_it_a_shutdown_gives_up_the_places_of_tickets() {
    for granted in [false, true] {
        let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
        let (owner, _ticket) = ticket(&mut bench);
        begin_shutdown(&mut bench);
        assert_eq!(bench.report, None);
        place_is_given_up(&mut bench, owner, granted);
        assert!(bench.report.is_some());
    }
}

/// Asks for a ticket without an answer so far. Returns the connection and the caller.
fn asks_for_a_place(bench: &mut Bench) -> (LaneId, oneshot::Receiver<Result<Acquired>>) {
    let receiver = bench.acquire("k", Patience::Enqueue);
    (bench.opens(), receiver)
}

fn hears_of_the_shutdown(receiver: &mut oneshot::Receiver<Result<Acquired>>) {
    match receiver.try_recv() {
        Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::Shutdown),
        _ => panic!("its client is shut down"),
    }
}

#[test]
fn where_leases_survive_it_a_shutdown_gives_back_what_a_ticket_in_flight_is_granted() {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
    let (owner, mut receiver) = asks_for_a_place(&mut bench);
    begin_shutdown(&mut bench);
    assert!(
        bench.closed.is_empty() && bench.report.is_none(),
        "its answer is to come"
    );
    bench.answer_to(owner, RequestKind::Enqueue, Response::Acquired(grant(1)));
    hears_of_the_shutdown(&mut receiver);
    bench.answer_to(owner, RequestKind::Settle, Response::Granted(grant(1)));
    assert_eq!(bench.report, None, "the release is not answered yet");
    let (pipelined, request) = bench.sent(RequestKind::Release);
    bench.answer(pipelined, request, Response::Done);
    assert!(bench.report.is_some());
}

#[test]
fn where_leases_survive_it_a_shutdown_gives_up_the_place_that_a_ticket_in_flight_gets() {
    for granted in [false, true] {
        let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
        let (owner, mut receiver) = asks_for_a_place(&mut bench);
        begin_shutdown(&mut bench);
        bench.answer_to(owner, RequestKind::Enqueue, Response::Queued);
        hears_of_the_shutdown(&mut receiver);
        assert_eq!(bench.report, None, "its place is being given up");
        place_is_given_up(&mut bench, owner, granted);
        assert!(bench.report.is_some());
    }
}

#[test]
fn where_leases_survive_it_a_shutdown_waits_for_a_ticket_in_flight_no_longer_than_it_may() {
    for breaks in [false, true] {
        let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
        let (owner, mut receiver) = asks_for_a_place(&mut bench);
        begin_shutdown(&mut bench);
        assert_eq!(bench.report, None, "its answer is to come");
        match breaks {
            true => {
                bench.cut_unanswered(owner, RequestKind::Enqueue);
                assert!(matches!(receiver.try_recv(), Ok(Err(_))));
            }
            false => bench.pass(5 * SECOND),
        }
        assert!(bench.report.is_some());
    }
}

#[test]
fn a_ticket_that_was_not_written_when_its_connection_broke_is_not_asked_for_during_the_shutdown() {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
    let _lease = bench.hold("other");
    let (owner, mut receiver) = asks_for_a_place(&mut bench);
    begin_shutdown(&mut bench);
    bench.cut_unwritten(owner, RequestKind::Enqueue);
    hears_of_the_shutdown(&mut receiver);
    assert!(bench.opened.is_empty(), "it waits for no other");
}

#[test]
fn where_leases_survive_it_a_shutdown_closes_what_waits_at_once() {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
    let (lane, _receiver) = waiting(&mut bench, "k");
    begin_shutdown(&mut bench);
    assert!(
        bench.closed.contains(&lane) && bench.report.is_some(),
        "the server takes no wait back"
    );
}

#[test]
fn where_leases_end_with_their_connections_a_shutdown_waits_for_no_place() {
    let mut bench = Bench::connected(|_| {});
    let (_, ticket) = ticket(&mut bench);
    bench.handle(Input::GiveUp(ticket.id()));
    begin_shutdown(&mut bench);
    assert!(bench.report.is_some());
}
