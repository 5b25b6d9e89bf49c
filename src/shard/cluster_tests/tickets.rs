//! Tests of the TTL of a ticket's grant.

use super::*;

/// Returns the answer to a `w`: a grant, and its remaining time.
fn left_of(number: u64, left: u64) -> Response {
    Response::Granted(Grant {
        ttl: Ttl::from_secs(left).unwrap(),
        ..grant(number)
    })
}

#[test]
fn a_ticket_is_renewed_with_the_ttl_that_was_asked_for_and_not_with_the_remaining_time() {
    for policy in [
        RenewTerms::default(),
        RenewTerms {
            never: true,
            ..RenewTerms::default()
        },
    ] {
        let mut bench = Bench::cluster(|_| {});
        bench.ttl = Ttl::from_secs(30);
        bench.policy = policy;
        let (lane, mut caller) = collects(&mut bench, 29 * SECOND + SECOND / 2);
        // Less than a second of the TTL is left. The server rounds that to zero, and answers with its default TTL
        // instead.
        bench.answer_to(lane, RequestKind::Collect, left_of(1, 33));
        assert!(
            is_waiting(&mut caller),
            "the caller gets the grant only after a confirmation"
        );
        answers_with_ttl(&mut bench, RequestKind::Confirm, 30, Response::Renewed(Some(30)));
        assert_eq!(lease(&mut caller).cell.ttl.as_secs(), 30);
    }
}

#[test]
fn a_recent_grant_of_a_ticket_is_also_confirmed_in_a_cluster() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = collects(&mut bench, Duration::ZERO);
    bench.answer_to(lane, RequestKind::Collect, left_of(1, 9));
    answers_with_ttl(
        &mut bench,
        RequestKind::Confirm,
        10,
        Response::Refused(Status::LeaseExpired),
    );
    assert_eq!(failed(&mut caller), ErrorKind::LeaseExpired);
}

#[test]
fn a_ticket_without_a_ttl_has_the_default_ttl_that_the_server_gave_to_an_acquire() {
    for (left, expected) in [(Some(20), 20), (None, 33)] {
        let mut bench = Bench::connected(|_| {});
        bench.ttl = None;
        if let Some(left) = left {
            let caller = bench.acquire("other", Patience::Try);
            bench.answer_to(bench.pipelined(), RequestKind::Try, left_of(7, left));
            std::mem::forget(caller);
        }
        let (lane, mut caller) = collects(&mut bench, SECOND);
        bench.answer_to(lane, RequestKind::Collect, left_of(1, 4));
        answers_with_ttl(
            &mut bench,
            RequestKind::Confirm,
            expected,
            Response::Renewed(Some(expected)),
        );
        assert_eq!(lease(&mut caller).cell.ttl.as_secs(), expected);
    }
}
