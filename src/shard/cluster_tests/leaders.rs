//! Tests how the shard finds the leader.

use super::*;

/// Returns the `stats` of a member with this role.
fn stats_of(role: &str) -> Response {
    Response::Json(format!("{{\"cluster\":{{\"role\":\"{role}\"}}}}").into())
}

#[test]
fn a_member_with_waits_is_asked_whether_it_leads_if_no_answer_has_shown_it() {
    let mut bench = Bench::cluster(|_| {});
    let (lane, mut caller) = waits(&mut bench, "k");
    let request = bench.sent_on(lane, RequestKind::Wait);
    bench.pass(11 * SECOND);
    let disposable = bench.opens();
    bench.answer_to(disposable, RequestKind::Look, stats_of("leader"));
    assert!(bench.shard.connections.is_serving());
    bench.pass(11 * SECOND);
    let disposable = bench.opens();
    bench.answer_to(disposable, RequestKind::Look, stats_of("follower"));
    assert!(!bench.shard.connections.is_serving());
    bench.leader_is_found();
    // This connection leads to the previous leader, so its end does not concern the new one.
    bench.cut_with(lane, vec![request]);
    let again = bench.opens();
    bench.sent_on(again, RequestKind::Wait);
    assert!(is_waiting(&mut caller));
}

#[test]
fn without_waits_or_if_answers_show_it_no_member_is_asked_whether_it_leads() {
    let mut bench = Bench::cluster(|_| {});
    bench.pass(60 * SECOND);
    let (_, _caller) = waits(&mut bench, "k");
    let _lease = bench.hold("renewed");
    for _ in 0..20 {
        bench.pass(SECOND);
        if bench.has_sent(RequestKind::Renew) {
            renewed(&mut bench);
        }
    }
    assert!(bench.opened.is_empty(), "no connection is opened to ask");
}
