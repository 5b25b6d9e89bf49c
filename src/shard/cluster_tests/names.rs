//! Tests of session names: those under which lost tries are repeated, and the stable name of a client.

use super::*;
use crate::net::lane::Outgoing;

#[test]
fn a_grant_that_was_found_for_a_caller_is_not_released_with_the_position_of_another() {
    let mut bench = Bench::cluster(|_| {});
    bench.target = Target::Semaphore(Limit::new(2).unwrap());
    let (lane, mut callers) = lost_tries::<2>(&mut bench);
    let second = bench.sent_on(lane, RequestKind::Repeat);
    let first = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, first, Response::Granted(grant(5)));
    bench.answer(lane, second, Response::TimedOut);
    // The server returns the session's grant, unless the grant belongs to another connection.
    bench.answer_to(lane, RequestKind::GiveUp, Response::Granted(grant(5)));
    assert!(!bench.has_sent(RequestKind::Release));
    confirmed(&mut bench);
    let lease = lease(&mut callers[0]);
    bench.answer_to(lane, RequestKind::GiveUp, Response::Granted(grant(5)));
    assert!(!bench.has_sent(RequestKind::Release));
    assert_eq!(state(&bench, &lease), LeaseState::Held);
    bench.answer_to(lane, RequestKind::GiveUp, Response::TimedOut);
    assert!(is_busy(&mut callers[1]));
}

#[test]
fn a_repeated_try_ignores_a_lease_that_was_released_meanwhile() {
    let mut bench = Bench::keeping(60 * SECOND);
    let lease = bench.hold("k");
    let (lane, mut caller) = lost_try(&mut bench);
    drop(lease);
    let id = bench.shard.leases.ids().next().unwrap();
    bench.handle(Input::Release { id, reply: None });
    bench.answer_to(bench.pipelined(), RequestKind::Release, Response::Done);
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(1)));
    assert!(!bench.has_sent(RequestKind::Confirm));
    bench.answer_to(lane, RequestKind::Repeat, Response::TimedOut);
    assert!(is_busy(&mut caller));
}

#[test]
fn a_name_remembers_its_grants_until_the_last_answer() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut callers) = lost_tries::<4>(&mut bench);
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
fn a_client_with_a_name_reclaims_the_lease_of_an_earlier_one_after_a_confirmation() {
    let mut bench = Bench::named(60 * SECOND, "the-worker");
    assert_eq!(name_of(&bench, bench.pipelined()), "the-worker");
    let mut caller = tries(&mut bench);
    let pipelined = bench.pipelined();
    bench.answer_to(pipelined, RequestKind::Try, Response::Granted(grant(7)));
    assert!(is_waiting(&mut caller));
    confirmed(&mut bench);
    assert_eq!(lease(&mut caller).cell.token, grant(7).token);
    bench.cut(pipelined);
    bench.leader_is_found();
    assert_eq!(name_of(&bench, bench.pipelined()), "the-worker");
}

#[test]
fn a_client_with_a_name_does_not_get_its_own_lease_again() {
    let mut bench = Bench::named(60 * SECOND, "the-worker");
    let mut first = tries(&mut bench);
    let pipelined = bench.pipelined();
    bench.answer_to(pipelined, RequestKind::Try, Response::Granted(grant(1)));
    confirmed(&mut bench);
    let held = lease(&mut first);
    bench.cut(pipelined);
    let next = bench.leader_is_found();
    let mut second = tries(&mut bench);
    // The server returns the lease that the client already has under this name.
    bench.answer_to(next, RequestKind::Try, Response::Granted(grant(1)));
    assert!(is_busy(&mut second));
    renewed(&mut bench);
    assert_eq!(state(&bench, &held), LeaseState::Held);
}

/// Breaks a connection while the grant of a first caller is being confirmed and the try of a second is under way. The
/// confirmation continues over the next pipelined connection; the returned connection sends the second try again. Also
/// returns the confirmation.
fn found_while_it_is_confirmed(bench: &mut Bench, is_late: bool) -> ([Caller; 2], LaneId, Outgoing<Pending>) {
    let before = bench.pipelined();
    let first = tries(bench);
    let request = bench.sent_on(before, RequestKind::Try);
    let sent_at = bench.now;
    if is_late {
        bench.pass(6 * SECOND);
    }
    bench.answer_from(before, request, Response::Granted(grant(1)), sent_at);
    let confirm = bench.sent_on(before, RequestKind::Confirm);
    let second = tries(bench);
    let tried = bench.sent_on(before, RequestKind::Try);
    bench.cut_with(before, vec![confirm, tried]);
    let next = bench.leader_is_found();
    let confirm = bench.sent_on(next, RequestKind::Confirm);
    let (lane, _) = reopened(bench);
    ([first, second], lane, confirm)
}

#[test]
fn a_grant_that_is_being_confirmed_is_not_given_to_another_caller() {
    for (mut bench, is_late) in [
        (Bench::cluster(|_| {}), true),
        (Bench::named(60 * SECOND, "the-worker"), false),
    ] {
        let ([mut first, mut second], lane, confirm) = found_while_it_is_confirmed(&mut bench, is_late);
        // The try reaches the leader before the confirmation, over another connection.
        bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(1)));
        assert!(
            !bench.has_sent(RequestKind::Confirm),
            "the grant belongs to another caller"
        );
        let pipelined = bench.pipelined();
        bench.answer(pipelined, confirm, Response::Renewed(Some(10)));
        assert_eq!(lease(&mut first).cell.token, grant(1).token);
        bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(1)));
        assert!(is_busy(&mut second));
    }
}

#[test]
fn a_grant_that_is_being_confirmed_is_not_released_with_the_position_of_another_caller() {
    let mut bench = Bench::cluster(|_| {});
    let ([mut first, mut second], lane, confirm) = found_while_it_is_confirmed(&mut bench, true);
    bench.answer_to(lane, RequestKind::Repeat, Response::TimedOut);
    assert!(is_busy(&mut second));
    bench.answer_to(lane, RequestKind::GiveUp, Response::Granted(grant(1)));
    assert!(!bench.has_sent(RequestKind::Release));
    let pipelined = bench.pipelined();
    bench.answer(pipelined, confirm, Response::Renewed(Some(10)));
    assert_eq!(lease(&mut first).cell.token, grant(1).token);
}

#[test]
fn a_client_with_a_name_forgets_the_tokens_of_ended_leases() {
    let mut bench = Bench::named(60 * SECOND, "the-worker");
    let pipelined = bench.pipelined();
    for number in 1..=100 {
        let mut caller = tries(&mut bench);
        bench.answer_to(pipelined, RequestKind::Try, Response::Granted(grant(number)));
        confirmed(&mut bench);
        drop(lease(&mut caller));
        let id = bench.shard.leases.ids().next().unwrap();
        bench.handle(Input::Release { id, reply: None });
        bench.answer_to(pipelined, RequestKind::Release, Response::Done);
    }
    assert_eq!(bench.shard.connections.get(pipelined).unwrap().found.len(), 0);
}

#[test]
fn a_try_that_is_answered_with_a_held_lease_is_busy() {
    let mut bench = Bench::named(60 * SECOND, "the-worker");
    let pipelined = bench.pipelined();
    let mut first = tries(&mut bench);
    bench.answer_to(pipelined, RequestKind::Try, Response::Granted(grant(1)));
    confirmed(&mut bench);
    let held = lease(&mut first);
    let mut second = tries(&mut bench);
    bench.answer_to(pipelined, RequestKind::Try, Response::Granted(grant(1)));
    assert!(is_busy(&mut second));
    assert!(state(&bench, &held) != LeaseState::Lost(LostReason::Disconnected));
    assert_eq!(bench.shard.leases.ids().count(), 1);
}

#[test]
fn a_position_that_cannot_be_given_up_over_a_connection_does_not_affect_the_other_tries() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut callers) = lost_tries::<2>(&mut bench);
    let [second, first] = [0; 2].map(|_| bench.sent_on(lane, RequestKind::Repeat));
    // Another member leads while the previous one still has to answer.
    let mut third = bench.acquire("x", Patience::Try);
    let refusal = Response::Refused(Status::NotLeader(Some("b:1".into())));
    bench.answer_to(bench.pipelined(), RequestKind::Try, refusal);
    bench.leader_is_found();
    bench.answer(lane, first, Response::TimedOut);
    assert!(is_busy(&mut callers[0]));
    bench.cut_with(lane, vec![second]);
    // From here on, all connections come up, and all requests are answered.
    for _ in 0..20 {
        for (lane, _) in std::mem::take(&mut bench.opened) {
            bench.up(lane);
        }
        for (lane, request) in std::mem::take(&mut bench.sent) {
            let response = match request.tag.kind() {
                RequestKind::GiveUp => Response::Refused(Status::NotEnqueued),
                _ => Response::TimedOut,
            };
            bench.answer(lane, request, response);
        }
        bench.pass(SECOND);
    }
    assert!(is_busy(&mut callers[1]), "the try is repeated under its name");
    assert!(is_busy(&mut third));
    assert!(bench.shard.repeats.is_empty());
}

#[test]
fn tries_that_wait_to_be_repeated_fail_with_a_fatal_error() {
    let mut bench = Bench::cluster(|_| {});
    let mut caller = tries(&mut bench);
    let before = bench.pipelined();
    bench.cut_unanswered(before, RequestKind::Try);
    bench.leader_is_found();
    let (lane, _) = bench.opened.pop().expect("a connection is opened");
    bench.fail_with(lane, Error::new(ErrorKind::Auth, "the token is refused").fatal());
    assert_eq!(failed(&mut caller), ErrorKind::Auth);
}
