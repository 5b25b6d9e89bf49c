//! Names: those under which lost tries are asked again, and one for all that a client holds.

use super::*;

#[test]
fn what_a_name_has_found_for_a_caller_is_not_given_back_with_the_place_of_another() {
    let mut bench = Bench::cluster(|_| {});
    bench.target = Target::Semaphore(Limit::new(2).unwrap());
    let (lane, mut callers) = lost_tries::<2>(&mut bench);
    let second = bench.sent_on(lane, RequestKind::Repeat);
    let first = bench.sent_on(lane, RequestKind::Repeat);
    bench.answer(lane, first, Response::Granted(grant(5)));
    bench.answer(lane, second, Response::TimedOut);
    // The server tells what the session has, as long as that is not another connection's.
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
fn what_a_name_has_found_is_no_grant_if_it_was_given_back_meanwhile() {
    let mut bench = Bench::keeping(60 * SECOND);
    let lease = bench.hold("k");
    let (lane, mut caller) = lost_try(&mut bench);
    drop(lease);
    let id = bench.shard.leases.ids().next().unwrap();
    bench.handle(Input::Release { id, told: None });
    bench.answer_to(bench.pipelined(), RequestKind::Release, Response::Done);
    bench.answer_to(lane, RequestKind::Repeat, Response::Granted(grant(1)));
    assert!(!bench.has_sent(RequestKind::Confirm));
    bench.answer_to(lane, RequestKind::Repeat, Response::TimedOut);
    assert!(is_busy(&mut caller));
}

#[test]
fn a_name_goes_with_its_last_answer_and_not_before() {
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
fn a_client_with_a_name_takes_back_what_an_earlier_one_held_once_it_is_confirmed() {
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
fn a_client_with_a_name_is_not_handed_its_own_lease_a_second_time() {
    let mut bench = Bench::named(60 * SECOND, "the-worker");
    let mut first = tries(&mut bench);
    let pipelined = bench.pipelined();
    bench.answer_to(pipelined, RequestKind::Try, Response::Granted(grant(1)));
    confirmed(&mut bench);
    let held = lease(&mut first);
    bench.cut(pipelined);
    let next = bench.leader_is_found();
    let mut second = tries(&mut bench);
    // Before its renewal has come to this connection.
    bench.answer_to(next, RequestKind::Try, Response::Granted(grant(1)));
    assert!(is_busy(&mut second));
    renewed(&mut bench);
    assert_eq!(state(&bench, &held), LeaseState::Held);
}
