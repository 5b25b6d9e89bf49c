//! Tests of orphans, and of the connections that reclaim them, with a clock that the tests control. `fact_N` in the
//! name of a test refers to the same fact as in `tests/it/cluster_server/facts.rs`.

use std::time::Duration;

use super::super::bench::{Bench, SECOND, slots};
use crate::protocol::{Request, Response, Status};
use crate::server::event::EventKind as Happened;
use crate::server::release::Release;
use crate::types::{Kind, Target};

const ERROR: Response = Response::Refused(Status::Error);
const NOT_ENQUEUED: Response = Response::Refused(Status::NotEnqueued);

#[test]
fn fact_9_a_connection_accepts_one_ref_even_after_an_acquire() {
    let mut bench = Bench::cluster(|_| {});
    assert_eq!(bench.present(1, "r"), Response::Done);
    assert_eq!(bench.present(1, "r"), ERROR, "once");
    bench.acquire(2, Target::Lock, "k");
    assert_eq!(
        bench.present(2, "r2"),
        Response::Done,
        "a connection that has acquired may still present a ref"
    );
    assert_eq!(bench.present(5, "r5"), Response::Done, "any member takes it");
    // Single servers of these builds accept a ref, but keep nothing for a session.
    let mut bench = Bench::new(|options| options.release = Release::Cluster);
    assert_eq!(bench.present(1, "r"), Response::Done);
    assert_eq!(bench.present(1, "r"), ERROR);
    bench.token(1, Target::Lock, "k");
    bench.disconnect(1);
    bench.token(2, Target::Lock, "k");
    let mut bench = Bench::new(|_| {});
    assert_eq!(bench.present(1, "r"), ERROR);
    assert_eq!(bench.ask(1, Request::Barrier), ERROR);
}

#[test]
fn fact_16_with_an_orphan_ttl_of_zero_a_disconnect_releases_everything_at_once() {
    let mut bench = Bench::cluster(|options| options.orphan_ttl = Duration::ZERO);
    bench.present(1, "r");
    bench.token(1, Target::Lock, "held");
    bench.token(2, Target::Lock, "contended");
    assert_eq!(bench.enqueue(1, "contended", 30), Response::Queued);
    bench.disconnect(1);
    bench.token(3, Target::Lock, "held");
    assert_eq!(bench.count(Happened::Disconnected), 1);
    assert_eq!(bench.count(Happened::Left), 1);
    assert_eq!(bench.count(Happened::Orphaned), 0);
}

#[test]
fn fact_14_leases_of_connections_without_a_ref_are_kept_too_but_cannot_be_reclaimed() {
    let mut bench = Bench::cluster(|_| {});
    bench.token(1, Target::Lock, "held");
    bench.disconnect(1);
    let other = bench.state.connect(0).expect("there is room");
    assert_eq!(bench.acquire(other, Target::Lock, "held"), Response::TimedOut);
    bench.pass(10 * SECOND);
    bench.state.expire(bench.now);
    bench.token(other, Target::Lock, "held");
}

#[test]
fn fact_7_a_session_that_comes_back_in_time_gets_the_same_grant_and_its_lease_restarts() {
    let mut bench = Bench::cluster(|_| {});
    let first = bench.connect(0, "r");
    let token = bench.token(first, Target::Lock, "k");
    bench.disconnect(first);
    bench.pass(10 * SECOND - Duration::from_nanos(1));
    let stranger = bench.connect(0, "another");
    assert_eq!(bench.acquire(stranger, Target::Lock, "k"), Response::TimedOut);
    let second = bench.connect(0, "r");
    let Response::Granted(grant) = bench.acquire(second, Target::Lock, "k") else {
        panic!("the session did not get its lease");
    };
    assert_eq!((grant.token, grant.ttl.as_secs()), (token, 30));
    assert_eq!(bench.count(Happened::Granted), 1, "it is the same grant");
    assert_eq!(bench.kinds().last(), Some(&(Happened::Reclaimed, second)));
    // Locks are not reentrant, not even within a session.
    assert_eq!(bench.acquire(second, Target::Lock, "k"), Response::TimedOut);
    bench.pass(29 * SECOND);
    bench.state.expire(bench.now);
    assert_eq!(bench.renew(second, "k", token, 30), Response::Renewed(Some(30)));
}

#[test]
fn orphans_are_released_when_their_ttl_is_over_even_before_the_sweep() {
    for swept in [false, true] {
        let mut bench = Bench::cluster(|_| {});
        let holder = bench.connect(0, "r");
        bench.token(holder, Target::Lock, "held");
        bench.token(1, Target::Lock, "contended");
        assert_eq!(bench.enqueue(holder, "contended", 30), Response::Queued);
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
fn fact_13_a_queue_position_at_which_a_request_blocks_ends_with_its_connection_but_a_ticket_is_kept() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let blocks = bench.connect(0, "blocks");
    let _cut = bench.waiting(blocks, Target::Lock, "k");
    let enqueued = bench.connect(0, "enqueued");
    assert_eq!(bench.enqueue(enqueued, "k", 30), Response::Queued);
    bench.disconnect(blocks);
    bench.disconnect(enqueued);
    assert_eq!((bench.count(Happened::Left), bench.count(Happened::Orphaned)), (1, 1));
    let again = bench.connect(0, "enqueued");
    let mut back = bench.waiting(again, Target::Lock, "k");
    bench.release(1, Kind::Lock, "k", token);
    back.granted();
}

#[test]
fn fact_13_a_connection_whose_end_is_overlooked_keeps_its_lease_and_queue_position() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let gone = bench.connect(0, "r");
    let held = bench.token(gone, Target::Lock, "held");
    let _cut = bench.waiting(gone, Target::Lock, "k");
    bench.state.overlook_ends(true, bench.now);
    bench.disconnect(gone);
    let again = bench.connect(0, "r");
    assert_eq!(
        bench.acquire(again, Target::Lock, "held"),
        Response::TimedOut,
        "the lease still belongs to the connection whose end was overlooked"
    );
    let mut behind = bench.waiting(again, Target::Lock, "k");
    bench.release(1, Kind::Lock, "k", token);
    assert_eq!(behind.answer(), None, "the waiter is behind its former connection");
    bench.state.overlook_ends(false, bench.now);
    assert_eq!(bench.count(Happened::Orphaned), 2, "the overlooked end is noticed now");
    assert_eq!(bench.token(again, Target::Lock, "held"), held);
    // The request of a ghost times out as if its connection still existed.
    let mut bench = Bench::cluster(|_| {});
    bench.token(1, Target::Lock, "k");
    let _cut = bench.waiting(2, Target::Lock, "k");
    bench.state.overlook_ends(true, bench.now);
    bench.disconnect(2);
    bench.pass(60 * SECOND);
    bench.state.expire(bench.now);
    assert_eq!(
        (bench.count(Happened::Left), bench.count(Happened::Granted)),
        (1, 1),
        "the queue position was given up before the lease of the holder ended"
    );
}

#[test]
fn fact_2_a_reclaimed_queue_position_outlives_timeouts_until_a_second_wait_ends_it() {
    let mut bench = Bench::cluster(|_| {});
    bench.token(1, Target::Lock, "k");
    let gone = bench.connect(0, "r");
    assert_eq!(bench.enqueue(gone, "k", 300), Response::Queued);
    bench.disconnect(gone);
    let again = bench.connect(0, "r");
    let waits = bench.waiting(again, Target::Lock, "k");
    assert!(!bench.state.give_up(again, waits.0, bench.now));
    assert_eq!(bench.state.stats(bench.now).locks[0].waiters, 1, "after `l`");
    bench.disconnect(again);
    let third = bench.connect(0, "r");
    assert_eq!(bench.enqueue(third, "k", 300), Response::Queued);
    assert_eq!(bench.collect(third, "k"), Response::TimedOut);
    assert_eq!(bench.state.stats(bench.now).locks[0].waiters, 1, "after `w`");
    assert_eq!(bench.collect(third, "k"), Response::TimedOut);
    assert_eq!(bench.state.stats(bench.now).locks[0].waiters, 0);
    assert_eq!(bench.collect(third, "k"), NOT_ENQUEUED);
}

#[test]
fn fact_6_a_try_reclaims_a_queue_position_and_leaves_it_in_the_queue() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let gone = bench.connect(0, "r");
    assert_eq!(bench.enqueue(gone, "k", 30), Response::Queued);
    bench.disconnect(gone);
    let again = bench.connect(0, "r");
    assert_eq!(bench.acquire(again, Target::Lock, "k"), Response::TimedOut);
    assert_eq!(bench.kinds().last(), Some(&(Happened::Reclaimed, again)));
    bench.release(1, Kind::Lock, "k", token);
    assert_eq!(
        bench.acquire(2, Target::Lock, "k"),
        Response::TimedOut,
        "the lock was granted at the queue position"
    );
    assert!(matches!(bench.collect(again, "k"), Response::Granted(_)));
}

#[test]
fn fact_3_a_wait_returns_the_seconds_that_are_left_or_the_default_ttl_if_none_are_left() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    assert_eq!(bench.enqueue(2, "k", 5), Response::Queued);
    bench.release(1, Kind::Lock, "k", token);
    for (passed, told) in [(0, 5), (1500, 3), (2700, 33)] {
        bench.pass(Duration::from_millis(passed));
        let Response::Granted(grant) = bench.collect(2, "k") else {
            panic!("fact 4: a `w` did not return the grant again");
        };
        assert_eq!(grant.ttl.as_secs(), told, "{passed} ms later");
    }
    bench.pass(SECOND);
    assert_eq!(bench.collect(2, "k"), NOT_ENQUEUED, "fact 4: the lease has expired");
    // A `w` returns the grant of an `e` until the release.
    let Response::Acquired(grant) = bench.enqueue(3, "free", 30) else {
        panic!("it was free");
    };
    assert_eq!(bench.collect(3, "free"), Response::Granted(grant));
    assert_eq!(bench.release(3, Kind::Lock, "free", grant.token), Response::Done);
    assert_eq!(bench.collect(3, "free"), NOT_ENQUEUED);
}

#[test]
fn fact_5_a_late_renewal_is_answered_with_lease_expired() {
    let mut bench = Bench::cluster(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    bench.pass(30 * SECOND);
    assert_eq!(bench.renew(1, "k", token, 30), Response::Refused(Status::LeaseExpired));
    assert_eq!(bench.renew(1, "k", token, 30), ERROR, "and then it is unknown");
}

#[test]
fn a_session_reclaims_its_oldest_slot_first_and_only_with_the_same_limit() {
    let mut bench = Bench::cluster(|_| {});
    let first = bench.connect(0, "r");
    let one = bench.token(first, slots(2), "s");
    let two = bench.token(first, slots(2), "s");
    bench.disconnect(first);
    let second = bench.connect(0, "r");
    let mismatch = Response::Refused(Status::LimitMismatch);
    assert_eq!(bench.acquire(second, slots(3), "s"), mismatch);
    assert_eq!(bench.token(second, slots(2), "s"), one);
    assert_eq!(bench.token(second, slots(2), "s"), two);
    assert_eq!(bench.acquire(second, slots(2), "s"), Response::TimedOut);
}

#[test]
fn fact_21_without_auto_release_leases_stay_and_queue_positions_do_not() {
    let mut bench = Bench::cluster(|options| {
        options.auto_release_on_disconnect = false;
        options.orphan_ttl = Duration::ZERO;
    });
    bench.token(1, Target::Lock, "k");
    assert_eq!(bench.enqueue(2, "k", 30), Response::Queued);
    bench.disconnect(2);
    bench.disconnect(1);
    assert_eq!(
        (bench.count(Happened::Left), bench.count(Happened::Disconnected)),
        (1, 0)
    );
    assert_eq!(bench.acquire(3, Target::Lock, "k"), Response::TimedOut);
}

#[test]
fn fact_22_earlier_builds() {
    // Without an orphan TTL, a session reclaims nothing, whichever process was at the other end of the former
    // connection.
    let mut bench = Bench::cluster(|options| {
        options.earlier_builds = true;
        options.orphan_ttl = Duration::ZERO;
    });
    let session = bench.connect(0, "r");
    bench.token(session, Target::Lock, "k");
    bench.lead(1);
    let again = bench.connect(1, "r");
    assert_eq!(bench.acquire(again, Target::Lock, "k"), Response::TimedOut);
    // A `w` reclaims no queue position and no lease either.
    let queued = bench.connect(1, "queued");
    assert_eq!(bench.enqueue(queued, "k", 30), Response::Queued);
    bench.lead(0);
    for reference in ["queued", "r"] {
        let again = bench.connect(0, reference);
        assert_eq!(bench.collect(again, "k"), NOT_ENQUEUED, "{reference}");
    }
    // With an orphan TTL, the ref alone decides.
    let mut bench = Bench::cluster(|options| options.earlier_builds = true);
    let session = bench.connect(0, "r");
    let token = bench.token(session, Target::Lock, "k");
    let again = bench.connect(0, "r");
    assert_eq!(bench.token(again, Target::Lock, "k"), token);
    // A renewal moves nothing.
    assert_eq!(bench.renew(1, "k", token, 30), Response::Renewed(Some(30)));
    assert_eq!(bench.state.stats(bench.now).locks[0].owner_conn_id, again);
    // Every request that times out leaves its queue position behind.
    assert_eq!(bench.acquire(2, Target::Lock, "k"), Response::TimedOut);
    let waits = bench.waiting(3, Target::Lock, "k");
    assert!(!bench.state.give_up(3, waits.0, bench.now));
    assert_eq!(bench.state.stats(bench.now).locks[0].waiters, 2);
    // A `w` also reclaims by the ref alone.
    bench.token(1, Target::Lock, "other");
    let queued = bench.connect(0, "queued");
    assert_eq!(bench.enqueue(queued, "other", 30), Response::Queued);
    let queued_again = bench.connect(0, "queued");
    assert_eq!(bench.collect(queued_again, "other"), Response::TimedOut);
}

#[test]
fn a_session_without_leases_leaves_nothing_behind() {
    let mut bench = Bench::cluster(|_| {});
    let before = bench.state.clients.len();
    let session = bench.connect(0, "r");
    let token = bench.token(session, Target::Lock, "k");
    bench.release(session, Kind::Lock, "k", token);
    bench.disconnect(session);
    assert_eq!(bench.state.clients.len(), before);
    assert!(bench.state.orphans.is_empty());
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
