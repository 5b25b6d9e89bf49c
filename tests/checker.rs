//! The checker of records finds what it is there to find, in records that are made by hand, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Kind, Token};
use support::checker::{Checker, Step, Verdict};
use support::raw::RawConnection;
use tokio::time::Instant;

/// Makes records, by milliseconds.
struct Hand(Instant);

impl Hand {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn step(&self, ms: u64, kind: EventKind, about: About) -> Step {
        let (token, place) = match about {
            Grant(grant) => (Some(token(grant)), None),
            FromQueue(grant, place) => (Some(token(grant)), Some(place)),
            Place(place) => (None, Some(place)),
        };
        Step {
            at: self.0 + Duration::from_millis(ms),
            kind,
            namespace: Kind::Lock,
            key: "k".to_owned(),
            limit: 1,
            token,
            place,
            connection: 9,
        }
    }

    fn steps(&self, steps: &[(u64, EventKind, About)]) -> Vec<Step> {
        steps
            .iter()
            .map(|(ms, kind, about)| self.step(*ms, *kind, *about))
            .collect()
    }
}

#[derive(Clone, Copy)]
enum About {
    Grant(u64),
    FromQueue(u64, u64),
    Place(u64),
}

use About::{FromQueue, Grant, Place};
use EventKind::{Disconnected, Expired, Forgotten, Granted, Left, Orphaned, Queued, Reclaimed, Released, Renewed};

fn token(fence: u64) -> Token {
    Token::new(format!("{fence:016x}{:016x}", 0)).unwrap()
}

/// What is wrong with one record, in order.
fn wrong_in(steps: Vec<Step>) -> Vec<String> {
    Checker::default()
        .record("one", steps)
        .in_order()
        .check()
        .map_or_else(|wrong| wrong.0, |_| Vec::new())
}

#[track_caller]
fn assert_wrong(steps: Vec<Step>, expected: &[&str]) {
    let wrong = wrong_in(steps);
    assert_eq!(wrong.len(), expected.len(), "{wrong:#?}");
    for (wrong, expected) in wrong.iter().zip(expected) {
        assert!(wrong.contains(expected), "{wrong:?} without {expected:?}");
    }
}

#[test]
fn what_is_right_is_found_right_and_counted() {
    let hand = Hand::new();
    let steps = hand.steps(&[
        (0, Granted, Grant(1)),
        (1, Queued, Place(1)),
        (1, Queued, Place(2)),
        (2, Queued, Place(3)),
        (3, Renewed, Grant(1)),
        (4, Orphaned, Place(2)),
        (5, Orphaned, Grant(1)),
        (6, Reclaimed, Grant(1)),
        (7, Reclaimed, Place(2)),
        (8, Left, Place(1)),
        (9, Released, Grant(1)),
        (9, Granted, FromQueue(2, 2)),
        (10, Expired, Grant(2)),
        (10, Granted, FromQueue(3, 3)),
        (11, Disconnected, Grant(3)),
        (12, Granted, Grant(4)),
        (13, Forgotten, Grant(4)),
        (14, Granted, Grant(5)),
    ]);
    assert_eq!(
        Checker::default().record("one", steps).in_order().assert(),
        Verdict {
            grants: 5,
            from_queues: 2,
            keys: 1,
            held: 1
        }
    );
    assert_eq!(Checker::default().assert(), Verdict::default());
}

#[test]
fn two_holders_of_a_lock_are_found_and_named() {
    let hand = Hand::new();
    let steps = hand.steps(&[
        (0, Granted, Grant(1)),
        (1, Released, Grant(1)),
        (2, Granted, Grant(2)),
        (1003, Granted, Grant(3)),
        (1004, Released, Grant(2)),
        (1005, Released, Grant(3)),
        (1006, Granted, Grant(4)),
    ]);
    assert_wrong(
        steps,
        &[
            "lock \"k\": Granted grant 3 (connection 9 of \"one\") at +1.003000 s: while it is held by \
           grant 2 (connection 9 of \"one\", since +0.002000 s)",
        ],
    );
}

#[test]
fn every_end_of_a_lease_is_one_and_nothing_else_is() {
    for (kind, wrong) in [
        (Released, 0),
        (Expired, 0),
        (Disconnected, 0),
        (Forgotten, 0),
        (Renewed, 1),
        (Orphaned, 1),
        (Reclaimed, 1),
    ] {
        let hand = Hand::new();
        let steps = hand.steps(&[(0, Granted, Grant(1)), (1, kind, Grant(1)), (2, Granted, Grant(2))]);
        assert_eq!(wrong_in(steps).len(), wrong, "{kind:?}");
    }
}

#[test]
fn other_keys_and_other_namespaces_are_others() {
    let hand = Hand::new();
    let mut steps = hand.steps(&[(0, Granted, Grant(1)), (1, Granted, Grant(2)), (2, Granted, Grant(3))]);
    steps[1].key = "other".to_owned();
    steps[2].namespace = Kind::Semaphore;
    assert_wrong(steps, &[]);
}

#[test]
fn a_semaphore_has_as_many_holders_as_its_limit_and_a_lock_one_whatever_is_said() {
    let hand = Hand::new();
    for (namespace, expected) in [
        (Kind::Semaphore, &["held by grant 1 "][..]),
        (Kind::Lock, &["held by grant 1 ", "held by grant 1 "][..]),
    ] {
        let mut steps = hand.steps(&[
            (0, Granted, Grant(1)),
            (1, Granted, Grant(2)),
            (2, Granted, Grant(3)),
            (3, Released, Grant(2)),
            (3, Released, Grant(3)),
        ]);
        for step in &mut steps {
            step.namespace = namespace;
            step.limit = 2;
        }
        assert_wrong(steps, expected);
    }
    let mut steps = hand.steps(&[(0, Granted, Grant(1)), (1, Granted, Grant(2)), (2, Granted, Grant(3))]);
    for step in &mut steps {
        step.namespace = Kind::Semaphore;
        step.limit = 2;
    }
    assert_wrong(
        steps,
        &["and by grant 2 (connection 9 of \"one\", since +0.001000 s), and no more than 2 may"],
    );
}

#[test]
fn a_grant_that_is_given_twice_or_ends_twice_is_found() {
    let hand = Hand::new();
    let steps = hand.steps(&[
        (0, Granted, Grant(1)),
        (1, Released, Grant(1)),
        (2, Released, Grant(1)),
        (3, Granted, Grant(1)),
        (4, Renewed, Grant(2)),
        (5, Reclaimed, Grant(2)),
        (6, Expired, Grant(2)),
    ]);
    assert_wrong(
        steps,
        &[
            "Released grant 1 (connection 9 of \"one\") at +0.002000 s: was not held",
            "Granted grant 1 (connection 9 of \"one\") at +0.003000 s: was granted before",
            "Renewed grant 2 (connection 9 of \"one\") at +0.004000 s: was neither held",
            "Reclaimed grant 2 (connection 9 of \"one\") at +0.005000 s: was neither held",
            "Expired grant 2 (connection 9 of \"one\") at +0.006000 s: was not held",
        ],
    );
}

#[test]
fn who_overtakes_is_found_where_order_is_asked_for() {
    let hand = Hand::new();
    let steps = hand.steps(&[
        (0, Granted, Grant(1)),
        (1, Queued, Place(1)),
        (2, Queued, Place(2)),
        (3, Queued, Place(3)),
        (4, Released, Grant(1)),
        (5, Granted, FromQueue(2, 2)),
        (6, Released, Grant(2)),
        (7, Granted, Grant(3)),
        (8, Released, Grant(3)),
        (9, Granted, FromQueue(4, 1)),
        (10, Left, Place(3)),
        (11, Released, Grant(4)),
        (12, Granted, Grant(5)),
    ]);
    assert_wrong(
        steps.clone(),
        &[
            "Granted grant 2 place 2 (connection 9 of \"one\") at +0.005000 s: from place 2, before the one at place 1",
            "Granted grant 3 (connection 9 of \"one\") at +0.007000 s: to a newcomer, before the one at place 1",
        ],
    );
    let verdict = Checker::default().record("one", steps).assert();
    assert_eq!((verdict.grants, verdict.from_queues), (5, 2), "nobody asked for order");
}

#[test]
fn queues_are_joined_at_their_end_and_left_by_who_is_in_them() {
    let hand = Hand::new();
    let steps = hand.steps(&[
        (0, Queued, Place(2)),
        (1, Queued, Place(1)),
        (2, Left, Place(3)),
        (3, Left, Place(1)),
        (4, Left, Place(1)),
        (5, Reclaimed, Place(1)),
        (6, Granted, FromQueue(1, 1)),
    ]);
    assert_wrong(
        steps,
        &[
            "Queued place 1 (connection 9 of \"one\") at +0.001000 s: at place 1, behind place 2",
            "Left place 3 ",
            "Left place 1 (connection 9 of \"one\") at +0.004000 s: a place where nobody waited",
            "Reclaimed place 1 ",
            "from place 1, where nobody waited",
        ],
    );
}

#[test]
fn what_one_server_has_granted_no_other_may() {
    let hand = Hand::new();
    let first = hand.steps(&[(0, Granted, Grant(1)), (10, Disconnected, Grant(1))]);
    for (since, wrong) in [(5, true), (10, false), (11, false)] {
        let second = hand.steps(&[(since, Granted, Grant(2))]);
        let both = Checker::default()
            .record("primary", first.clone())
            .record("standby", second.clone());
        let other_way = Checker::default()
            .record("standby", second)
            .record("primary", first.clone());
        for checker in [both, other_way] {
            let message = checker
                .check()
                .map_or_else(|wrong| wrong.to_string(), |_| String::new());
            assert_eq!(!message.is_empty(), wrong, "{since}: {message}");
            if wrong {
                assert!(
                    message.contains("(connection 9 of \"standby\") at +0.005000 s"),
                    "{message}"
                );
                assert!(
                    message.contains("(connection 9 of \"primary\", since +0.000000 s)"),
                    "{message}"
                );
            }
        }
    }
    // A lease that never ended is held to the end.
    let second = hand.steps(&[(60_000, Granted, Grant(2))]);
    let checker = Checker::default()
        .record("primary", first[..1].to_vec())
        .record("standby", second);
    assert!(checker.check().is_err());
    // What another server ended is not this one's end.
    let second = hand.steps(&[(5, Released, Grant(1)), (20, Granted, Grant(2))]);
    let checker = Checker::default().record("primary", first).record("standby", second);
    assert_eq!(checker.check().unwrap_err().0.len(), 1);
}

#[test]
fn queues_of_different_servers_are_different_queues() {
    let hand = Hand::new();
    let first = hand.steps(&[(0, Queued, Place(7)), (3, Left, Place(7))]);
    let second = hand.steps(&[(1, Queued, Place(1)), (2, Granted, FromQueue(1, 1))]);
    Checker::default()
        .record("a", first)
        .record("b", second)
        .in_order()
        .assert();
}

#[test]
fn within_a_record_its_order_counts_not_its_clock() {
    let hand = Hand::new();
    // The second grant's clock was read before the release, and its lock was taken after it.
    let steps = hand.steps(&[(0, Granted, Grant(1)), (5, Released, Grant(1)), (4, Granted, Grant(2))]);
    let other = hand.steps(&[(1, Queued, Place(1))]);
    Checker::default().record("one", steps).record("other", other).assert();
}

#[test]
fn only_the_first_violations_are_shown() {
    let hand = Hand::new();
    let steps: Vec<Step> = (0..25).map(|ms| hand.step(ms, Released, Grant(ms))).collect();
    let wrong = Checker::default().record("one", steps).check().unwrap_err();
    assert_eq!(wrong.0.len(), 25);
    let shown = wrong.to_string();
    assert!(
        shown.starts_with("25 violations\n") && shown.ends_with("and 15 more\n"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 12);
}

#[test]
#[should_panic(expected = "was not held")]
fn an_assertion_fails_with_what_is_wrong() {
    let hand = Hand::new();
    Checker::default()
        .record("one", hand.steps(&[(0, Released, Grant(1))]))
        .assert();
}

#[tokio::test]
async fn a_real_servers_record_is_read_and_found_right() {
    let server = Server::builder().port(0).record_events(true).start().await.unwrap();
    let address = server.local_addr().to_string();
    let mut holder = RawConnection::open(&address).await;
    let mut waiter = RawConnection::open(&address).await;
    for _ in 0..2 {
        assert!(holder.request("sl", "s", "0 2 30").await.starts_with("ok "));
        let held = holder.request("l", "k", "0 30").await;
        assert_eq!(waiter.request("e", "k", "30").await, "queued");
        holder.request("r", "k", held.split(' ').nth(1).unwrap()).await;
        let got = waiter.request("w", "k", "9").await;
        assert_eq!(waiter.request("r", "k", got.split(' ').nth(1).unwrap()).await, "ok");
    }
    let verdict = Checker::default().record("server", server.events()).in_order().assert();
    assert_eq!(
        verdict,
        Verdict {
            grants: 6,
            from_queues: 2,
            keys: 2,
            held: 2
        }
    );
}
