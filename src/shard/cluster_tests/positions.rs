//! Tests of queue positions whose wait has timed out, or whose caller is gone.

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
fn a_position_is_given_up_when_its_wait_times_out_and_its_grant_is_released() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    bench.cut_unanswered(lane, RequestKind::Wait);
    let again = goes_on(&mut bench);
    time_is_over(&mut bench, again, RequestKind::Wait, &mut caller);
    bench.answer_to(again, RequestKind::GiveUp, Response::Granted(grant(1)));
    bench.sent_on(bench.pipelined(), RequestKind::Release);
}

#[test]
fn a_wait_at_a_silent_leader_continues_in_its_session() {
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
fn a_ticket_at_a_silent_leader_continues_in_its_session() {
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
fn a_position_that_has_ended_is_not_reclaimed() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    time_is_over(&mut bench, lane, RequestKind::Wait, &mut caller);
    // The member may have ceased to lead, so its `timeout` may not have ended the position.
    bench.answer_to(lane, RequestKind::GiveUp, Response::Refused(Status::NotEnqueued));
    assert!(!bench.has_sent(RequestKind::Rejoin));
    assert!(bench.opened.iter().all(|(_, opening)| opening.role != Role::Exclusive));
}

#[test]
fn a_position_that_a_former_leader_does_not_end_is_given_up_at_the_next() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    time_is_over(&mut bench, lane, RequestKind::Wait, &mut caller);
    bench.answer_to(lane, RequestKind::GiveUp, Response::Refused(Status::NotLeader(None)));
    bench.leader_is_found();
    let give_up = bench.opens();
    // No `e` is sent first: the first `w` after an `e` would not end the position.
    assert!(!bench.has_sent(RequestKind::Rejoin));
    bench.answer_to(give_up, RequestKind::GiveUp, Response::TimedOut);
    bench.answer_to(give_up, RequestKind::GiveUp, Response::Refused(Status::NotEnqueued));
    assert!(!bench.has_sent(RequestKind::GiveUp));
}

#[test]
fn the_position_of_a_ticket_is_given_up_when_its_wait_times_out() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = collects(&mut bench, SECOND);
    time_is_over(&mut bench, lane, RequestKind::Collect, &mut caller);
    bench.answer_to(lane, RequestKind::GiveUp, Response::Granted(grant(1)));
    bench.sent_on(bench.pipelined(), RequestKind::Release);
}

#[test]
fn a_position_is_given_up_again_until_a_leader_has_answered() {
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
fn a_position_that_was_reclaimed_often_is_given_up_like_any_other() {
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
fn a_member_that_always_answers_timeout_is_not_asked_forever() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    time_is_over(&mut bench, lane, RequestKind::Wait, &mut caller);
    for _ in 0..MOST_GIVE_UPS {
        bench.answer_to(lane, RequestKind::GiveUp, Response::TimedOut);
    }
    assert!(!bench.has_sent(RequestKind::GiveUp));
}
