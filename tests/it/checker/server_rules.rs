//! Tests of the rules that judge the lines of servers: holders, queues and fences.

use super::hand::*;
use crate::support::history::record::{Acquired, Entry, Kind, Line, What};
use crate::support::history::verdict::{Counts, Rule};

/// A function that makes the content of a line from an entry. An example is `What::Granted`.
type MakeWhat = fn(Entry) -> What;

fn semaphore(entry: Entry) -> Entry {
    Entry {
        kind: Kind::Semaphore,
        limit: 2,
        ..entry
    }
}

#[test]
fn a_correct_record_passes_and_is_counted() {
    let lines = [
        at(0, What::Granted(grant(1))),
        at(1, What::Queued(place(1))),
        at(1, What::Queued(place(2))),
        at(2, What::Queued(place(3))),
        at(3, What::Renewed(grant(1))),
        at(4, What::Orphaned(place(2))),
        at(5, What::Orphaned(grant(1))),
        at(6, What::Reclaimed(grant(1))),
        at(7, What::Reclaimed(place(2))),
        at(8, What::Left(place(1))),
        at(9, What::Released(grant(1))),
        at(9, What::Granted(grant_from(2, 2))),
        at(9, What::Collected(grant(2))),
        at(10, What::Expired(grant(2))),
        at(10, What::RenewalRefused(grant(2))),
        at(10, What::Granted(grant_from(3, 3))),
        at(11, What::Disconnected(grant(3))),
        at(12, What::Granted(grant(4))),
        at(13, What::Forgotten(grant(4))),
        at(14, What::Granted(grant(5))),
    ];
    let expected = Counts {
        lines: 20,
        grants: 5,
        from_queues: 2,
        keys: 1,
        held: 1,
        ..Counts::default()
    };
    assert_eq!(judge(&lines).assert(), expected);
    assert_eq!(judge(&[]).assert(), Counts::default());
}

#[test]
fn two_holders_of_a_lock_are_found_and_reported_with_their_lines() {
    let lines = [
        at(0, What::Granted(grant(1))),
        at(1, What::Released(grant(1))),
        at(2, What::Granted(grant(2))),
        at(
            2,
            What::Granted(Entry {
                key: "other".into(),
                ..grant(9)
            }),
        ),
        at(1003, What::Granted(grant(3))),
        at(1004, What::Released(grant(2))),
        at(1005, What::Released(grant(3))),
        at(1006, What::Granted(grant(4))),
    ];
    let verdict = judge(&lines);
    let said = verdict.to_string();
    assert_eq!(verdict.violations.len(), 1, "{said}");
    let violation = &verdict.violations[0];
    assert_eq!((violation.rule, violation.at), (Rule::Servers, 1003 * MS));
    assert!(
        violation
            .what
            .contains("held by 00000000000000020000000000000000 of server \"s\", since +0.002000 s"),
        "{said}"
    );
    assert_eq!(
        violation.history.len(),
        7,
        "the other key's line is not among them: {said}"
    );
    assert!(
        violation.history[3].starts_with("> {\"at\":1003000000,\"what\":\"granted\""),
        "{said}"
    );
}

#[test]
fn only_an_end_of_a_lease_frees_its_key() {
    let ends: [(MakeWhat, bool); 8] = [
        (What::Released, true),
        (What::Expired, true),
        (What::Disconnected, true),
        (What::Forgotten, true),
        (What::Renewed, false),
        (What::Orphaned, false),
        (What::Reclaimed, false),
        (What::RenewalRefused, false),
    ];
    for (what, is_end) in ends {
        let lines = [
            at(0, What::Granted(grant(1))),
            at(1, what(grant(1))),
            at(2, What::Granted(grant(2))),
        ];
        assert_eq!(judge(&lines).is_valid(), is_end, "{:?}", lines[1]);
    }
    let killed = [
        at(0, What::Granted(grant(1))),
        at(0, What::Queued(place(1))),
        at(1, What::ServerEnded(server_id("s"))),
        at(2, What::Granted(at_server("t", grant(2)))),
    ];
    assert_fine(&killed);
}

#[test]
fn keys_and_namespaces_are_separate_and_a_limit_bounds_holders() {
    let other = Entry {
        key: "other".into(),
        ..grant(2)
    };
    assert_fine(&[
        at(0, What::Granted(grant(1))),
        at(1, What::Granted(other)),
        at(2, What::Granted(semaphore(grant(3)))),
        at(2, What::Granted(semaphore(grant(4)))),
    ]);
    let three = [1, 2, 3].map(|n| at(n, What::Granted(semaphore(grant(n)))));
    assert_broken(&three, &[(Rule::Servers, "no more than 2 may hold it")]);
    // A lock has one holder, even if its line names a limit of 2.
    let two = [1, 2].map(|n| at(n, What::Granted(Entry { limit: 2, ..grant(n) })));
    assert_broken(&two, &[(Rule::Servers, "no more than 1 may hold it")]);
}

#[test]
fn a_grant_that_is_repeated_ends_twice_or_never_began_is_found() {
    assert_broken(
        &[
            at(0, What::Granted(grant(1))),
            at(1, What::Released(grant(1))),
            at(2, What::Released(grant(1))),
            at(3, What::Granted(grant(1))),
            at(4, What::Renewed(grant(2))),
            at(5, What::Reclaimed(grant(2))),
            at(6, What::Collected(grant(2))),
            at(7, What::Expired(grant(2))),
            at(8, What::Granted(entry())),
        ],
        &[
            (Rule::Servers, "was not held"),
            (Rule::Servers, "was granted before"),
            (Rule::Servers, "was not held"),
            (Rule::Servers, "was not held"),
            (Rule::Servers, "was not held"),
            (Rule::Servers, "was not held"),
            (Rule::Servers, "names no token"),
        ],
    );
}

#[test]
fn two_servers_may_not_grant_the_same_key_at_once() {
    let first = [at(0, What::Granted(grant(1))), at(10, What::Disconnected(grant(1)))];
    for (since, wrong) in [(5, true), (10, false), (11, false)] {
        let second = at(since, What::Granted(at_server("t", grant(2))));
        for lines in [
            [first[0].clone(), first[1].clone(), second.clone()],
            [second.clone(), first[0].clone(), first[1].clone()],
        ] {
            assert_eq!(!judge(&lines).is_valid(), wrong, "{since}");
        }
    }
    // The record does not contain the end of the first grant. The judge then assumes that this grant lasts until its
    // lease ends, and that no other server may grant the key before that. If the line of the grant does not say when
    // the lease ends, the judge assumes that the grant lasts for ever.
    let lease = until(30, grant(1));
    for (entry, since, wrong) in [(grant(1), 60_000, true), (lease.clone(), 29, true), (lease, 30, false)] {
        let lines = [
            at(0, What::Granted(entry)),
            at(since, What::Granted(at_server("t", grant(2)))),
        ];
        assert_eq!(!judge(&lines).is_valid(), wrong, "{since}");
    }
    // At its own server, a grant lasts until the record contains its end, even if the lease has ended.
    let lines = [
        at(0, What::Granted(until(30, grant(1)))),
        at(31, What::Granted(grant(2))),
    ];
    assert_broken(&lines, &[(Rule::Servers, "is held by")]);
    // A release at another server does not end the grant of this server.
    let lines = [
        first[0].clone(),
        at(5, What::Released(at_server("t", grant(1)))),
        first[1].clone(),
    ];
    assert_broken(&lines, &[(Rule::Servers, "was not held")]);
}

#[test]
fn a_lease_that_was_renewed_is_held_longer() {
    for (renew, wrong) in [(What::Renewed as MakeWhat, true), (What::Orphaned, false)] {
        let lines = [
            at(0, What::Granted(until(30, grant(1)))),
            at(20, renew(until(50, grant(1)))),
            at(40, What::Granted(at_server("t", grant(2)))),
            at(60, What::Expired(grant(1))),
        ];
        let mut lines = lines;
        if !wrong {
            lines[1] = at(20, renew(grant(1)));
        }
        assert_eq!(!judge(&lines).is_valid(), wrong);
    }
}

#[test]
fn grants_out_of_queue_order_are_found() {
    assert_broken(
        &[
            at(0, What::Granted(grant(1))),
            at(1, What::Queued(place(1))),
            at(2, What::Queued(place(2))),
            at(3, What::Queued(place(3))),
            at(4, What::Released(grant(1))),
            at(5, What::Granted(grant_from(2, 2))),
            at(6, What::Released(grant(2))),
            at(7, What::Granted(grant(3))),
            at(8, What::Released(grant(3))),
            at(9, What::Granted(grant_from(1, 4))),
            at(10, What::Left(place(3))),
            at(11, What::Released(grant(4))),
            at(12, What::Granted(grant(5))),
        ],
        &[
            (Rule::QueueOrder, "place 2 was granted before place 1"),
            (Rule::QueueOrder, "a newcomer was granted before place 1"),
        ],
    );
}

#[test]
fn waiters_join_a_queue_at_its_end_and_only_waiters_leave_it() {
    assert_broken(
        &[
            at(0, What::Queued(place(2))),
            at(1, What::Queued(place(1))),
            at(2, What::Left(place(3))),
            at(3, What::Left(place(1))),
            at(4, What::Left(place(1))),
            at(5, What::Reclaimed(place(1))),
            at(6, What::Granted(grant_from(1, 1))),
            at(7, What::Queued(entry())),
        ],
        &[
            (Rule::QueueOrder, "place 1 was taken after place 2"),
            (Rule::QueueOrder, "no caller waits at place 3"),
            (Rule::QueueOrder, "no caller waits at place 1"),
            (Rule::QueueOrder, "no caller waits at place 1"),
            (Rule::QueueOrder, "no caller waits at place 1"),
            (Rule::QueueOrder, "a place without a number"),
        ],
    );
}

#[test]
fn queues_of_different_servers_and_keys_are_different_queues() {
    let other = |entry: Entry| Entry {
        key: "other".into(),
        ..entry
    };
    assert_fine(&[
        at(0, What::Queued(place(7))),
        at(1, What::Queued(at_server("t", place(1)))),
        at(2, What::Granted(at_server("t", grant_from(1, 1)))),
        at(2, What::Queued(other(place(8)))),
        at(2, What::Granted(other(grant_from(8, 2)))),
        at(3, What::Left(place(7))),
    ]);
}

#[test]
fn lines_of_one_server_are_judged_by_order_not_by_time() {
    // The server made the second grant after the release. It had read the clock for this grant before the release, so
    // the time of the grant (4 ms) is before the time of the release (5 ms).
    assert_fine(&[
        at(0, What::Granted(grant(1))),
        at(5, What::Released(grant(1))),
        at(4, What::Granted(grant(2))),
        at(1, What::Queued(at_server("t", place(1)))),
    ]);
}

fn fenced(fence: u64, n: u64) -> Entry {
    Entry {
        fence: Some(fence),
        ..grant(n)
    }
}

fn one_after_the_other(grants: &[Entry]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (number, grant) in grants.iter().enumerate() {
        let ms = 2 * number as u64;
        lines.push(at(ms, What::Granted(grant.clone())));
        lines.push(at(ms + 1, What::Released(grant.clone())));
    }
    lines
}

#[test]
fn fences_grow_for_each_key_of_each_server() {
    let broken = one_after_the_other(&[fenced(5, 1), fenced(7, 2), fenced(7, 3), fenced(6, 4), fenced(7, 5)]);
    assert_broken(
        &broken,
        &[
            (Rule::Fences, "has fence 7, the one before has 7"),
            (Rule::Fences, "has fence 6, the one before has 7"),
        ],
    );
    let other = Entry {
        key: "other".into(),
        ..fenced(1, 2)
    };
    let fine = one_after_the_other(&[
        fenced(5, 1),
        other,
        at_server("t", fenced(3, 3)),
        grant(4),
        fenced(6, 5),
    ]);
    let counts = judge(&fine).assert();
    assert_eq!(counts.fences, 1);
}

#[test]
fn fences_go_on_growing_when_a_server_is_started_again() {
    let mut lines = one_after_the_other(&[fenced(5, 1)]);
    lines.push(at(10, What::ServerEnded(server_id("s"))));
    lines.push(at(11, started("s2", "s")));
    lines.push(at(12, started("s3", "s2")));
    lines.push(at(13, What::Granted(at_server("s3", fenced(4, 2)))));
    assert_broken(&lines, &[(Rule::Fences, "has fence 4, the one before has 5")]);
    lines.remove(3);
    assert_fine(&lines);
}

#[test]
fn a_client_shows_the_fence_of_its_server_and_no_other() {
    let shows = |fence: Option<u64>| {
        let acquired = Acquired { fence, ..acquired(1) };
        [at(0, What::Granted(fenced(5, 1))), at(1, What::Acquired(acquired))]
    };
    assert_fine(&shows(Some(5)));
    // The client may use no fences, or it may not know yet that its server issues fences.
    assert_fine(&shows(None));
    assert_broken(
        &shows(Some(6)),
        &[(Rule::Fences, "shows fence 6, but its server issued Some(5)")],
    );
    let mut none = shows(Some(5));
    none[0] = at(0, What::Granted(grant(1)));
    assert_broken(&none, &[(Rule::Fences, "its server issued None")]);
}
