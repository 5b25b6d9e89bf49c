//! Tests of changing leaders, with a clock that the tests control. `fact_N` in the name of a test refers to the same fact
//! as in `tests/it/cluster_server/facts.rs`.

use std::time::Duration;

use super::super::bench::{Bench, SECOND, key, slots};
use crate::protocol::{Request, Response, Status};
use crate::server::event::EventKind as Happened;
use crate::server::state::ServerAnswer;
use crate::stats::Stats;
use crate::types::{Kind, Target, WaitSecs};

const ERROR: Response = Response::Refused(Status::Error);

fn moved_to(address: &str) -> Response {
    Response::Refused(Status::NotLeader(Some(address.into())))
}

fn no_leader() -> Response {
    Response::Refused(Status::NotLeader(None))
}

#[test]
fn followers_answer_requests_that_need_no_leader_and_name_the_leader_otherwise() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let leaders = |kind| {
        let target = match kind {
            Kind::Lock => Target::Lock,
            Kind::Semaphore => slots(2),
        };
        let (key, wait, ttl) = (key("k"), WaitSecs::TRY, None);
        [
            Request::Acquire {
                target,
                key: key.clone(),
                wait,
                ttl,
            },
            Request::Enqueue {
                target,
                key: key.clone(),
                ttl,
            },
            Request::Wait {
                kind,
                key: key.clone(),
                wait,
            },
            Request::Renew {
                kind,
                key: key.clone(),
                token,
                ttl,
            },
            Request::Release { kind, key, token },
            Request::Barrier,
        ]
    };
    for request in leaders(Kind::Lock).into_iter().chain(leaders(Kind::Semaphore)) {
        assert_eq!(bench.ask(4, request.clone()), moved_to("127.0.0.1:1"), "{request:?}");
        assert_ne!(bench.ask(1, request.clone()), moved_to("127.0.0.1:1"), "{request:?}");
    }
    assert_eq!(bench.ask(5, Request::Ping), Response::Done);
    for (connection, said) in [
        (1, r#""connections":3"#),
        (
            1,
            r#""cluster":{"node_id":"n0","role":"leader","term":1,"leader_id":"n0","leader_addr":"127.0.0.1:1""#,
        ),
        (1, r#""voters":["n0","n1","n2"]"#),
        (4, r#""connections":1"#),
        (
            4,
            r#""cluster":{"node_id":"n1","role":"follower","term":1,"leader_id":"n0","leader_addr":"127.0.0.1:1""#,
        ),
    ] {
        let Response::Json(json) = bench.ask(connection, Request::Stats) else {
            panic!("a member refused `stats`");
        };
        assert!(json.contains(said), "{connection}: {json} without {said}");
    }
    bench.state.depose();
    assert_eq!(bench.ask(1, Request::Barrier), no_leader());
    let Response::Json(json) = bench.ask(1, Request::Stats) else {
        panic!("a member refused `stats`");
    };
    assert!(
        json.contains(r#""role":"follower","term":2,"leader_id":"","commit_index":15"#),
        "{json}"
    );
}

#[test]
fn followers_name_the_address_that_a_test_has_set() {
    let mut bench = Bench::cluster(|_| {});
    let say = |bench: &mut Bench, member, to: Option<&str>| {
        let membership = bench.state.membership().expect("it is a cluster");
        membership.redirect(member, to.map(Box::from));
    };
    say(&mut bench, 0, Some("stranger:1"));
    say(&mut bench, 1, Some("stranger:2"));
    assert_eq!(
        bench.ask(1, Request::Barrier),
        Response::Done,
        "a leader needs to name no other member"
    );
    let Response::Json(json) = bench.ask(1, Request::Stats) else {
        panic!("a member refused `stats`");
    };
    assert!(json.contains(r#""leader_addr":"127.0.0.1:1""#), "{json}");
    assert_eq!(bench.ask(4, Request::Barrier), moved_to("stranger:2"));
    assert_eq!(bench.ask(5, Request::Barrier), moved_to("127.0.0.1:1"));
    bench.lead(2);
    assert_eq!(bench.ask(1, Request::Barrier), moved_to("stranger:1"));
    bench.state.depose();
    assert_eq!(bench.ask(1, Request::Barrier), moved_to("stranger:1"));
    assert_eq!(bench.ask(5, Request::Barrier), no_leader());
    say(&mut bench, 0, None);
    assert_eq!(bench.ask(1, Request::Barrier), no_leader());
}

#[test]
fn the_cap_on_connections_applies_to_each_member() {
    let mut bench = Bench::cluster(|options| options.max_connections = 3);
    assert_eq!(bench.state.connect(0), None);
    assert!(bench.state.connect(1).is_some());
    let session = bench.connect(2, "r");
    bench.lead(2);
    bench.token(session, Target::Lock, "k");
    bench.disconnect(session);
    // A connection that has ended does not count.
    assert!(bench.state.connect(2).is_some());
    assert!(bench.state.connect(2).is_some());
    assert_eq!(bench.state.connect(2), None);
}

#[test]
fn fact_17_a_deposed_leader_neither_answers_nor_cancels_blocked_requests() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let mut granted = bench.waiting(2, Target::Lock, "k");
    let mut late = bench.waiting(3, Target::Lock, "k");
    bench.lead(1);
    assert_eq!((granted.answer(), late.answer()), (None, None));
    assert!(!bench.state.give_up(3, late.0, bench.now), "its time is over");
    assert_eq!(
        bench.state.stats(bench.now).locks[0].waiters,
        2,
        "its queue position stays"
    );
    assert_eq!(bench.release(4, Kind::Lock, "k", token), Response::Done);
    let token = granted.granted();
    assert_eq!(bench.release(4, Kind::Lock, "k", token), Response::Done);
    assert_eq!(
        bench.acquire(4, Target::Lock, "k"),
        Response::TimedOut,
        "the lock was granted at the queue position of the request whose time was over"
    );
}

#[test]
fn the_grant_of_a_reclaimed_position_is_sent_at_both_members() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let session = bench.connect(0, "r");
    let mut old = bench.waiting(session, Target::Lock, "k");
    bench.lead(1);
    let again = bench.connect(1, "r");
    let mut new = bench.waiting(again, Target::Lock, "k");
    bench.release(4, Kind::Lock, "k", token);
    assert_eq!(old.granted(), new.granted());
    assert_eq!(bench.count(Happened::Granted), 2);
}

#[test]
fn fact_14_a_session_reclaims_at_the_next_leader_even_with_an_orphan_ttl_of_zero() {
    let mut bench = Bench::cluster(|options| options.orphan_ttl = Duration::ZERO);
    let session = bench.connect(0, "r");
    let held = bench.token(session, Target::Lock, "held");
    let token = bench.token(1, Target::Lock, "contended");
    let _cut = bench.waiting(session, Target::Lock, "contended");
    let _other = bench.waiting(2, Target::Lock, "contended");
    bench.state.crash(0);
    for connection in [session, 1, 2, 3] {
        bench.disconnect(connection);
    }
    assert_eq!(bench.ask(4, Request::Barrier), no_leader());
    bench.lead(2);
    let mut newcomer = bench.waiting(5, Target::Lock, "contended");
    let again = bench.connect(2, "r");
    assert_eq!(bench.token(again, Target::Lock, "held"), held);
    let mut back = bench.waiting(again, Target::Lock, "contended");
    bench.release(5, Kind::Lock, "contended", token);
    let token = back.granted();
    // The queue position of the connection that died is granted in its turn, and its lease lasts for a TTL.
    bench.release(again, Kind::Lock, "contended", token);
    assert_eq!(newcomer.answer(), None);
    bench.pass(30 * SECOND);
    bench.state.expire(bench.now);
    newcomer.granted();
}

#[test]
fn fact_23_a_member_that_leads_again_still_knows_its_connections() {
    let mut bench = Bench::cluster(|options| options.orphan_ttl = Duration::ZERO);
    bench.token(1, Target::Lock, "held");
    assert!(matches!(bench.enqueue(1, "free", 30), Response::Acquired(_)));
    bench.lead(1);
    bench.lead(0);
    assert!(
        matches!(bench.collect(1, "free"), Response::Granted(_)),
        "its tickets, too"
    );
    bench.disconnect(1);
    bench.token(2, Target::Lock, "held");
    // A lease whose connection ended while the member did not lead runs until its TTL. Its session cannot reclaim it.
    let session = bench.connect(0, "r");
    bench.token(session, Target::Lock, "ghost");
    bench.lead(1);
    bench.disconnect(session);
    bench.lead(0);
    let again = bench.connect(0, "r");
    assert_eq!(bench.acquire(again, Target::Lock, "ghost"), Response::TimedOut);
}

#[test]
fn fact_1_a_request_during_which_leadership_is_lost_is_carried_out_but_answered_with_not_leader() {
    let mut bench = Bench::cluster(|options| options.orphan_ttl = Duration::ZERO);
    let fall = |bench: &mut Bench, next| {
        let members = bench.state.membership().expect("it is a cluster");
        members.trouble.fall_in_flight(next);
    };
    let session = bench.connect(0, "r");
    fall(&mut bench, Some(1));
    assert_eq!(bench.acquire(session, Target::Lock, "k"), moved_to("127.0.0.1:2"));
    let again = bench.connect(1, "r");
    let token = bench.token(again, Target::Lock, "k");
    assert_eq!(bench.count(Happened::Granted), 1, "the same ref gets the same grant");
    assert_eq!(bench.acquire(4, Target::Lock, "k"), Response::TimedOut);
    // A try leaves its queue position behind, because the former leader cannot cancel it any more.
    fall(&mut bench, Some(2));
    assert_eq!(bench.acquire(4, Target::Lock, "k"), moved_to("127.0.0.1:3"));
    assert_eq!(bench.state.stats(bench.now).locks[0].waiters, 1);
    // The client cannot know whether this release happened.
    fall(&mut bench, None);
    assert_eq!(bench.release(5, Kind::Lock, "k", token), no_leader());
    bench.lead(2);
    assert_eq!(bench.release(5, Kind::Lock, "k", token), ERROR);
}

#[test]
fn fact_20_requests_that_need_a_majority_hang_at_an_isolated_leader_and_it_learns_of_no_grant() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let mut waits = bench.waiting(2, Target::Lock, "k");
    bench.state.isolate(0);
    bench.lead(1);
    let request = Request::Renew {
        kind: Kind::Lock,
        key: key("k"),
        token,
        ttl: None,
    };
    let ServerAnswer::Hangs { until, mut reply } = bench.send(1, request) else {
        panic!("it believes that it leads");
    };
    assert_eq!(until, bench.now + 23 * SECOND);
    for (connection, role) in [(1, r#""role":"leader","term":1"#), (4, r#""role":"leader","term":2"#)] {
        let Response::Json(json) = bench.ask(connection, Request::Stats) else {
            panic!("a member refused `stats`");
        };
        assert!(json.contains(role), "{connection}: {json}");
    }
    // The other members do not learn of the ends of connections that the isolated member sees.
    bench.disconnect(3);
    assert_eq!(bench.release(4, Kind::Lock, "k", token), Response::Done);
    assert_eq!(waits.answer(), None);
    assert_eq!(
        bench.acquire(4, Target::Lock, "k"),
        Response::TimedOut,
        "the lock was granted at the queue position"
    );
    bench.state.rejoin(0);
    waits.granted();
    assert_eq!(reply.try_recv().ok(), Some(moved_to("127.0.0.1:2")));
    assert_eq!(bench.ask(1, Request::Barrier), moved_to("127.0.0.1:2"));
}

#[test]
fn fact_18_a_leader_that_shuts_down_cancels_blocked_requests_and_turns_further_ones_away() {
    let mut bench = Bench::cluster(|options| options.orphan_ttl = Duration::ZERO);
    bench.token(1, Target::Lock, "k");
    let mut waits = bench.waiting(2, Target::Lock, "k");
    bench.state.drain(0, bench.now);
    assert_eq!(waits.answer(), Some(ERROR));
    assert_eq!(bench.count(Happened::Left), 1);
    assert!(bench.state.turns_requests_away(1) && !bench.state.turns_requests_away(4));
    assert_eq!(bench.state.leader(), Some(0), "until it is done");
    bench.disconnect(1);
    assert_eq!(bench.count(Happened::Disconnected), 1);
}

#[test]
fn fact_19_the_log_index_counts_what_members_agree_on() {
    let mut bench = Bench::cluster(|_| {});
    let entries = |bench: &mut Bench| {
        let Response::Json(json) = bench.ask(1, Request::Stats) else {
            panic!("a member refused `stats`");
        };
        let from = json
            .split(r#""last_log_index":"#)
            .nth(1)
            .expect("the log index is in the report");
        from.split(',')
            .next()
            .and_then(|number| number.parse::<u64>().ok())
            .expect("a number")
    };
    bench.ask(1, Request::Ping);
    assert_eq!(entries(&mut bench), 0);
    assert_eq!(bench.renew(1, "k", crate::types::Token::NEVER_ISSUED, 30), ERROR);
    assert_eq!(entries(&mut bench), 1, "even a renewal of an unknown token is an entry");
    bench.token(1, Target::Lock, "k");
    assert_eq!(bench.acquire(2, Target::Lock, "k"), Response::TimedOut);
    assert_eq!(
        entries(&mut bench),
        4,
        "the grant is one entry, and the try that times out is two"
    );
    bench.disconnect(3);
    assert_eq!(entries(&mut bench), 5);
}

#[test]
fn fact_11_a_fence_that_cannot_be_persisted_is_an_error() {
    let mut bench = Bench::cluster(|_| {});
    let fail = |bench: &mut Bench, fails| {
        let members = bench.state.membership().expect("it is a cluster");
        members.trouble.fail_to_persist(fails);
    };
    fail(&mut bench, true);
    assert_eq!(bench.acquire(1, Target::Lock, "k"), ERROR);
    assert_eq!(bench.enqueue(1, "k", 30), ERROR);
    fail(&mut bench, false);
    bench.token(1, Target::Lock, "k");
}

#[test]
fn without_a_leader_the_state_does_not_change_but_time_passes() {
    let mut bench = Bench::cluster(|_| {});
    let session = bench.connect(0, "r");
    let token = bench.token(1, Target::Lock, "k");
    assert_eq!(bench.enqueue(session, "k", 30), Response::Queued);
    bench.state.depose();
    bench.pass(30 * SECOND);
    bench.state.expire(bench.now);
    assert_eq!(bench.count(Happened::Expired), 0);
    bench.lead(1);
    assert_eq!(bench.count(Happened::Expired), 1);
    assert_eq!(bench.renew(4, "k", token, 30), ERROR);
    let again = bench.connect(1, "r");
    let next = bench.token(again, Target::Lock, "k");
    assert!(
        next.first_half() > token.first_half(),
        "the queue position was granted, and the session has reclaimed the lease"
    );
}

#[test]
fn a_new_leader_forgets_refs_or_tokens_on_request() {
    for (refs, tokens) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut bench = Bench::cluster(|_| {});
        let membership = bench.state.membership().expect("it is a cluster");
        membership.trouble.forget_refs(refs);
        membership.trouble.forget_tokens(tokens);
        let session = bench.connect(0, "r");
        let held = bench.token(session, Target::Lock, "held");
        let token = bench.token(1, Target::Lock, "k");
        let _cut = bench.waiting(session, Target::Lock, "k");
        bench.lead(1);
        let again = bench.connect(1, "r");
        let back = bench.acquire(again, Target::Lock, "held");
        let known = bench.renew(again, "k", token, 30);
        assert_eq!(known == ERROR, tokens, "{refs} {tokens}: {known:?}");
        match (refs, tokens) {
            (false, false) => assert!(matches!(back, Response::Granted(grant) if grant.token == held)),
            (true, false) => assert_eq!(back, Response::TimedOut),
            (_, true) => assert!(matches!(back, Response::Granted(grant) if grant.token != held)),
        }
        assert_eq!(bench.count(Happened::Left), usize::from(refs), "{refs} {tokens}");
        assert_eq!(bench.count(Happened::Forgotten), if tokens { 2 } else { 0 });
    }
}

#[test]
fn changes_of_leaders_leave_nothing_behind() {
    let mut bench = Bench::cluster(|_| {});
    let mut live = Vec::new();
    for round in 0..100_usize {
        let leader = round % 3;
        bench.lead(leader);
        let name = format!("k{round}");
        let session = bench.connect(leader, &format!("r{}", round % 7));
        bench.token(session, Target::Lock, &name);
        let plain = bench.state.connect(leader).expect("there is room");
        let _waits = bench.waiting(plain, Target::Lock, &name);
        let other = bench.connect(leader, &format!("s{round}"));
        assert_eq!(bench.enqueue(other, &name, 30), Response::Queued);
        live.extend([session, plain, other]);
        bench.pass(SECOND);
        bench.state.expire(bench.now);
    }
    for connection in live.into_iter().chain(1..=5) {
        bench.disconnect(connection);
    }
    for _ in 0..4 {
        bench.pass(30 * SECOND);
        bench.state.expire(bench.now);
    }
    bench.pass(60 * SECOND);
    bench.state.collect(bench.now);
    assert!(bench.state.entries.is_empty() && bench.state.ends.is_empty());
    assert_eq!(bench.state.clients.len(), 0);
    assert!(bench.state.orphans.is_empty());
}

#[test]
fn a_member_that_is_cut_off_asks_for_votes_until_it_sees_the_others_again() {
    let mut bench = Bench::cluster(|_| {});
    let role = |bench: &mut Bench| match bench.ask(5, Request::Stats) {
        Response::Json(json) => serde_json::from_str::<Stats>(&json).unwrap().cluster.unwrap().role,
        other => panic!("{other:?}"),
    };
    assert_eq!(role(&mut bench), "follower");
    bench.state.isolate(2);
    assert_eq!(role(&mut bench), "pre-candidate");
    bench.state.rejoin(2);
    assert_eq!(role(&mut bench), "follower");
}
