//! Tests of the shard as a whole, step by step. Most of them reproduce faults that the [model](super::model) found.

use tokio::sync::oneshot;

use super::acquire::Patience;
use super::bench::{Bench, SECOND, ask, grant, key};
use super::held::{Acquired, HeldPosition};
use super::input::Shutdown;
use super::progress::Refusal;
use super::question::Question;
use super::rules::RequestKind;
use super::*;
use crate::error::{ErrorKind, Result};
use crate::lease::state::LeaseState;
use crate::protocol::{Call, Response};

#[test]
fn a_disposable_connection_that_was_busy_during_housekeeping_is_closed_later() {
    let mut bench = Bench::connected(|settings| settings.idle_timeout = SECOND / 2);
    let (ask, _caller) = ask();
    bench.handle(Input::Ask(Question::of_any(Call::ping(), ask)));
    let lane = bench.opened();
    bench.up(lane);
    let (_, request) = bench.sent(RequestKind::Ask);
    bench.pass(5 * SECOND);
    assert!(bench.closed.is_empty(), "the connection has an unanswered request");
    bench.answer(lane, request, Response::Done);
    bench.pass(5 * SECOND);
    assert_eq!(bench.closed, [lane]);
}

#[test]
fn a_guard_that_is_dropped_during_the_shutdown_does_not_change_the_report() {
    let mut bench = Bench::connected(|_| {});
    let lease = bench.hold("k");
    let until = bench.now + 5 * SECOND;
    bench.handle(Input::Shutdown(Shutdown { until, reply: None }));
    let (id, _) = (lease.id(), drop(lease));
    bench.handle(Input::Release { id, reply: None });
    // The release stays unanswered.
    bench.pass(5 * SECOND);
    let report = bench.report.expect("the shard has ended");
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
    // More than half of the TTL passes, so the grant must be confirmed.
    bench.pass(6 * SECOND);
    let (ask, receiver) = ask();
    bench.handle(Input::Collect(ticket.id(), bench.now + SECOND, ask));
    let (_, request) = bench.sent(RequestKind::Collect);
    bench.answer(owner, request, Response::Granted(grant(1)));
    (bench, owner, receiver)
}

#[test]
fn a_grant_whose_connection_ended_before_its_confirmation_is_released() {
    let (mut bench, owner, mut receiver) = confirmed_grant(false);
    let (pipelined, request) = bench.sent(RequestKind::Confirm);
    bench.cut(owner);
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
    match receiver.try_recv().unwrap() {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Disconnected),
        Ok(_) => panic!("the grant ended with its connection"),
    }
    // The server may not have noticed the end of the connection yet.
    bench.sent(RequestKind::Release);
}

#[test]
fn a_grant_that_is_confirmed_during_the_shutdown_is_released() {
    let (mut bench, _, mut receiver) = confirmed_grant(false);
    let (pipelined, request) = bench.sent(RequestKind::Confirm);
    let until = bench.now + 5 * SECOND;
    bench.handle(Input::Shutdown(Shutdown { until, reply: None }));
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
fn a_wait_at_a_silent_server_continues_over_the_next_connection() {
    let mut bench = Bench::connected(|_| {});
    let (lane, mut receiver) = waiting(&mut bench, "k");
    bench.falls_silent(bench.pipelined());
    assert_eq!(bench.hung_up, [lane]);
    bench.cut_unanswered(lane, RequestKind::Wait);
    assert!(receiver.try_recv().is_err(), "its caller still waits");
    let first = bench.opened();
    assert!(!bench.has_sent(RequestKind::Wait));
    bench.up(first);
    bench.pass(2 * SECOND);
    let again = bench.opens();
    bench.answer_to(again, RequestKind::Wait, Response::Granted(grant(1)));
    assert!(matches!(receiver.try_recv(), Ok(Ok(Acquired::Lease(_)))));
}

#[test]
fn a_late_grant_of_a_silent_server_is_released() {
    let mut bench = Bench::connected(|_| {});
    let (lane, mut receiver) = waiting(&mut bench, "k");
    bench.falls_silent(bench.pipelined());
    bench.answer_to(lane, RequestKind::Wait, Response::Granted(grant(1)));
    bench.cut(lane);
    let first = bench.opened();
    bench.up(first);
    assert!(receiver.try_recv().is_err(), "its caller still waits");
    bench.sent_on(first, RequestKind::Release);
}

#[test]
fn waits_stay_on_their_connection_if_the_server_answers_or_the_connection_owns_leases() {
    let mut bench = Bench::connected(|_| {});
    let (lane, _receiver) = waiting(&mut bench, "k");
    bench.cut(bench.pipelined());
    assert!(
        bench.hung_up.is_empty(),
        "the connection was lost, but not because of silence"
    );
    let first = bench.opened();
    bench.up(first);
    bench.shard.connections.own(lane);
    bench.falls_silent(first);
    assert!(bench.hung_up.is_empty(), "the connection of the wait owns a lease");

    let mut bench = Bench::connected(|settings| settings.pipelined = 2);
    let (_lane, _receiver) = waiting(&mut bench, "k");
    let second = bench.shard.connections.in_slots()[1];
    bench.up(second);
    bench.falls_silent(bench.pipelined());
    assert!(bench.hung_up.is_empty(), "another connection serves");
}

#[test]
fn a_grant_that_survives_its_connection_belongs_to_the_connection_that_confirmed_it() {
    let (mut bench, owner, mut receiver) = confirmed_grant(true);
    let (pipelined, request) = bench.sent(RequestKind::Confirm);
    bench.cut(owner);
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
    let Ok(Ok(Acquired::Lease(lease))) = receiver.try_recv() else {
        panic!("the caller gets a lease")
    };
    assert_eq!(lease.cell.state_at(bench.now.into()), LeaseState::Held);
    bench.cut(pipelined);
    assert_eq!(lease.cell.state_at(bench.now.into()), LeaseState::Suspect);
}

#[test]
fn a_lease_that_survives_its_connection_belongs_to_the_connection_that_renewed_it() {
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

/// Takes a ticket. Returns it with the connection of its queue position.
fn ticket(bench: &mut Bench) -> (LaneId, HeldPosition) {
    let mut receiver = bench.acquire("k", Patience::Enqueue);
    let owner = bench.opens();
    bench.answer_to(owner, RequestKind::Enqueue, Response::Queued);
    match receiver.try_recv() {
        Ok(Ok(Acquired::Queued(ticket))) => (owner, ticket),
        _ => panic!("the caller gets a ticket"),
    }
}

fn begin_shutdown(bench: &mut Bench) {
    let until = bench.now + 5 * SECOND;
    bench.handle(Input::Shutdown(Shutdown { until, reply: None }));
}

/// Answers the request that gives up the position. If the answer is a grant, answers the grant's release, too.
fn position_is_given_up(bench: &mut Bench, owner: LaneId, granted: bool) {
    if !granted {
        return bench.answer_to(owner, RequestKind::GiveUp, Response::TimedOut);
    }
    bench.answer_to(owner, RequestKind::GiveUp, Response::Granted(grant(1)));
    let (pipelined, request) = bench.sent(RequestKind::Release);
    bench.answer(pipelined, request, Response::Done);
}

#[test]
fn with_surviving_leases_a_shutdown_releases_a_grant_at_a_position_that_is_being_given_up() {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
    let (owner, ticket) = ticket(&mut bench);
    bench.handle(Input::GiveUp(ticket.id()));
    begin_shutdown(&mut bench);
    assert_eq!(bench.report, None, "a grant at the position would have no caller");
    position_is_given_up(&mut bench, owner, true);
    assert!(bench.report.is_some());
}

#[test]
fn with_surviving_leases_a_shutdown_gives_up_the_positions_of_tickets() {
    for granted in [false, true] {
        let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
        let (owner, _ticket) = ticket(&mut bench);
        begin_shutdown(&mut bench);
        assert_eq!(bench.report, None);
        position_is_given_up(&mut bench, owner, granted);
        assert!(bench.report.is_some());
    }
}

/// Asks for a ticket. The server has not answered yet. Returns the connection and the caller.
fn asks_for_a_ticket(bench: &mut Bench) -> (LaneId, oneshot::Receiver<Result<Acquired>>) {
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
fn with_surviving_leases_a_shutdown_releases_the_grant_of_a_ticket_in_flight() {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
    let (owner, mut receiver) = asks_for_a_ticket(&mut bench);
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
fn with_surviving_leases_a_shutdown_gives_up_the_position_of_a_ticket_in_flight() {
    for granted in [false, true] {
        let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
        let (owner, mut receiver) = asks_for_a_ticket(&mut bench);
        begin_shutdown(&mut bench);
        bench.answer_to(owner, RequestKind::Enqueue, Response::Queued);
        hears_of_the_shutdown(&mut receiver);
        assert_eq!(bench.report, None, "the queue position is being given up");
        position_is_given_up(&mut bench, owner, granted);
        assert!(bench.report.is_some());
    }
}

#[test]
fn with_surviving_leases_a_shutdown_waits_for_a_ticket_in_flight_until_its_deadline() {
    for breaks in [false, true] {
        let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
        let (owner, mut receiver) = asks_for_a_ticket(&mut bench);
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
fn an_unwritten_ticket_request_is_not_sent_again_during_the_shutdown() {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
    let _lease = bench.hold("other");
    let (owner, mut receiver) = asks_for_a_ticket(&mut bench);
    begin_shutdown(&mut bench);
    bench.cut_unwritten(owner, RequestKind::Enqueue);
    hears_of_the_shutdown(&mut receiver);
    assert!(
        bench.opened.is_empty(),
        "the ticket does not wait for another connection"
    );
}

#[test]
fn with_surviving_leases_a_shutdown_closes_waits_at_once() {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
    let (lane, _receiver) = waiting(&mut bench, "k");
    begin_shutdown(&mut bench);
    assert!(
        bench.closed.contains(&lane) && bench.report.is_some(),
        "a wait of a standalone server cannot be given up over its connection"
    );
}

#[test]
fn with_leases_that_end_with_their_connections_a_shutdown_does_not_wait_for_queue_positions() {
    let mut bench = Bench::connected(|_| {});
    let (_, ticket) = ticket(&mut bench);
    bench.handle(Input::GiveUp(ticket.id()));
    begin_shutdown(&mut bench);
    assert!(bench.report.is_some());
}
