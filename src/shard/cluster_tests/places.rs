//! Queue positions of waits whose time is over, or whose callers are gone.

use super::*;
use crate::shard::sessions::MOST_GIVE_UPS;

/// Lets the time of a caller pass; the answer to its wait says that the key is held.
fn time_is_over(bench: &mut Bench, lane: LaneId, kind: RequestKind, caller: &mut Caller) {
    let request = bench.sent_on(lane, kind);
    bench.pass(60 * SECOND);
    bench.answer(lane, request, Response::TimedOut);
    assert!(is_busy(caller));
}

#[test]
fn a_place_is_given_up_when_the_time_of_its_wait_is_over_and_what_comes_of_it_is_given_back() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    bench.cut_unanswered(lane, RequestKind::Wait);
    let again = goes_on(&mut bench);
    time_is_over(&mut bench, again, RequestKind::Wait, &mut caller);
    bench.answer_to(again, RequestKind::GiveUp, Response::Granted(grant(1)));
    bench.sent_on(bench.pipelined(), RequestKind::Release);
}

#[test]
fn a_wait_at_a_leader_that_fell_silent_goes_on_in_its_session() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    let session = bench.shard.connections.get(lane).unwrap().session.clone();
    assert!(session.is_some());
    bench.falls_silent(bench.pipelined());
    assert_eq!(bench.hung_up, [lane]);
    bench.cut_unanswered(lane, RequestKind::Wait);
    bench.leader_is_found();
    let again = goes_on(&mut bench);
    assert_eq!(bench.shard.connections.get(again).unwrap().session, session);
    bench.answer_to(again, RequestKind::Wait, Response::Granted(grant(1)));
    confirmed(&mut bench);
    assert!(caller.try_recv().unwrap().is_ok());
}

#[test]
fn a_ticket_at_a_leader_that_fell_silent_goes_on_in_its_session() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, _caller) = collects(&mut bench, SECOND);
    bench.falls_silent(bench.pipelined());
    assert_eq!(bench.hung_up, [lane]);
    bench.cut_unanswered(lane, RequestKind::Collect);
    bench.leader_is_found();
    let again = goes_on(&mut bench);
    bench.sent_on(again, RequestKind::Rejoin);
}

#[test]
fn a_place_that_is_over_is_not_asked_for_again() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    time_is_over(&mut bench, lane, RequestKind::Wait, &mut caller);
    // The member may have ceased to lead, and so may not have ended the position.
    bench.answer_to(lane, RequestKind::GiveUp, Response::Refused(Status::NotEnqueued));
    assert!(!bench.has_sent(RequestKind::Rejoin));
    assert!(bench.opened.iter().all(|(_, opening)| opening.role != Role::Exclusive));
}

#[test]
fn a_member_that_does_not_lead_any_more_ends_no_place_so_the_next_leader_is_told() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    time_is_over(&mut bench, lane, RequestKind::Wait, &mut caller);
    bench.answer_to(lane, RequestKind::GiveUp, Response::Refused(Status::NotLeader(None)));
    bench.leader_is_found();
    let errand = bench.opens();
    // No `e` is sent first: the first `w` after an `e` would not end the position.
    assert!(!bench.has_sent(RequestKind::Rejoin));
    bench.answer_to(errand, RequestKind::GiveUp, Response::TimedOut);
    bench.answer_to(errand, RequestKind::GiveUp, Response::Refused(Status::NotEnqueued));
    assert!(!bench.has_sent(RequestKind::GiveUp));
}

#[test]
fn the_place_of_a_ticket_is_given_up_when_the_time_of_its_wait_is_over() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = collects(&mut bench, SECOND);
    time_is_over(&mut bench, lane, RequestKind::Collect, &mut caller);
    bench.answer_to(lane, RequestKind::GiveUp, Response::Granted(grant(1)));
    bench.sent_on(bench.pipelined(), RequestKind::Release);
}

#[test]
fn a_place_is_given_up_until_a_leader_has_answered() {
    let mut bench = Bench::cluster(|_| {});
    let (mut lane, caller) = waits(&mut bench, "k");
    let request = bench.sent_on(lane, RequestKind::Wait);
    drop(caller);
    bench.answer(lane, request, Response::TimedOut);
    for _ in 0..6 {
        bench.cut_unanswered(lane, RequestKind::GiveUp);
        bench.pass(2 * SECOND);
        bench
            .opened
            .retain(|(_, opening)| matches!(opening.purpose, Purpose::Session(_)));
        lane = reopened(&mut bench).0;
    }
    bench.sent_on(lane, RequestKind::GiveUp);
}

#[test]
fn a_place_that_was_reclaimed_often_is_given_up_like_any_other() {
    for times in 0..=2 {
        let mut bench = Bench::cluster(|_| {});
        let (mut lane, caller) = collects(&mut bench, SECOND);
        for _ in 0..times {
            bench.cut_unanswered(lane, RequestKind::Collect);
            lane = goes_on(&mut bench);
            bench.answer_to(lane, RequestKind::Rejoin, Response::Queued);
        }
        bench.cut_unanswered(lane, RequestKind::Collect);
        lane = goes_on(&mut bench);
        drop(caller);
        bench.answer_to(lane, RequestKind::Rejoin, Response::Queued);
        // The first `w` after an `e` that reclaims a position does not end it.
        bench.answer_to(lane, RequestKind::GiveUp, Response::TimedOut);
        bench.answer_to(lane, RequestKind::GiveUp, Response::TimedOut);
        bench.answer_to(lane, RequestKind::GiveUp, Response::Refused(Status::NotEnqueued));
        assert!(!bench.has_sent(RequestKind::GiveUp), "reclaimed {times} times");
    }
}

#[test]
fn a_member_that_never_knows_of_a_place_less_is_not_asked_forever() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    time_is_over(&mut bench, lane, RequestKind::Wait, &mut caller);
    for _ in 0..MOST_GIVE_UPS {
        bench.answer_to(lane, RequestKind::GiveUp, Response::TimedOut);
    }
    assert!(!bench.has_sent(RequestKind::GiveUp));
}
