//! Tests of the server's behaviour, with a clock that the tests control.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use super::bench::{Bench, SECOND, Waiting, key, slots};
use super::*;
use crate::protocol::{MAX_LONG_LINE, Request};
use crate::server::event::EventKind as Happened;
use crate::server::release::Release;
use crate::types::Target;

#[test]
fn strict_order_of_arrival() {
    let mut bench = Bench::new(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let mut waiting: Vec<Waiting> = (2..=4)
        .map(|connection| bench.waiting(connection, Target::Lock, "k"))
        .collect();
    let mut token = token;
    for waiter in &mut waiting {
        assert_eq!(waiter.answer(), None, "not before its turn");
        assert_eq!(bench.release(1, Kind::Lock, "k", token), Response::Done);
        let Some(Response::Granted(grant)) = waiter.answer() else {
            panic!("the waiter was not granted");
        };
        token = grant.token;
    }
}

#[test]
fn a_try_does_not_overtake_waiters() {
    let mut bench = Bench::new(|_| {});
    let first = bench.token(1, slots(2), "s");
    bench.token(1, slots(2), "s");
    let mut second = bench.waiting(2, slots(2), "s");
    assert_eq!(bench.acquire(3, slots(2), "s"), Response::TimedOut);
    bench.release(1, Kind::Semaphore, "s", first);
    assert!(matches!(second.answer(), Some(Response::Granted(_))));
    assert_eq!(bench.acquire(3, slots(2), "s"), Response::TimedOut);
}

#[test]
fn locks_and_semaphores_of_one_name_are_independent() {
    let mut bench = Bench::new(|_| {});
    let lock = bench.token(1, Target::Lock, "k");
    let slot = bench.token(2, slots(1), "k");
    assert_eq!(
        bench.release(1, Kind::Semaphore, "k", lock),
        Response::Refused(Status::Error)
    );
    assert_eq!(bench.release(1, Kind::Semaphore, "k", slot), Response::Done);
    assert_eq!(bench.acquire(2, Target::Lock, "k"), Response::TimedOut);
}

#[test]
fn the_limit_stays_until_the_key_is_forgotten() {
    let mut bench = Bench::new(|_| {});
    let token = bench.token(1, slots(2), "s");
    let mismatch = Response::Refused(Status::LimitMismatch);
    assert_eq!(bench.acquire(2, slots(3), "s"), mismatch);
    bench.release(1, Kind::Semaphore, "s", token);
    assert_eq!(bench.acquire(2, slots(3), "s"), mismatch);
    bench.pass(60 * SECOND);
    bench.state.collect(bench.now);
    bench.token(2, slots(3), "s");
}

#[test]
fn cluster_builds_take_limits_up_to_a_million_and_refuse_greater_ones() {
    let mut bench = Bench::new(|options| options.release = Release::Cluster);
    bench.token(1, slots(1 << 20), "s");
    let refused = Response::Refused(Status::Error);
    assert_eq!(bench.acquire(1, slots((1 << 20) + 1), "t"), refused);
    assert_eq!(bench.acquire(1, slots(u32::MAX), "t"), refused);
    Bench::new(|_| {}).token(1, slots(u32::MAX), "t");
}

#[test]
fn a_wait_that_times_out_does_not_affect_a_ticket_of_the_same_key() {
    let mut bench = Bench::new(|_| {});
    bench.token(1, Target::Lock, "k");
    assert_eq!(bench.enqueue(2, "k", 30), Response::Queued);
    let Waiting(subject, _granted) = bench.waiting(2, Target::Lock, "k");
    assert!(bench.state.give_up(2, subject, bench.now));
    assert_eq!(bench.enqueue(2, "k", 30), Response::Refused(Status::AlreadyEnqueued));
}

#[test]
fn stats_list_keys_in_the_order_of_the_64_maps_of_real_servers() {
    let mut bench = Bench::new(|_| {});
    let mut names: Vec<String> = (0..200).map(|number| format!("k{number}")).collect();
    for name in &names {
        bench.token(1, Target::Lock, name);
    }
    let map_of = |name: &String| {
        let bytes = b"lock:".iter().chain(name.as_bytes());
        bytes.fold(2_166_136_261_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(16_777_619)
        }) % 64
    };
    names.sort_by_key(|name| (map_of(name), name.clone()));
    let Response::Json(json) = bench.ask(1, Request::Stats) else {
        panic!("stats are JSON")
    };
    let stats: crate::stats::Stats = serde_json::from_str(&json).unwrap();
    let listed: Vec<String> = stats.locks.into_iter().map(|lock| lock.key).collect();
    assert_eq!(listed, names);
}

#[test]
fn a_signal_may_fill_the_longest_line_and_no_more() {
    let mut bench = Bench::new(|options| options.release = Release::V1_16);
    let most = MAX_LONG_LINE - "sig c ".len();
    assert_eq!(bench.state.signal(b"c", &b"x".repeat(most)), Response::Count(0));
    let refused = Response::Refused(Status::Error);
    assert_eq!(bench.state.signal(b"c", &b"x".repeat(most + 1)), refused);
}

#[test]
fn leases_end_in_a_sweep_or_at_the_next_request_for_their_key() {
    let mut bench = Bench::new(|_| {});
    let swept = bench.token(1, Target::Lock, "swept");
    let asked = bench.token(1, Target::Lock, "asked");
    let mut waiter = bench.waiting(2, Target::Lock, "swept");
    bench.pass(30 * SECOND - Duration::from_nanos(1));
    bench.state.expire(bench.now);
    assert_eq!(waiter.answer(), None);
    assert_eq!(bench.acquire(3, Target::Lock, "asked"), Response::TimedOut);
    bench.pass(Duration::from_nanos(1));
    // Without a sweep in between.
    bench.token(3, Target::Lock, "asked");
    assert_eq!(
        bench.release(1, Kind::Lock, "asked", asked),
        Response::Refused(Status::Error)
    );
    bench.state.expire(bench.now);
    assert!(matches!(waiter.answer(), Some(Response::Granted(_))));
    assert_eq!(
        bench.release(1, Kind::Lock, "swept", swept),
        Response::Refused(Status::Error)
    );
}

#[test]
fn a_renewal_restarts_the_lease_and_the_default_ttl_is_the_servers() {
    let mut bench = Bench::new(|options| options.default_lease_ttl = Ttl::from_secs(5).unwrap());
    let token = bench.token(1, Target::Lock, "k");
    let renew = |ttl| Request::Renew {
        kind: Kind::Lock,
        key: key("k"),
        token,
        ttl,
    };
    bench.pass(29 * SECOND);
    assert_eq!(bench.ask(2, renew(Ttl::from_secs(10))), Response::Renewed(Some(10)));
    bench.pass(9 * SECOND);
    assert_eq!(bench.ask(2, renew(None)), Response::Renewed(Some(5)));
    bench.pass(5 * SECOND);
    assert_eq!(bench.ask(2, renew(None)), Response::Refused(Status::Error));
}

#[test]
fn a_disconnect_releases_leases_and_queue_positions() {
    let mut bench = Bench::new(|_| {});
    bench.token(1, Target::Lock, "k");
    bench.token(5, Target::Lock, "other");
    let _place = bench.waiting(1, Target::Lock, "other");
    let _gone = bench.waiting(2, Target::Lock, "k");
    let mut next = bench.waiting(3, Target::Lock, "k");
    bench.state.disconnect(2, bench.now);
    bench.state.disconnect(1, bench.now);
    assert!(matches!(next.answer(), Some(Response::Granted(_))));
    let stats = bench.state.stats(bench.now);
    assert_eq!(
        (stats.connections, stats.locks.iter().map(|l| l.waiters).sum::<u64>()),
        (3, 0)
    );
    assert!(bench.kinds().contains(&(Happened::Disconnected, 1)));
    assert!(bench.kinds().contains(&(Happened::Left, 2)));
}

#[test]
fn without_auto_release_a_disconnect_gives_up_places_only_and_before_1_15_nothing() {
    for release in Release::ALL {
        let mut bench = Bench::new(|options| {
            options.release = release;
            options.auto_release_on_disconnect = false;
        });
        let token = bench.token(1, Target::Lock, "k");
        let other = bench.token(5, Target::Lock, "other");
        assert_eq!(bench.enqueue(1, "other", 10), Response::Queued);
        bench.state.disconnect(1, bench.now);
        assert_eq!(bench.acquire(2, Target::Lock, "k"), Response::TimedOut, "{release}");
        assert_eq!(bench.release(2, Kind::Lock, "k", token), Response::Done, "{release}");
        let places = bench
            .state
            .stats(bench.now)
            .locks
            .iter()
            .map(|lock| lock.waiters)
            .sum::<u64>();
        let given_up = release >= Release::V1_15;
        assert_eq!(places == 0, given_up, "{release}");
        // A queue position that stays is granted in its turn, and held for its TTL.
        bench.release(5, Kind::Lock, "other", other);
        let answer = bench.acquire(2, Target::Lock, "other");
        assert_eq!(answer != Response::TimedOut, given_up, "{release}");
        bench.pass(10 * SECOND);
        if !given_up {
            bench.token(2, Target::Lock, "other");
        }
    }
}

#[test]
fn each_cap_refuses_what_exceeds_it() {
    let mut bench = Bench::new(|options| {
        options.max_locks = 2;
        options.max_waiters = 1;
        options.max_connections = 5;
    });
    assert_eq!(bench.state.connect(0), None);
    let token = bench.token(1, Target::Lock, "a");
    bench.token(1, slots(1), "b");
    assert_eq!(bench.acquire(1, Target::Lock, "c"), Response::Refused(Status::MaxLocks));
    bench.release(1, Kind::Lock, "a", token);
    assert_eq!(
        bench.acquire(1, Target::Lock, "c"),
        Response::Refused(Status::MaxLocks),
        "a key counts until it is forgotten"
    );
    bench.pass(60 * SECOND);
    bench.state.collect(bench.now);
    bench.token(1, Target::Lock, "c");
    let _waits = bench.waiting(2, Target::Lock, "c");
    let ServerAnswer::Now(refused) = bench.acquire_for(3, Target::Lock, "c", 9, 9) else {
        panic!("one waiter too many");
    };
    assert_eq!(refused, Response::Refused(Status::MaxWaiters));
    bench.state.disconnect(5, bench.now);
    assert!(bench.state.connect(0).is_some(), "the cap allows a connection again");
}

#[test]
fn a_ticket_is_collected_once_and_a_wait_needs_an_enqueue() {
    let mut bench = Bench::new(|_| {});
    assert_eq!(bench.collect(1, "k"), Response::Refused(Status::NotEnqueued));
    let Response::Acquired(first) = bench.enqueue(1, "k", 30) else {
        panic!("the key was not free");
    };
    assert_eq!(bench.enqueue(1, "k", 30), Response::Refused(Status::AlreadyEnqueued));
    assert_eq!(bench.enqueue(2, "k", 30), Response::Queued);
    assert_eq!(bench.collect(1, "k"), Response::Granted(first));
    assert_eq!(bench.release(1, Kind::Lock, "k", first.token), Response::Done);
    let Response::Granted(second) = bench.collect(2, "k") else {
        panic!("connection 2 was not granted");
    };
    assert_eq!(
        bench.collect(2, "k"),
        Response::Refused(Status::NotEnqueued),
        "once only"
    );
    assert_eq!(bench.enqueue(3, "k", 30), Response::Queued);
    assert_eq!(bench.collect(3, "k"), Response::TimedOut);
    bench.release(2, Kind::Lock, "k", second.token);
    bench.token(4, Target::Lock, "k");
    assert_eq!(
        bench.enqueue(3, "k", 30),
        Response::Queued,
        "the queue position was given up"
    );
}

/// The answer to a `w` whose grant has expired: for a grant that was made at once and for one that was made in the
/// queue, each before and after the sweep.
#[test]
fn a_grant_that_was_not_collected_in_time() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Outcome {
        /// The old token, whose lease starts again.
        Renewed,
        /// The old token, whose lease is over.
        Stale,
        LeaseExpired,
        NotEnqueued,
    }
    use Outcome::*;
    for (release, at_once, in_queue) in [
        (Release::V1_10, [LeaseExpired, NotEnqueued], [Renewed, Stale]),
        (Release::V1_10_1, [LeaseExpired, NotEnqueued], [Renewed, LeaseExpired]),
        (Release::V1_14, [LeaseExpired, NotEnqueued], [Renewed, LeaseExpired]),
        (Release::V1_15, [LeaseExpired, NotEnqueued], [LeaseExpired, NotEnqueued]),
        (Release::V2_1, [LeaseExpired, NotEnqueued], [LeaseExpired, NotEnqueued]),
        (
            Release::Cluster,
            [LeaseExpired, LeaseExpired],
            [LeaseExpired, LeaseExpired],
        ),
    ] {
        for (queued, swept) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut bench = Bench::new(|options| options.release = release);
            if queued {
                let first = bench.token(1, Target::Lock, "k");
                assert_eq!(bench.enqueue(2, "k", 2), Response::Queued);
                bench.release(1, Kind::Lock, "k", first);
            } else {
                assert!(matches!(bench.enqueue(2, "k", 2), Response::Acquired(_)));
            }
            bench.pass(2 * SECOND);
            if swept {
                bench.state.expire(bench.now);
            }
            let told = match bench.collect(2, "k") {
                Response::Granted(grant) => match bench.release(2, Kind::Lock, "k", grant.token) {
                    Response::Done => Renewed,
                    _ => Stale,
                },
                Response::Refused(Status::LeaseExpired) => LeaseExpired,
                Response::Refused(Status::NotEnqueued) => NotEnqueued,
                other => panic!("{other:?}"),
            };
            let expected = if queued { in_queue } else { at_once }[usize::from(swept)];
            assert_eq!(told, expected, "{release}, queued {queued}, swept {swept}");
            // Whatever the answer was, the lock is free for another connection now.
            bench.token(3, Target::Lock, "k");
            assert_eq!(bench.enqueue(2, "k", 2), Response::Queued);
        }
    }
}

#[test]
fn an_enqueue_after_an_expired_grant_was_swept_is_a_new_enqueue() {
    for release in Release::ALL.into_iter().filter(|release| *release != Release::Cluster) {
        let mut bench = Bench::new(|options| options.release = release);
        let already = Response::Refused(Status::AlreadyEnqueued);
        assert!(matches!(bench.enqueue(1, "k", 1), Response::Acquired(_)));
        bench.pass(SECOND);
        assert_eq!(bench.enqueue(1, "k", 1), already, "{release}: not before the sweep");
        bench.state.expire(bench.now);
        assert!(matches!(bench.enqueue(1, "k", 1), Response::Acquired(_)), "{release}");
        bench.pass(SECOND);
        // A request of another connection expires the lease just like a sweep.
        bench.token(2, Target::Lock, "k");
        assert_eq!(bench.enqueue(1, "k", 1), Response::Queued, "{release}");
        assert_eq!(bench.enqueue(1, "k", 1), already, "{release}");
    }
}

#[test]
fn after_an_expired_ticket_is_gone_the_limit_of_the_key_applies() {
    let enqueue = |limit| Request::Enqueue {
        target: slots(limit),
        key: key("s"),
        ttl: Ttl::from_secs(1),
    };
    let mut bench = Bench::new(|_| {});
    assert!(matches!(bench.ask(1, enqueue(2)), Response::Acquired(_)));
    assert_eq!(
        bench.ask(1, enqueue(3)),
        Response::Refused(Status::AlreadyEnqueued),
        "whatever the limit"
    );
    bench.pass(SECOND);
    assert!(matches!(bench.ask(2, enqueue(2)), Response::Acquired(_)));
    assert_eq!(bench.ask(1, enqueue(3)), Response::Refused(Status::LimitMismatch));
}

#[test]
fn a_lease_restarts_when_its_ticket_is_collected() {
    for (queued, release) in [
        (false, Release::V1_10),
        (true, Release::V1_10),
        (false, Release::V2_1),
        (true, Release::V2_1),
    ] {
        let mut bench = Bench::new(|options| options.release = release);
        if queued {
            let first = bench.token(1, Target::Lock, "k");
            assert_eq!(bench.enqueue(2, "k", 10), Response::Queued);
            bench.release(1, Kind::Lock, "k", first);
        } else {
            assert!(matches!(bench.enqueue(2, "k", 10), Response::Acquired(_)));
        }
        bench.pass(9 * SECOND);
        assert!(matches!(bench.collect(2, "k"), Response::Granted(_)));
        bench.pass(9 * SECOND);
        bench.state.expire(bench.now);
        assert_eq!(
            bench.acquire(3, Target::Lock, "k"),
            Response::TimedOut,
            "{release} {queued}"
        );
        bench.pass(SECOND);
        bench.token(3, Target::Lock, "k");
    }
}

/// Between the end of a lease and the sweep.
#[test]
fn an_expired_lease_cannot_be_renewed_but_can_be_released_until_the_sweep_except_in_cluster_builds() {
    for release in Release::ALL {
        let mut bench = Bench::new(|options| options.release = release);
        let token = bench.token(1, Target::Lock, "k");
        bench.pass(30 * SECOND);
        let refused = match release {
            Release::Cluster => Status::LeaseExpired,
            _ => Status::Error,
        };
        let renewed = bench.renew(1, "k", token, 30);
        assert_eq!(renewed, Response::Refused(refused), "{release}");
        assert_eq!(
            bench.renew(1, "k", token, 30),
            Response::Refused(Status::Error),
            "{release}: it is gone"
        );
        let token = bench.token(1, Target::Lock, "k");
        bench.pass(30 * SECOND);
        let released = bench.release(1, Kind::Lock, "k", token);
        let done = release != Release::Cluster;
        assert_eq!(released == Response::Done, done, "{release}");
    }
}

#[test]
fn a_wait_that_times_out_gives_its_queue_position_up_unless_the_grant_came_first() {
    let mut bench = Bench::new(|_| {});
    let token = bench.token(1, Target::Lock, "k");
    let late = bench.waiting(2, Target::Lock, "k");
    assert!(bench.state.give_up(2, late.0, bench.now));
    let mut lucky = bench.waiting(3, Target::Lock, "k");
    bench.release(1, Kind::Lock, "k", token);
    assert!(!bench.state.give_up(3, lucky.0, bench.now));
    assert!(matches!(lucky.answer(), Some(Response::Granted(_))));
}

#[test]
fn a_draining_server_ends_waits_and_from_1_16_on_turns_all_requests_away() {
    let mut bench = Bench::new(|options| options.release = Release::V1_15);
    let token = bench.token(1, Target::Lock, "k");
    assert_eq!(bench.enqueue(2, "k", 30), Response::Queued);
    let mut waiting = bench.waiting(3, Target::Lock, "k");
    bench.state.drain(0, bench.now);
    let error = Response::Refused(Status::Error);
    assert_eq!(waiting.answer().as_ref(), Some(&error));
    assert_eq!(bench.acquire(4, Target::Lock, "k"), error, "it would have to wait");
    assert_eq!(bench.collect(2, "k"), error);
    bench.token(4, Target::Lock, "free");
    assert_eq!(bench.release(1, Kind::Lock, "k", token), Response::Done);
    assert!(!bench.state.turns_requests_away(1));
    for (release, away) in [(Release::V1_15, false), (Release::V1_16, true), (Release::V2_1, true)] {
        let mut bench = Bench::new(|options| options.release = release);
        assert!(!bench.state.turns_requests_away(1));
        bench.state.drain(0, bench.now);
        assert_eq!(bench.state.turns_requests_away(1), away, "{release}");
    }
}

/// The waiter that is woken first runs first.
#[test]
fn a_killed_server_wakes_waiters_in_queue_order() {
    struct Bell(usize, Arc<Mutex<Vec<usize>>>);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let mut bench = Bench::new(|_| {});
    let heard = Arc::default();
    let waiting: Vec<Waiting> = (0..20)
        .map(|number| {
            let name = format!("k{number}");
            bench.token(1, Target::Lock, &name);
            let connection = bench.state.connect(0).unwrap();
            let mut waiting = bench.waiting(connection, Target::Lock, &name);
            let waker = Waker::from(Arc::new(Bell(number, Arc::clone(&heard))));
            assert!(pin!(&mut waiting.1).poll(&mut Context::from_waker(&waker)).is_pending());
            waiting
        })
        .collect();
    bench.state.kill(bench.now);
    assert_eq!(*heard.lock().unwrap(), (0..20).collect::<Vec<_>>());
    drop(waiting);
}

#[test]
fn fences_grow_over_all_keys_and_tokens_start_with_them() {
    let mut bench = Bench::new(|_| {});
    let tokens = [
        bench.token(1, Target::Lock, "a"),
        bench.token(1, slots(2), "b"),
        bench.token(2, slots(2), "b"),
    ];
    let fences: Vec<u64> = tokens.iter().map(|token| token.first_half()).collect();
    assert_eq!(fences, [1, 2, 3]);
    assert!(tokens[2].as_str().starts_with("0000000000000003"));
}

#[test]
fn ended_leases_and_waits_leave_nothing_behind() {
    let mut bench = Bench::new(|_| {});
    for round in 0..100 {
        let name = format!("k{round}");
        let token = bench.token(1, Target::Lock, &name);
        let waits = bench.waiting(2, Target::Lock, &name);
        bench.state.give_up(2, waits.0, bench.now);
        if round % 2 == 0 {
            bench.release(1, Kind::Lock, &name, token);
        }
    }
    bench.pass(30 * SECOND);
    bench.state.expire(bench.now);
    bench.pass(60 * SECOND);
    bench.state.collect(bench.now);
    assert!(bench.state.entries.is_empty() && bench.state.ends.is_empty());
    assert!(bench.state.clients.values().all(|client| client.holds.is_empty()
        && client.tickets.is_empty()
        && client.places.is_empty()
        && client.waits.is_none()));
}

#[test]
fn events_contain_queue_positions_and_limits() {
    let mut bench = Bench::new(|_| {});
    let token = bench.token(1, slots(1), "s");
    let mut waiting = bench.waiting(2, slots(1), "s");
    bench.release(1, Kind::Semaphore, "s", token);
    waiting.granted();
    let events = bench.state.events();
    let places: Vec<_> = events.iter().map(|event| (event.kind, event.place)).collect();
    assert_eq!(
        places,
        [
            (Happened::Granted, None),
            (Happened::Queued, Some(1)),
            (Happened::Released, None),
            (Happened::Granted, Some(1)),
        ]
    );
    let mut bench = Bench::new(|_| {});
    bench.token(1, slots(7), "s");
    assert_eq!(bench.state.events()[0].limit, 7);
}

#[test]
fn a_killed_server_ends_all_leases_and_serves_no_request() {
    let mut bench = Bench::new(|_| {});
    bench.token(1, Target::Lock, "k");
    let mut waiting = bench.waiting(2, Target::Lock, "k");
    bench.state.kill(bench.now);
    waiting.assert_never_answered();
    assert!(bench.state.answers_no_more(1));
    bench.state.disconnect(1, bench.now);
    bench.state.disconnect(2, bench.now);
    assert_eq!(bench.state.connect(0), None);
    assert_eq!(
        bench.kinds(),
        [
            (Happened::Granted, 1),
            (Happened::Queued, 2),
            (Happened::Disconnected, 1)
        ]
    );
}

#[test]
fn a_cut_grants_nothing_to_the_connections_that_it_ends() {
    let mut bench = Bench::new(|_| {});
    bench.token(1, Target::Lock, "k");
    let mut waiting = bench.waiting(2, Target::Lock, "k");
    bench.state.cut(bench.now);
    waiting.assert_never_answered();
    assert!(bench.state.answers_no_more(1) && bench.state.answers_no_more(2));
    bench.state.disconnect(1, bench.now);
    assert_eq!(bench.state.open_connections(), 0);
    assert_eq!(
        bench.kinds(),
        [
            (Happened::Granted, 1),
            (Happened::Queued, 2),
            (Happened::Left, 2),
            (Happened::Disconnected, 1)
        ]
    );
    let next = bench.state.connect(0).unwrap();
    assert!(!bench.state.answers_no_more(next));
    bench.token(next, Target::Lock, "k");
}

#[test]
fn a_revoked_lease_is_granted_to_the_next_waiter() {
    let mut bench = Bench::new(|_| {});
    let token = bench.token(1, slots(2), "s");
    let other = bench.token(1, slots(2), "s");
    let mut waiting = bench.waiting(2, slots(2), "s");
    let revoked = bench.state.revoke(&key("s"), Some(&token), bench.now);
    assert_eq!(revoked, [token]);
    let Some(Response::Granted(next)) = waiting.answer() else {
        panic!("the waiter was not granted");
    };
    assert_eq!(
        bench.release(1, Kind::Semaphore, "s", token),
        Response::Refused(Status::Error)
    );
    let held: Vec<_> = bench.state.leases_of(&key("s"), bench.now);
    assert_eq!(
        held.iter().map(|lease| lease.token).collect::<Vec<_>>(),
        [other, next.token]
    );
    assert_eq!(bench.state.revoke(&key("s"), None, bench.now).len(), 2);
    assert!(bench.state.revoke(&key("s"), None, bench.now).is_empty());
}

mod books;
