//! Tests of the rules for beliefs. A *belief* is a use of a holder for which `is_held` returned true. A caller is a
//! *believer* from its acquire to its last belief. At most `limit` callers may be believers of one key at a time. A
//! belief must come within the grant, or while the client may be unaware of the end of the grant. It must not come
//! after a loss.

use super::hand::*;
use crate::support::history::record::{Acquired, Entry, Kind, Line, What};
use crate::support::history::verdict::Rule;

fn slot(n: u64) -> Acquired {
    Acquired {
        kind: Kind::Semaphore,
        limit: 2,
        ..acquired(n)
    }
}

/// Holder 1 acquires at 0 ms and uses its lease at the times `first`. Holder 2 acquires at 20 ms and uses its lease at
/// 30 ms.
fn two_holders(first: &[u64]) -> Vec<Line> {
    let mut lines = vec![at(0, What::Acquired(acquired(1)))];
    lines.extend(first.iter().map(|ms| at(*ms, uses(1, true))));
    lines.push(at(20, What::Acquired(acquired(2))));
    lines.push(at(30, uses(2, true)));
    lines
}

#[test]
fn two_believers_in_a_lock_are_found() {
    let said = "believed in until +0.030000 s, together with holder 1 of \"p\"";
    assert_broken(&two_holders(&[5, 25]), &[(Rule::Believers, said)]);
    // A holder believes in its lease from its acquire to its last use. So holder 1 still believes in its lease after
    // holder 2 has acquired.
    assert_broken(&two_holders(&[5, 40]), &[(Rule::Believers, said)]);
    assert_broken(&two_holders(&[21]), &[(Rule::Believers, said)]);
}

#[test]
fn beliefs_that_touch_or_are_not_proved_are_fine() {
    assert_fine(&two_holders(&[5, 20]));
    assert_fine(&two_holders(&[]));
    // Holder 1 does not use its lease after holder 2 has acquired: at 25 ms, holder 1 finds its lease lost.
    let mut lines = two_holders(&[5]);
    lines.push(at(25, uses(1, false)));
    assert_fine(&lines);
    let counts = judge(&lines).assert();
    assert_eq!((counts.holders, counts.beliefs), (2, 2));
}

#[test]
fn the_belief_of_a_frozen_process_is_judged_by_its_uses() {
    let frozen = |used: u64| {
        let mut lines = two_holders(&[5]);
        lines.push(at(6, What::ProcessFrozen(process("p"))));
        lines.push(at(24, What::ProcessThawed(process("p"))));
        lines.push(at(used, uses(1, true)));
        lines
    };
    assert_broken(&frozen(25), &[(Rule::Believers, "together with")]);
}

#[test]
fn a_semaphore_has_as_many_believers_as_its_limit() {
    let mut lines = Vec::new();
    for n in 1..=2 {
        lines.push(at(n, What::Acquired(slot(n))));
        lines.push(at(50, uses(n, true)));
    }
    assert_fine(&lines);
    lines.push(at(10, What::Acquired(slot(3))));
    lines.push(at(11, uses(3, true)));
    assert_broken(&lines, &[(Rule::Believers, "no more than 2 may be")]);
}

/// Grant 1 ends at 100 ms with the line `end`, and its holder uses the lease at `ms`. A cut at server `s` lasts from 10
/// ms to 20 ms.
fn used_after(end: impl Fn(Entry) -> What, ms: u64) -> Vec<Line> {
    vec![
        at(10, What::TroubleBegun(trouble_of("s", "cut"))),
        at(20, What::TroubleEnded(trouble_of("s", "cut"))),
        at(0, What::Granted(until(150, grant(1)))),
        at(1, What::Acquired(acquired(1))),
        at(50, uses(1, true)),
        at(100, end(grant(1))),
        at(ms, uses(1, true)),
    ]
}

#[test]
fn a_belief_needs_a_grant_that_has_not_ended() {
    for end in [What::Released as fn(Entry) -> What, What::Expired] {
        let lines = used_after(end, 101);
        assert_broken(
            &lines,
            &[(Rule::BeliefInGrant, "after its grant had ended at +0.100000 s")],
        );
        assert_fine(&used_after(end, 100));
    }
}

#[test]
fn a_belief_may_outlive_an_unnoticed_end_for_a_bounded_time_within_its_lease() {
    for end in [What::Disconnected as fn(Entry) -> What, What::Forgotten] {
        let lines = used_after(end, 149);
        assert_eq!(judge(&lines).assert().stale, 1);
        assert_broken(
            &used_after(end, 151),
            &[(Rule::BeliefInGrant, "after its grant had ended")],
        );
        let mut long = used_after(end, 201);
        long[2] = at(0, What::Granted(until(500, grant(1))));
        assert_broken(&long, &[(Rule::BeliefInGrant, "after its grant had ended")]);
        // A frozen process cannot notice anything.
        long.push(at(120, What::ProcessFrozen(process("p"))));
        long.push(at(130, What::ProcessThawed(process("p"))));
        assert_fine(&long);
    }
    let killed = used_after(|_| What::ServerEnded(server_id("s")), 120);
    assert_fine(&killed);
}

/// A client that itself closes the connection of its lease must stop believing in the lease.
#[test]
fn a_connection_that_ends_without_a_fault_is_no_excuse() {
    let without_fault = |ms: u64| used_after(What::Disconnected, ms).split_off(2);
    assert_broken(
        &without_fault(111),
        &[(Rule::BeliefInGrant, "after its grant had ended")],
    );
    assert_eq!(judge(&without_fault(110)).assert().stale, 0);
    let next = [
        at(112, What::Granted(grant(2))),
        at(113, What::Acquired(acquired(2))),
        at(125, uses(2, true)),
    ];
    let mut beside = without_fault(120);
    beside.extend(next);
    let both = [
        (Rule::Believers, "together with"),
        (Rule::BeliefInGrant, "after its grant had ended"),
    ];
    assert_broken(&beside, &both);
    // Trouble at another server, or after the end of the grant, is no excuse.
    for (server, from, to) in [("t", 10, 20), ("s", 101, 102)] {
        let mut elsewhere = without_fault(111);
        elsewhere.push(at(from, What::TroubleBegun(trouble_of(server, "cut"))));
        elsewhere.push(at(to, What::TroubleEnded(trouble_of(server, "cut"))));
        assert_broken(&elsewhere, &[(Rule::BeliefInGrant, "after its grant had ended")]);
    }
    let mut frozen = without_fault(120);
    frozen.push(at(30, What::ProcessFrozen(process("p"))));
    frozen.push(at(40, What::ProcessThawed(process("p"))));
    assert_eq!(judge(&frozen).assert().stale, 1);
    let mut killed = without_fault(120);
    killed.push(at(100, What::ServerEnded(server_id("s"))));
    assert_eq!(judge(&killed).assert().stale, 1);
}

/// While a client cannot know that its grant has ended, its belief does not conflict with the belief of the next
/// holder.
#[test]
fn an_excused_belief_does_not_conflict_with_the_next_holder() {
    let next = [
        at(101, What::Granted(grant(2))),
        at(102, What::Acquired(acquired(2))),
        at(125, uses(2, true)),
    ];
    for (end, fine) in [(What::Disconnected as fn(Entry) -> What, true), (What::Expired, false)] {
        let mut lines = used_after(end, 120);
        lines.extend(next.clone());
        assert_eq!(judge(&lines).is_valid(), fine, "{}", judge(&lines));
    }
}

#[test]
fn an_unknown_token_and_the_token_of_another_key_are_found() {
    let unknown = [
        at(
            0,
            What::Granted(at_server(
                "t",
                Entry {
                    key: "other".into(),
                    ..grant(7)
                },
            )),
        ),
        at(1, What::Acquired(acquired(1))),
        at(2, uses(1, true)),
    ];
    assert_broken(&unknown, &[(Rule::BeliefInGrant, "no server granted it")]);
    let other = [
        at(
            0,
            What::Granted(Entry {
                key: "other".into(),
                ..grant(1)
            }),
        ),
        at(1, What::Acquired(acquired(1))),
        at(2, uses(1, true)),
    ];
    assert_broken(
        &other,
        &[(Rule::BeliefInGrant, "has a token that was granted for lock \"other\"")],
    );
    let early = [
        at(2, What::Acquired(acquired(1))),
        at(3, uses(1, true)),
        at(5, What::Granted(grant(1))),
    ];
    assert_broken(&early, &[(Rule::BeliefInGrant, "was used before its grant")]);
}

#[test]
fn a_lost_lease_stays_lost() {
    let again = |line: Line| {
        [
            at(0, What::Acquired(acquired(1))),
            at(5, uses(1, true)),
            line,
            at(11, uses(1, true)),
        ]
    };
    assert_broken(
        &again(at(10, lost(1))),
        &[(Rule::Losses, "its caller was told that it is lost")],
    );
    assert_broken(&again(at(10, uses(1, false))), &[(Rule::Losses, "is_held was false")]);
    assert_fine(&again(at(11, lost(1))));
    assert_fine(&again(at(12, uses(1, false))));
}

/// A caller waits for the loss of its lease, and learns of the loss at `told`. The lease lasts until 400 ms, but the
/// grant ends at 100 ms with the line `end`.
fn watched(end: fn(Entry) -> What, told: Option<u64>) -> Vec<Line> {
    let watched = Acquired {
        watched: true,
        ..acquired(1)
    };
    let mut lines = vec![
        at(0, What::Granted(until(400, grant(1)))),
        at(1, What::Acquired(watched)),
        at(50, What::TroubleBegun(trouble("cut"))),
        at(60, What::TroubleEnded(trouble("cut"))),
        at(100, end(grant(1))),
        at(600, What::TroubleBegun(trouble("the end"))),
    ];
    lines.extend(told.map(|ms| at(ms, lost(1))));
    lines
}

#[test]
fn a_loss_must_reach_its_caller_in_time() {
    for (end, in_time) in [
        (What::Expired as fn(Entry) -> What, 110),
        (What::Disconnected, 210),
        (What::Forgotten, 210),
    ] {
        assert_fine(&watched(end, Some(in_time)));
        assert_broken(
            &watched(end, Some(in_time + 1)),
            &[(Rule::Losses, "and was reported at")],
        );
        assert_broken(&watched(end, None), &[(Rule::Losses, "and was reported never")]);
        let mut dropped = watched(end, None);
        dropped.push(at(in_time, let_go(1)));
        assert_fine(&dropped);
        let mut killed = watched(end, None);
        killed.push(at(in_time, What::ProcessKilled(process("p"))));
        assert_fine(&killed);
        let mut frozen = watched(end, Some(500));
        frozen.push(at(100, What::ProcessFrozen(process("p"))));
        frozen.push(at(499, What::ProcessThawed(process("p"))));
        assert_fine(&frozen);
    }
    assert_fine(&watched(What::Released, None));
    let without_fault = |told: u64| {
        let mut lines = watched(What::Disconnected, Some(told));
        lines.drain(2..4);
        lines
    };
    assert_fine(&without_fault(110));
    assert_broken(&without_fault(111), &[(Rule::Losses, "and was reported at")]);
}
