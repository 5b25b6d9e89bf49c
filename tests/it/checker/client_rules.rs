//! Tests of the rules for clients: deadlines of operations, owners of grants, and renewals after releases.

use super::hand::*;
use crate::support::history::record::{Acquired, Action, Entry, Invoke, Kind, LetGo, Line, Outcome, What};
use crate::support::history::verdict::Rule;

/// An acquire with a timeout of 100 ms starts at 0 ms and returns at `returned_at`. The record ends at 1000 ms.
fn acquire(returned_at: Option<u64>) -> Vec<Line> {
    let mut lines = vec![
        at(0, within(100, invoke(1, Action::Acquire))),
        at(1000, What::TroubleBegun(trouble("the end"))),
    ];
    lines.extend(returned_at.map(|ms| at(ms, returned(1, Outcome::TimedOut))));
    lines
}

#[test]
fn an_operation_that_returns_late_or_never_is_found() {
    assert_fine(&acquire(Some(110)));
    assert_eq!(judge(&acquire(Some(110))).assert().deadlines, 1);
    assert_broken(
        &acquire(Some(111)),
        &[(Rule::Deadlines, "had until +0.100000 s and returned at +0.111000 s")],
    );
    assert_broken(&acquire(None), &[(Rule::Deadlines, "had not returned")]);
}

#[test]
fn a_process_that_does_not_run_is_not_late() {
    let frozen = |from: u64, to: u64, returned: u64| {
        let mut lines = acquire(Some(returned));
        lines.push(at(from, What::ProcessFrozen(process("p"))));
        lines.push(at(to, What::ProcessThawed(process("p"))));
        lines
    };
    assert_fine(&frozen(50, 300, 310));
    assert_broken(&frozen(50, 300, 311), &[(Rule::Deadlines, "returned at")]);
    // A freeze that ends before the deadline gives the operation no more time.
    assert_broken(&frozen(10, 60, 150), &[(Rule::Deadlines, "returned at")]);
    let mut killed = acquire(None);
    killed.push(at(90, What::ProcessKilled(process("p"))));
    assert_fine(&killed);
}

/// After a freeze, an acquire of several keys may still send requests for the remaining keys. So the rule counts only
/// the time in which the process runs.
#[test]
fn the_timeout_of_an_acquire_of_several_keys_counts_running_time_only() {
    let frozen = |returned_at: u64| {
        let several = Invoke {
            key: None,
            ..invoke(1, Action::Acquire)
        };
        let mut lines = vec![
            at(0, within(100, several)),
            at(1000, What::TroubleBegun(trouble("the end"))),
        ];
        lines.push(at(50, What::ProcessFrozen(process("p"))));
        lines.push(at(300, What::ProcessThawed(process("p"))));
        lines.push(at(returned_at, returned(1, Outcome::TimedOut)));
        lines
    };
    assert_fine(&frozen(360));
    assert_broken(&frozen(361), &[(Rule::Deadlines, "returned at +0.361000 s")]);
}

/// One thaw resumes a process, even if the process was frozen twice.
#[test]
fn a_process_that_is_frozen_twice_runs_from_the_first_thaw() {
    let frozen = |returned: u64| {
        let mut lines = acquire(Some(returned));
        lines.push(at(50, What::ProcessFrozen(process("p"))));
        lines.push(at(60, What::ProcessFrozen(process("p"))));
        lines.push(at(300, What::ProcessThawed(process("p"))));
        lines
    };
    let twice = (Rule::Record, "a frozen process is frozen again");
    assert_broken(&frozen(310), &[twice]);
    assert_broken(&frozen(311), &[(Rule::Deadlines, "returned at +0.311000 s"), twice]);
    let mut thawed_twice = frozen(310);
    thawed_twice.remove(3);
    thawed_twice.push(at(305, What::ProcessThawed(process("p"))));
    assert_broken(
        &thawed_twice,
        &[(Rule::Record, "a process that is not frozen is thawed")],
    );
}

#[test]
fn an_operation_without_a_timeout_may_wait_unless_its_process_ends_in_an_orderly_way() {
    let mut lines = vec![
        at(0, What::Invoke(invoke(1, Action::Acquire))),
        at(5000, What::TroubleBegun(trouble("x"))),
    ];
    assert_fine(&lines);
    lines.push(at(100, What::ProcessEnded(process("p"))));
    assert_broken(&lines, &[(Rule::Deadlines, "had not returned when its process ended")]);
    lines.push(at(90, returned(1, Outcome::Cancelled)));
    assert_fine(&lines);
}

/// At the server, grant 1 lasts from 10 ms to 200 ms. The caller's acquire began at 0 ms and returned the grant. The
/// caller owns the grant until `until_ms`.
fn owned(until_ms: u64) -> Vec<Line> {
    vec![
        at(0, What::Invoke(invoke(1, Action::Acquire))),
        at(10, What::Granted(until(1000, grant(1)))),
        at(12, What::Acquired(acquired(1))),
        at(12, returned(1, Outcome::Granted)),
        at(until_ms, let_go(1)),
        at(200, What::Released(grant(1))),
    ]
}

#[test]
fn a_grant_that_the_server_keeps_after_its_owner_let_it_go_is_found() {
    assert_fine(&owned(150));
    assert_broken(
        &owned(149),
        &[(Rule::Owners, "had no owner from +0.149000 s to +0.200000 s")],
    );
    let mut releases_it = owned(190);
    releases_it.push(at(149, releases(2, 1)));
    assert_broken(&releases_it, &[(Rule::Owners, "had no owner")]);
    let mut told = owned(190);
    told.push(at(149, lost(1)));
    assert_broken(&told, &[(Rule::Owners, "had no owner")]);
    let mut ended = owned(150);
    ended[4] = at(149, What::ProcessEnded(process("p")));
    assert_broken(&ended, &[(Rule::Owners, "had no owner")]);
}

#[test]
fn a_grant_may_lack_an_owner_during_trouble_and_after_a_freeze_or_a_kill() {
    let mut broken = owned(100);
    broken.push(at(110, What::TroubleBegun(trouble("cut"))));
    broken.push(at(170, What::TroubleEnded(trouble("cut"))));
    assert_fine(&broken);
    let mut at_its_server = owned(100);
    at_its_server.push(at(110, What::TroubleBegun(trouble_of("s", "cut"))));
    at_its_server.push(at(170, What::TroubleEnded(trouble_of("s", "cut"))));
    assert_fine(&at_its_server);
    let mut before_it = owned(100);
    before_it.push(at(1, started("s", "r")));
    before_it.push(at(110, What::TroubleBegun(trouble_of("r", "cut"))));
    before_it.push(at(170, What::TroubleEnded(trouble_of("r", "cut"))));
    assert_fine(&before_it);
    let mut elsewhere = owned(100);
    elsewhere.push(at(110, What::TroubleBegun(trouble_of("t", "cut"))));
    elsewhere.push(at(170, What::TroubleEnded(trouble_of("t", "cut"))));
    assert_broken(&elsewhere, &[(Rule::Owners, "had no owner")]);
    let mut stopped = owned(100);
    stopped.push(at(110, What::ProcessFrozen(process("p"))));
    stopped.push(at(170, What::ProcessThawed(process("p"))));
    assert_fine(&stopped);
    let mut dead = owned(100);
    dead.push(at(120, What::ProcessKilled(process("p"))));
    assert_fine(&dead);
    let mut dead_with_it = owned(100);
    dead_with_it[4] = at(20, What::ProcessKilled(process("p")));
    assert_fine(&dead_with_it);
    let mut another = owned(100);
    another.push(at(120, What::ProcessKilled(process("q"))));
    assert_broken(&another, &[(Rule::Owners, "had no owner")]);
}

#[test]
fn no_grant_outlives_its_lease() {
    let lease = |ends: u64| {
        let mut lines = owned(195);
        lines[1] = at(10, What::Granted(until(ends, grant(1))));
        lines
    };
    assert_fine(&lease(150));
    assert_broken(
        &lease(149),
        &[(
            Rule::Owners,
            "ended at +0.149000 s, but the grant was held until +0.200000 s",
        )],
    );
}

/// Grant 1 lasts from 10 ms to 200 ms, and no caller receives it.
fn unclaimed(more: Vec<Line>) -> Vec<Line> {
    let mut lines = vec![
        at(10, What::Granted(until(1000, grant(1)))),
        at(200, What::Released(grant(1))),
    ];
    lines.extend(more);
    lines
}

#[test]
fn a_grant_that_no_caller_waits_for_is_found() {
    let ends = |outcome: Outcome, ms: u64| {
        unclaimed(vec![
            at(0, What::Invoke(invoke(1, Action::Acquire))),
            at(ms, returned(1, outcome)),
        ])
    };
    assert_fine(&ends(Outcome::Cancelled, 150));
    assert_broken(
        &ends(Outcome::Cancelled, 149),
        &[(Rule::Owners, "had no owner from +0.149000 s")],
    );
    assert_broken(
        &ends(Outcome::TimedOut, 20),
        &[(Rule::Owners, "had no owner from +0.020000 s")],
    );
    // The result of an operation that failed is unknown: it may have received the grant.
    assert_fine(&ends(Outcome::Failed, 20));
    let mut broken = ends(Outcome::Cancelled, 20);
    broken.push(at(15, What::TroubleBegun(trouble("cut"))));
    broken.push(at(16, What::TroubleEnded(trouble("cut"))));
    assert_fine(&broken);
    let mut killed = ends(Outcome::Cancelled, 20);
    killed[3] = at(20, What::ProcessKilled(process("p")));
    assert_fine(&killed);
    // An operation that returned with another grant did not own this grant.
    assert_broken(
        &ends(Outcome::Granted, 190),
        &[(Rule::Owners, "had no owner from +0.010000 s")],
    );
    // An operation for another key did not own this grant either.
    let other = Invoke {
        key: Some("other".into()),
        ..invoke(1, Action::Acquire)
    };
    let other = unclaimed(vec![
        at(0, What::Invoke(other)),
        at(199, returned(1, Outcome::TimedOut)),
    ]);
    assert_broken(&other, &[(Rule::Owners, "had no owner")]);
}

/// The server grants an acquire at 10 ms, with a lease until 30 s. The caller cancels the acquire at 20 ms. The lease
/// is released at `given_back`, or never.
fn leaked(given_back: Option<u64>) -> Vec<Line> {
    let mut lines = vec![
        at(0, What::Invoke(invoke(1, Action::Acquire))),
        at(10, What::Granted(until(30_000, grant(1)))),
        at(20, returned(1, Outcome::Cancelled)),
        at(5_000, What::ProcessEnded(process("p"))),
    ];
    lines.extend(given_back.map(|ms| at(ms, What::Released(grant(1)))));
    lines
}

#[test]
fn the_grant_of_a_cancelled_acquire_is_found_long_before_its_lease_ends() {
    let found = [(Rule::Owners, "had no owner from +0.020000 s")];
    assert_broken(&leaked(None), &found);
    assert_broken(&leaked(Some(71)), &found);
    assert_eq!(judge(&leaked(Some(70))).assert().owned, 1);
    let broken = |server: &str, from: u64, to: u64| {
        let mut lines = leaked(None);
        lines.push(at(from, What::TroubleBegun(trouble_of(server, "cut"))));
        lines.push(at(to, What::TroubleEnded(trouble_of(server, "cut"))));
        lines
    };
    // Trouble long after the acquire, or at another server, is no excuse.
    assert_broken(&broken("s", 71, 72), &found);
    assert_broken(&broken("t", 15, 16), &found);
    // After trouble during the acquire, the result of the request is unknown. So the rule does not judge this grant.
    assert_eq!(judge(&broken("s", 15, 16)).assert().owned, 0);
}

/// Trouble that ended before the acquire may delay the release, but at most by the bound `unnoticed`.
#[test]
fn trouble_before_an_acquire_excuses_a_late_release_for_a_bounded_time() {
    let after_trouble = |given_back: u64| {
        let mut lines = leaked(Some(given_back));
        for line in &mut lines {
            line.at += 50 * MS;
        }
        lines.push(at(10, What::TroubleBegun(trouble_of("s", "cut"))));
        lines.push(at(20, What::TroubleEnded(trouble_of("s", "cut"))));
        lines
    };
    assert_fine(&after_trouble(170));
    assert_broken(&after_trouble(171), &[(Rule::Owners, "had no owner")]);
}

#[test]
fn a_ticket_owns_its_grant() {
    let ticket = |gone: What, ms: u64| {
        unclaimed(vec![
            at(0, What::Invoke(invoke(1, Action::Enqueue))),
            at(5, returned(1, Outcome::Queued)),
            at(ms, gone),
        ])
    };
    let dropped = || {
        What::LetGo(LetGo {
            process: "p".into(),
            holder: None,
            ticket: Some(1),
        })
    };
    assert_fine(&ticket(dropped(), 150));
    assert_broken(
        &ticket(dropped(), 149),
        &[(Rule::Owners, "had no owner from +0.149000 s")],
    );
    // When a wait uses the ticket, the wait owns the grant until the wait returns.
    let wait = Invoke {
        ticket: Some(1),
        ..invoke(2, Action::Wait)
    };
    let mut waited = ticket(What::Invoke(wait), 140);
    waited.push(at(199, returned(2, Outcome::TimedOut)));
    assert_fine(&waited);
}

#[test]
fn a_renewal_after_an_acknowledged_release_is_found() {
    for renewal in [What::Renewed as fn(Entry) -> What, What::RenewalRefused] {
        let renewed = |ms: u64, outcome: Outcome| {
            vec![
                at(0, What::Acquired(acquired(1))),
                at(10, releases(2, 1)),
                at(20, returned(2, outcome)),
                at(ms, renewal(grant(1))),
            ]
        };
        let found = |lines: &[Line]| judge(lines).violations.iter().any(|found| found.rule == Rule::Renewals);
        assert!(found(&renewed(26, Outcome::Done)));
        assert!(
            !found(&renewed(25, Outcome::Done)),
            "the renewal may have been on its way"
        );
        assert!(!found(&renewed(26, Outcome::Failed)), "no server acknowledged that");
    }
}

/// The record has no lines of servers. Operation 1 returns a ticket, and operation 2 waits with it. The grant of the
/// ticket may be older than the wait.
#[test]
fn fences_that_clients_show_grow_from_request_to_request() {
    let shows = |n: u64, fence: u64| {
        What::Acquired(Acquired {
            kind: Kind::Semaphore,
            limit: 2,
            fence: Some(fence),
            ..acquired(n)
        })
    };
    let of_slot = |invoke: Invoke| {
        What::Invoke(Invoke {
            kind: Some(Kind::Semaphore),
            limit: Some(2),
            ..invoke
        })
    };
    let wait = Invoke {
        ticket: Some(1),
        ..invoke(2, Action::Wait)
    };
    let fences = |enqueued: u64, of_ticket: u64| {
        vec![
            at(enqueued, of_slot(invoke(1, Action::Enqueue))),
            at(enqueued, returned(1, Outcome::Queued)),
            at(2, of_slot(invoke(3, Action::Acquire))),
            at(3, shows(3, 6)),
            at(3, returned(3, Outcome::Granted)),
            at(6, of_slot(wait.clone())),
            at(7, shows(2, of_ticket)),
            at(7, returned(2, Outcome::Granted)),
        ]
    };
    assert_fine(&fences(0, 5));
    assert_fine(&fences(4, 7));
    let both = "shows fence 5, but an earlier holder showed 6 before this holder was requested";
    assert_broken(&fences(4, 5), &[(Rule::Fences, both)]);
    assert_broken(
        &fences(4, 6),
        &[(Rule::Fences, "shows fence 6, but an earlier holder showed 6")],
    );
}
