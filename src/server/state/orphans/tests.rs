//! What connections leave behind, and who gets it, against a clock that the test owns.

use std::time::Duration;

use super::super::bench::{Bench, SECOND, key, slots};
use crate::protocol::{Request, Response, Status};
use crate::server::event::EventKind as Happened;
use crate::server::release::Release;
use crate::types::{Kind, Target};

const ERROR: Response = Response::Refused(Status::Error);

#[test]
fn a_ref_is_presented_once_and_before_anything_is_asked_for() {
    let mut bench = Bench::cluster(|_| {});
    assert_eq!(bench.present(1, "r"), Response::Done);
    assert_eq!(bench.present(1, "r"), ERROR, "once");
    bench.acquire(2, Target::Lock, "k");
    assert_eq!(bench.present(2, "r2"), ERROR, "it has acquired");
    assert!(matches!(
        bench.acquire(4, Target::Lock, "k"),
        Response::Refused(Status::NotLeader(_))
    ));
    assert_eq!(bench.present(4, "r4"), ERROR, "it has asked, though it was refused");
    assert_eq!(bench.present(5, "r5"), Response::Done, "any member takes it");
    // What has nothing to do with acquiring does not count.
    let mut bench = Bench::cluster(|_| {});
    bench.ask(1, Request::Ping);
    bench.ask(1, Request::Barrier);
    assert_eq!(bench.present(1, "r"), Response::Done);
}

#[test]
fn only_cluster_releases_know_refs() {
    let mut bench = Bench::new(|options| options.orphan_ttl = 10 * SECOND);
    assert_eq!(bench.present(1, "r"), ERROR);
    assert_eq!(bench.ask(1, Request::Barrier), ERROR);
    bench.acquire(1, Target::Lock, "k");
    bench.disconnect(1);
    bench.token(2, Target::Lock, "k");
    let mut bench = Bench::new(|options| options.release = Release::Cluster);
    assert_eq!(bench.present(1, "r"), Response::Done);
}

#[test]
fn one_server_of_a_cluster_release_keeps_orphans_too() {
    let mut bench = Bench::new(|options| {
        options.release = Release::Cluster;
        options.orphan_ttl = 10 * SECOND;
    });
    let session = bench.connect(0, "r");
    let token = bench.token(session, Target::Lock, "k");
    bench.disconnect(session);
    assert_eq!(bench.acquire(1, Target::Lock, "k"), Response::TimedOut);
    let again = bench.connect(0, "r");
    assert_eq!(bench.token(again, Target::Lock, "k"), token);
}

#[test]
fn without_a_ref_or_time_for_orphans_a_disconnect_is_the_end() {
    for (session, orphan_ttl) in [(None, 10 * SECOND), (Some("r"), Duration::ZERO)] {
        let mut bench = Bench::cluster(|options| options.orphan_ttl = orphan_ttl);
        if let Some(session) = session {
            bench.present(1, session);
        }
        bench.token(1, Target::Lock, "held");
        bench.token(2, Target::Lock, "contended");
        let _place = bench.waiting(1, Target::Lock, "contended");
        bench.disconnect(1);
        bench.token(3, Target::Lock, "held");
        assert_eq!(bench.count(Happened::Disconnected), 1);
        assert_eq!(bench.count(Happened::Left), 1);
        assert_eq!(bench.count(Happened::Orphaned), 0);
        if let Some(session) = session {
            let again = bench.connect(0, session);
            assert_eq!(bench.acquire(again, Target::Lock, "held"), Response::TimedOut);
        }
    }
}

#[test]
fn who_comes_back_in_time_gets_the_old_holder() {
    let mut bench = Bench::cluster(|_| {});
    let first = bench.connect(0, "r");
    let token = bench.token(first, Target::Lock, "k");
    bench.disconnect(first);
    bench.pass(10 * SECOND - Duration::from_nanos(1));
    let stranger = bench.connect(0, "another");
    assert_eq!(bench.acquire(stranger, Target::Lock, "k"), Response::TimedOut);
    let second = bench.connect(0, "r");
    assert_eq!(bench.token(second, Target::Lock, "k"), token);
    assert_eq!(bench.count(Happened::Granted), 1, "it is the same grant");
    assert_eq!(bench.kinds().last(), Some(&(Happened::Reclaimed, second)));
    // Locks are not reentrant, for sessions neither.
    assert_eq!(bench.acquire(second, Target::Lock, "k"), Response::TimedOut);
    // And now it is this connection's.
    bench.pass(21 * SECOND);
    bench.state.expire(bench.now);
    assert_eq!(bench.renew(second, "k", token, 30), ERROR, "its 30 s were over");
}

#[test]
fn to_come_back_is_no_renewal() {
    let mut bench = Bench::cluster(|_| {});
    let first = bench.connect(0, "r");
    let token = bench.token(first, Target::Lock, "k");
    assert_eq!(bench.renew(first, "k", token, 7), Response::Renewed(Some(7)));
    bench.disconnect(first);
    bench.pass(6 * SECOND);
    let second = bench.connect(0, "r");
    let Response::Granted(grant) = bench.acquire(second, Target::Lock, "k") else {
        panic!("it is its own");
    };
    assert_eq!(
        (grant.token, grant.ttl.as_secs()),
        (token, 7),
        "the TTL that it was given last"
    );
    bench.pass(SECOND);
    bench.token(3, Target::Lock, "k");
}

#[test]
fn orphans_are_given_up_when_their_time_is_over_swept_or_not() {
    for swept in [false, true] {
        let mut bench = Bench::cluster(|_| {});
        let holder = bench.connect(0, "r");
        bench.token(holder, Target::Lock, "held");
        bench.token(1, Target::Lock, "contended");
        let _place = bench.waiting(holder, Target::Lock, "contended");
        bench.disconnect(holder);
        bench.pass(10 * SECOND - Duration::from_nanos(1));
        bench.state.expire(bench.now);
        assert_eq!(bench.acquire(2, Target::Lock, "held"), Response::TimedOut);
        bench.pass(Duration::from_nanos(1));
        if swept {
            bench.state.expire(bench.now);
            assert_eq!(bench.count(Happened::Disconnected), 1);
            assert_eq!(bench.count(Happened::Left), 1);
        }
        let late = bench.connect(0, "r");
        let _waits = bench.waiting(2, Target::Lock, "contended");
        bench.token(late, Target::Lock, "held");
        assert_eq!(bench.count(Happened::Reclaimed), 0, "swept {swept}");
        assert_eq!(bench.count(Happened::Granted), 3);
    }
}

#[test]
fn an_orphaned_place_moves_up_as_if_nobody_had_gone() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let before = bench.waiting(2, Target::Lock, "k");
    let gone = bench.connect(0, "r");
    let _cut = bench.waiting(gone, Target::Lock, "k");
    let mut after = bench.waiting(3, Target::Lock, "k");
    bench.disconnect(gone);
    let again = bench.connect(0, "r");
    let mut back = bench.waiting(again, Target::Lock, "k");
    assert_eq!(bench.state.stats(bench.now).locks[0].waiters, 3, "nobody queued anew");
    let mut before = before;
    bench.release(1, Kind::Lock, "k", token);
    let token = before.granted();
    assert_eq!(back.answer(), None);
    bench.release(1, Kind::Lock, "k", token);
    let token = back.granted();
    assert_eq!(after.answer(), None);
    bench.release(1, Kind::Lock, "k", token);
    after.granted();
}

#[test]
fn what_was_granted_to_an_orphan_waits_for_it() {
    for enqueues in [false, true] {
        let mut bench = Bench::cluster(|_| {});
        let token = bench.token(1, Target::Lock, "k");
        let gone = bench.connect(0, "r");
        if enqueues {
            assert_eq!(bench.enqueue(gone, "k", 30), Response::Queued);
        } else {
            let _cut = bench.waiting(gone, Target::Lock, "k");
        }
        let mut next = bench.waiting(2, Target::Lock, "k");
        bench.disconnect(gone);
        bench.pass(4 * SECOND);
        bench.release(1, Kind::Lock, "k", token);
        assert_eq!(next.answer(), None, "it is not its turn");
        let again = bench.connect(0, "r");
        let token = if enqueues {
            let Response::Acquired(grant) = bench.enqueue(again, "k", 30) else {
                panic!("it was granted meanwhile");
            };
            assert_eq!(bench.collect(again, "k"), Response::Granted(grant));
            grant.token
        } else {
            bench.token(again, Target::Lock, "k")
        };
        bench.release(again, Kind::Lock, "k", token);
        next.granted();
        // And who does not come for it loses it.
        let gone = bench.connect(0, "s");
        let _cut = bench.waiting(gone, Target::Lock, "k");
        let mut next = bench.waiting(3, Target::Lock, "k");
        bench.disconnect(gone);
        bench.disconnect(2);
        assert_eq!(next.answer(), None);
        bench.pass(10 * SECOND);
        bench.state.expire(bench.now);
        next.granted();
    }
}

#[test]
fn a_place_is_taken_back_by_an_enqueue_or_a_wait_but_not_by_a_try() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let gone = bench.connect(0, "r");
    assert_eq!(bench.enqueue(gone, "k", 30), Response::Queued);
    let mut next = bench.waiting(2, Target::Lock, "k");
    bench.disconnect(gone);
    let second = bench.connect(0, "r");
    assert_eq!(bench.acquire(second, Target::Lock, "k"), Response::TimedOut);
    assert_eq!(bench.collect(second, "k"), Response::Refused(Status::NotEnqueued));
    assert_eq!(bench.enqueue(second, "k", 5), Response::Queued);
    assert_eq!(
        bench.enqueue(second, "k", 5),
        Response::Refused(Status::AlreadyEnqueued)
    );
    bench.disconnect(second);
    let third = bench.connect(0, "r");
    let mut back = bench.waiting(third, Target::Lock, "k");
    bench.release(1, Kind::Lock, "k", token);
    back.granted();
    assert_eq!(next.answer(), None);
    // The first place was the only one: its session has none any more.
    bench.disconnect(third);
    bench.pass(10 * SECOND);
    bench.state.expire(bench.now);
    next.granted();
}

#[test]
fn the_ttl_of_a_place_is_that_of_the_last_request() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let gone = bench.connect(0, "r");
    assert_eq!(bench.enqueue(gone, "k", 30), Response::Queued);
    bench.disconnect(gone);
    let again = bench.connect(0, "r");
    assert_eq!(bench.enqueue(again, "k", 5), Response::Queued);
    bench.release(1, Kind::Lock, "k", token);
    assert!(matches!(bench.collect(again, "k"), Response::Granted(grant) if grant.ttl.as_secs() == 5));
}

#[test]
fn slots_come_back_the_oldest_first_and_to_the_same_limit_only() {
    let mut bench = Bench::cluster(|_| {});
    let first = bench.connect(0, "r");
    let one = bench.token(first, slots(2), "s");
    bench.disconnect(first);
    let second = bench.connect(0, "r");
    // Not a slot more, the one it had.
    assert_eq!(bench.token(second, slots(2), "s"), one);
    let two = bench.token(second, slots(2), "s");
    assert_ne!(one, two);
    let mut waits = bench.waiting(second, slots(2), "s");
    bench.disconnect(second);
    let third = bench.connect(0, "r");
    let mismatch = Response::Refused(Status::LimitMismatch);
    assert_eq!(bench.acquire(third, slots(3), "s"), mismatch);
    assert_eq!(bench.token(third, slots(2), "s"), one);
    assert_eq!(bench.token(third, slots(2), "s"), two);
    assert_eq!(waits.answer(), None);
    let mut waits = bench.waiting(third, slots(2), "s");
    assert_eq!(bench.state.stats(bench.now).semaphores[0].waiters, 1, "the place, too");
    bench.release(third, Kind::Semaphore, "s", one);
    waits.granted();
}

#[test]
fn what_a_session_left_with_several_connections_comes_back_in_order_too() {
    let mut bench = Bench::cluster(|_| {});
    let first = bench.connect(0, "r");
    let one = bench.token(first, slots(2), "s");
    let two = bench.token(first, slots(2), "s");
    // The older slot is the later connection's.
    let second = bench.connect(0, "r");
    let renew = Request::Renew {
        kind: Kind::Semaphore,
        key: key("s"),
        token: one,
        ttl: None,
    };
    assert_eq!(bench.ask(second, renew), Response::Renewed(Some(33)));
    bench.disconnect(first);
    bench.disconnect(second);
    let third = bench.connect(0, "r");
    assert_eq!(bench.token(third, slots(2), "s"), one);
    assert_eq!(bench.token(third, slots(2), "s"), two);
    // And so with places.
    let token = bench.token(1, Target::Lock, "k");
    assert_eq!(bench.enqueue(third, "k", 30), Response::Queued);
    let _behind = bench.waiting(third, Target::Lock, "k");
    bench.disconnect(third);
    let fourth = bench.connect(0, "r");
    let _first = bench.waiting(fourth, Target::Lock, "k");
    bench.disconnect(fourth);
    let fifth = bench.connect(0, "r");
    let mut waiting = bench.waiting(fifth, Target::Lock, "k");
    bench.release(1, Kind::Lock, "k", token);
    waiting.granted();
}

#[test]
fn one_ref_is_one_session_whether_or_not_its_last_connection_has_ended() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "contended");
    let old = bench.connect(0, "r");
    let held = bench.token(old, Target::Lock, "held");
    let mut cut = bench.waiting(old, Target::Lock, "contended");
    let new = bench.connect(0, "r");
    assert_eq!(bench.token(new, Target::Lock, "held"), held);
    let mut waits = bench.waiting(new, Target::Lock, "contended");
    assert!(cut.take_cut_off(), "its connection ends");
    // What it had is not its any more.
    bench.disconnect(old);
    assert_eq!(cut.answer(), None);
    bench.release(1, Kind::Lock, "contended", token);
    waits.granted();
    assert_eq!(bench.renew(new, "held", held, 30), Response::Renewed(Some(30)));
    assert_eq!(bench.count(Happened::Disconnected) + bench.count(Happened::Orphaned), 0);
}

#[test]
fn what_was_taken_from_an_open_connection_is_not_there_any_more() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let old = bench.connect(0, "r");
    assert!(matches!(bench.enqueue(old, "granted", 30), Response::Acquired(_)));
    assert_eq!(bench.enqueue(old, "k", 30), Response::Queued);
    let new = bench.connect(0, "r");
    bench.token(new, Target::Lock, "granted");
    let mut waits = bench.waiting(new, Target::Lock, "k");
    for name in ["granted", "k"] {
        assert_eq!(bench.collect(old, name), Response::Refused(Status::NotEnqueued));
    }
    // A wait there is cut off by an enqueue, too.
    let newest = bench.connect(0, "r");
    assert_eq!(bench.enqueue(newest, "k", 30), Response::Queued);
    assert!(waits.take_cut_off());
    bench.release(1, Kind::Lock, "k", token);
    assert!(matches!(bench.collect(newest, "k"), Response::Granted(_)));
}

#[test]
fn a_session_that_has_nothing_leaves_nothing() {
    let mut bench = Bench::cluster(|_| {});
    let before = bench.state.clients.len();
    let session = bench.connect(0, "r");
    let token = bench.token(session, Target::Lock, "k");
    bench.release(session, Kind::Lock, "k", token);
    bench.disconnect(session);
    assert_eq!(bench.state.clients.len(), before);
    assert!(bench.state.sessions.is_empty());
}

#[test]
fn a_renewal_makes_its_connection_the_owner_in_cluster_releases_only() {
    for cluster_release in [false, true] {
        let mut bench = Bench::new(|options| {
            options.release = if cluster_release {
                Release::Cluster
            } else {
                Release::NEWEST
            }
        });
        let token = bench.token(1, Target::Lock, "k");
        assert_eq!(bench.renew(2, "k", token, 30), Response::Renewed(Some(30)));
        let owner = if cluster_release { 2 } else { 1 };
        assert_eq!(bench.kinds().last(), Some(&(Happened::Renewed, owner)));
        assert_eq!(bench.state.stats(bench.now).locks[0].owner_conn_id, owner);
        bench.disconnect(3 - owner);
        assert_eq!(
            bench.acquire(3, Target::Lock, "k"),
            Response::TimedOut,
            "its owner is there"
        );
        bench.disconnect(owner);
        bench.token(3, Target::Lock, "k");
    }
}

#[test]
fn a_granted_ticket_is_collected_though_another_connection_has_renewed_it() {
    let mut bench = Bench::cluster(|_| {});
    let Response::Acquired(grant) = bench.enqueue(1, "k", 30) else {
        panic!("it was free");
    };
    assert_eq!(bench.renew(2, "k", grant.token, 30), Response::Renewed(Some(30)));
    assert_eq!(bench.collect(1, "k"), Response::Granted(grant));
}
