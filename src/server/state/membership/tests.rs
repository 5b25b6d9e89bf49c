//! Leaders that change, against a clock that the test owns.

use std::time::Duration;

use super::super::bench::{Bench, SECOND, key, slots};
use crate::protocol::{Request, Response, Status};
use crate::server::event::EventKind as Happened;
use crate::server::ids::{ConnectionId, number};
use crate::types::{Kind, Target, WaitSecs};

const ERROR: Response = Response::Refused(Status::Error);

fn moved_to(address: &str) -> Response {
    Response::Refused(Status::NotLeader(Some(address.into())))
}

fn nobody_leads() -> Response {
    Response::Refused(Status::NotLeader(None))
}

#[test]
fn followers_answer_what_changes_nothing_and_name_the_leader_for_the_rest() {
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
            panic!("all members tell");
        };
        assert!(json.contains(said), "{connection}: {json} without {said}");
    }
    bench.state.depose(bench.now);
    assert_eq!(bench.ask(1, Request::Barrier), nobody_leads());
    let Response::Json(json) = bench.ask(1, Request::Stats) else {
        panic!("all members tell");
    };
    assert!(
        json.contains(r#""role":"follower","term":2,"leader_id":"","commit_index":0"#),
        "{json}"
    );
}

#[test]
fn a_new_leader_knows_the_tokens_and_the_old_one_sends_its_waiters_there() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let mut waiting = bench.waiting(2, Target::Lock, "k");
    assert_eq!(bench.enqueue(3, "k", 30), Response::Queued);
    bench.lead(1);
    assert_eq!(waiting.answer(), Some(moved_to("127.0.0.1:2")));
    assert_eq!(bench.collect(3, "k"), moved_to("127.0.0.1:2"));
    assert_eq!(bench.count(Happened::Left), 2, "without a ref a place is given up");
    assert_eq!(bench.renew(1, "k", token, 30), moved_to("127.0.0.1:2"));
    // Its leader gone, a connection owns nothing any more.
    bench.disconnect(1);
    assert_eq!(bench.acquire(4, Target::Lock, "k"), Response::TimedOut);
    assert_eq!(bench.renew(4, "k", token, 30), Response::Renewed(Some(30)));
    assert_eq!(bench.release(4, Kind::Lock, "k", token), Response::Done);
    let next = bench.token(4, Target::Lock, "k");
    assert!(next.first_half() > token.first_half());
    // It leads already: nothing happens.
    let mut waiting = bench.waiting(4, Target::Lock, "k");
    bench.lead(1);
    assert_eq!(waiting.answer(), None);
}

#[test]
fn a_leader_that_returns_finds_no_connection_that_owns_what_was_held_before() {
    let mut bench = Bench::cluster(|_| {});
    let held = bench.token(1, Target::Lock, "held");
    let renewed = bench.token(1, Target::Lock, "renewed");
    assert!(matches!(bench.enqueue(1, "free", 30), Response::Acquired(_)));
    bench.lead(1);
    bench.lead(0);
    assert_eq!(
        bench.collect(1, "free"),
        Response::Refused(Status::NotEnqueued),
        "its tickets are gone"
    );
    assert_eq!(bench.renew(1, "renewed", renewed, 30), Response::Renewed(Some(30)));
    bench.disconnect(1);
    assert_eq!(bench.acquire(2, Target::Lock, "held"), Response::TimedOut, "it runs on");
    bench.token(2, Target::Lock, "renewed");
    assert_eq!(bench.release(2, Kind::Lock, "held", held), Response::Done);
}

#[test]
fn a_session_gets_its_lease_and_its_place_back_from_the_new_leader() {
    let mut bench = Bench::cluster(|_| {});
    let session = bench.connect(0, "r");
    let held = bench.token(session, Target::Lock, "held");
    let token = bench.token(1, Target::Lock, "contended");
    let mut cut = bench.waiting(session, Target::Lock, "contended");
    let _other = bench.waiting(2, Target::Lock, "contended");
    bench.lead(2);
    assert_eq!(cut.answer(), Some(moved_to("127.0.0.1:3")));
    let mut newcomer = bench.waiting(5, Target::Lock, "contended");
    let again = bench.connect(2, "r");
    assert_eq!(bench.token(again, Target::Lock, "held"), held);
    let mut back = bench.waiting(again, Target::Lock, "contended");
    bench.release(5, Kind::Lock, "contended", token);
    back.granted();
    assert_eq!(newcomer.answer(), None);
}

#[test]
fn what_was_taken_back_and_released_is_nobodys_any_more() {
    let mut bench = Bench::cluster(|_| {});
    let session = bench.connect(0, "r");
    let token = bench.token(session, Target::Lock, "k");
    bench.lead(1);
    let again = bench.connect(1, "r");
    assert_eq!(bench.token(again, Target::Lock, "k"), token);
    assert_eq!(bench.release(again, Kind::Lock, "k", token), Response::Done);
    let token = bench.token(4, Target::Lock, "k");
    let _cut = bench.waiting(again, Target::Lock, "k");
    bench.disconnect(again);
    let newcomer = bench.connect(1, "another");
    let mut last = bench.waiting(newcomer, Target::Lock, "k");
    // It is the place that its session has of this key, and not the lease that it had.
    let third = bench.connect(1, "r");
    let mut first = bench.waiting(third, Target::Lock, "k");
    bench.release(4, Kind::Lock, "k", token);
    first.granted();
    assert_eq!(last.answer(), None);
}

#[test]
fn a_connection_that_stayed_takes_its_own_back_when_its_leader_returns() {
    let mut bench = Bench::cluster(|_| {});
    let session = bench.connect(0, "r");
    let held = bench.token(session, Target::Lock, "held");
    let token = bench.token(1, Target::Lock, "k");
    assert_eq!(bench.enqueue(session, "k", 30), Response::Queued);
    let mut last = bench.waiting(2, Target::Lock, "k");
    bench.lead(1);
    assert_eq!(last.answer(), Some(moved_to("127.0.0.1:2")));
    bench.lead(0);
    let mut newcomer = bench.waiting(2, Target::Lock, "k");
    assert_eq!(bench.enqueue(session, "k", 30), Response::Queued);
    assert_eq!(bench.token(session, Target::Lock, "held"), held);
    bench.release(1, Kind::Lock, "k", token);
    assert!(matches!(bench.collect(session, "k"), Response::Granted(_)));
    assert_eq!(newcomer.answer(), None);
    // It owns both again: its end makes them orphans, as connections' ends do.
    bench.disconnect(session);
    bench.pass(10 * SECOND);
    bench.state.expire(bench.now);
    newcomer.granted();
    bench.token(3, Target::Lock, "held");
}

#[test]
fn each_new_leader_gives_orphans_their_whole_time() {
    let mut bench = Bench::cluster(|_| {});
    let ended = bench.connect(0, "ended");
    let left = bench.connect(0, "left");
    let [_, lease, _] = [(ended, "ended"), (left, "left"), (1, "k")].map(|(connection, name)| {
        let token = bench.token(connection, Target::Lock, name);
        assert_eq!(bench.renew(connection, name, token, 300), Response::Renewed(Some(300)));
        token
    });
    let _place = bench.waiting(left, Target::Lock, "k");
    bench.disconnect(ended);
    for leader in [Some(1), None, Some(2)] {
        bench.pass(9 * SECOND);
        bench.state.expire(bench.now);
        match leader {
            Some(leader) => bench.lead(leader),
            None => bench.state.depose(bench.now),
        }
    }
    // While nobody leads nothing is given up.
    bench.state.depose(bench.now);
    bench.pass(60 * SECOND);
    bench.state.expire(bench.now);
    bench.lead(1);
    bench.pass(10 * SECOND - Duration::from_nanos(1));
    bench.state.expire(bench.now);
    assert_eq!(bench.count(Happened::Left) + bench.count(Happened::Disconnected), 0);
    bench.pass(Duration::from_nanos(1));
    bench.state.expire(bench.now);
    assert_eq!(bench.count(Happened::Left), 1, "the place is given up");
    bench.token(4, Target::Lock, "ended");
    assert_eq!(
        bench.acquire(4, Target::Lock, "left"),
        Response::TimedOut,
        "this one runs on"
    );
    let late = bench.connect(1, "left");
    assert_eq!(
        bench.acquire(late, Target::Lock, "left"),
        Response::TimedOut,
        "but is nobody's"
    );
    assert_eq!(
        bench.renew(late, "left", lease, 30),
        Response::Renewed(Some(30)),
        "save who has its token"
    );
}

#[test]
fn without_a_leader_the_state_rests_but_time_does_not() {
    let mut bench = Bench::cluster(|_| {});
    let session = bench.connect(0, "r");
    let token = bench.token(1, Target::Lock, "k");
    let _cut = bench.waiting(session, Target::Lock, "k");
    bench.state.depose(bench.now);
    bench.pass(30 * SECOND);
    bench.state.expire(bench.now);
    assert_eq!(bench.count(Happened::Expired), 0);
    bench.lead(0);
    assert_eq!(bench.count(Happened::Expired), 1);
    assert_eq!(bench.renew(1, "k", token, 30), ERROR);
    let again = bench.connect(0, "r");
    let next = bench.token(again, Target::Lock, "k");
    assert!(
        next.first_half() > token.first_half(),
        "the place was served, and taken back"
    );
}

#[test]
fn a_leader_that_is_stopped_answers_nobody_and_gives_nothing_up() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let mut cut = bench.waiting(2, Target::Lock, "k");
    bench.state.crash(0, bench.now);
    assert!(cut.take_cut_off());
    for connection in 1..=3 {
        bench.disconnect(connection);
    }
    assert_eq!(bench.ask(4, Request::Barrier), nobody_leads());
    // One that does not lead may go unnoticed.
    bench.state.crash(2, bench.now);
    bench.lead(1);
    bench.state.crash(2, bench.now);
    assert_eq!(bench.state.leader(), Some(1));
    assert_eq!(bench.acquire(4, Target::Lock, "k"), Response::TimedOut);
    assert_eq!(bench.release(4, Kind::Lock, "k", token), Response::Done);
}

#[test]
fn what_a_leader_was_told_to_forget() {
    for (refs, tokens) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut bench = Bench::cluster(|_| {});
        let membership = bench.state.membership().expect("it is a cluster");
        membership.forget_refs(refs);
        membership.forget_tokens(tokens);
        let ended = bench.connect(0, "ended");
        bench.token(ended, Target::Lock, "ended");
        bench.disconnect(ended);
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
        // The place.
        let place = bench.acquire(again, Target::Lock, "k");
        match (refs, tokens) {
            // Its turn came when the lease was forgotten, and so it did for a newcomer.
            (_, true) => assert!(matches!(place, Response::Granted(_)), "{place:?}"),
            (_, false) => assert_eq!(place, Response::TimedOut),
        }
        assert_eq!(bench.count(Happened::Left), usize::from(refs), "{refs} {tokens}");
        assert_eq!(bench.count(Happened::Forgotten), if tokens { 3 } else { 0 });
        // Nobody gives up in anybody's name what is nobody's.
        bench.pass(10 * SECOND);
        bench.state.expire(bench.now);
        let released = usize::from(!refs && !tokens);
        assert_eq!(bench.count(Happened::Disconnected), released, "{refs} {tokens}");
    }
}

#[test]
fn misdirections_are_what_followers_say() {
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
        "who leads needs to name nobody"
    );
    let Response::Json(json) = bench.ask(1, Request::Stats) else {
        panic!("all members tell");
    };
    assert!(json.contains(r#""leader_addr":"127.0.0.1:1""#), "{json}");
    assert_eq!(bench.ask(4, Request::Barrier), moved_to("stranger:2"));
    assert_eq!(bench.ask(5, Request::Barrier), moved_to("127.0.0.1:1"));
    bench.token(1, Target::Lock, "k");
    let mut waiting = bench.waiting(2, Target::Lock, "k");
    bench.lead(2);
    assert_eq!(waiting.answer(), Some(moved_to("stranger:1")));
    bench.state.depose(bench.now);
    assert_eq!(bench.ask(1, Request::Barrier), moved_to("stranger:1"));
    assert_eq!(bench.ask(5, Request::Barrier), nobody_leads());
    say(&mut bench, 0, None);
    assert_eq!(bench.ask(1, Request::Barrier), nobody_leads());
}

#[test]
fn events_and_stats_speak_of_connections_whatever_became_of_them() {
    let mut bench = Bench::cluster(|_| {});
    let session = bench.connect(0, "r");
    bench.token(session, Target::Lock, "k");
    assert_eq!(bench.state.stats(bench.now).connections, 6);
    bench.lead(1);
    assert_eq!(
        bench.state.stats(bench.now).connections,
        6,
        "what it had is no connection"
    );
    assert_eq!(bench.state.stats(bench.now).locks[0].owner_conn_id, session);
    bench.disconnect(session);
    assert_eq!(bench.state.stats(bench.now).connections, 5);
    bench.pass(30 * SECOND);
    bench.state.expire(bench.now);
    let kinds = bench.kinds();
    assert_eq!(
        kinds,
        [Happened::Granted, Happened::Orphaned, Happened::Expired].map(|kind| (kind, session))
    );
}

#[test]
fn a_cap_on_connections_is_each_members() {
    let mut bench = Bench::cluster(|options| options.max_connections = 3);
    assert_eq!(bench.state.connect(0), None);
    assert!(bench.state.connect(1).is_some());
    let session = bench.connect(2, "r");
    bench.lead(2);
    bench.token(session, Target::Lock, "k");
    bench.disconnect(session);
    // Who is absent takes no room.
    assert!(bench.state.connect(2).is_some());
    assert!(bench.state.connect(2).is_some());
    assert_eq!(bench.state.connect(2), None);
}

#[test]
fn changes_of_leaders_leave_nothing_behind() {
    let mut bench = Bench::cluster(|_| {});
    for round in 0..100_usize {
        let leader = round % 3;
        bench.lead(leader);
        let name = format!("k{round}");
        let session = bench.connect(leader, &format!("r{}", round % 7));
        bench.token(session, Target::Lock, &name);
        let plain = bench.state.connect(leader).expect("there is room");
        let _waits = bench.waiting(plain, Target::Lock, &name);
        let other = bench.connect(leader, &format!("s{round}"));
        let _waits = bench.waiting(other, Target::Lock, &name);
        for (index, connection) in [session, plain, other].into_iter().enumerate() {
            if (round + index) % 2 == 0 {
                bench.disconnect(connection);
            }
        }
        bench.pass(SECOND);
        bench.state.expire(bench.now);
    }
    let live: Vec<ConnectionId> = bench.state.clients.keys().copied().collect();
    for connection in live.into_iter().filter(|connection| *connection == number(*connection)) {
        bench.disconnect(connection);
    }
    for _ in 0..3 {
        bench.pass(30 * SECOND);
        bench.state.expire(bench.now);
    }
    bench.pass(60 * SECOND);
    bench.state.collect(bench.now);
    assert!(bench.state.entries.is_empty() && bench.state.ends.is_empty());
    assert_eq!(bench.state.clients.len(), 0);
    assert!(bench.state.sessions.is_empty());
}
