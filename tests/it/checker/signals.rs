//! Tests of the rule for signals: each signal arrives once and in order, each gap is reported, and no subscription
//! receives a signal that was not emitted.

use super::hand::*;
use crate::support::history::record::{Extent, Line, Outcome, Subscribed, What};
use crate::support::history::verdict::Rule;

/// One caller emits the signals `1` to `n` on the channel `a.b` at 10 ms, 20 ms, and so on.
fn emitted(n: u64) -> Vec<Line> {
    let each = |n: u64| {
        [
            at(10 * n, emits(n, "a.b", &n.to_string())),
            at(10 * n + 2, returned(n, Outcome::Done)),
        ]
    };
    let mut lines: Vec<Line> = (1..=n).flat_map(each).collect();
    lines.push(at(1000, What::TroubleBegun(trouble("the end"))));
    lines
}

/// Returns the lines of [`emitted`], a subscription to `pattern` at 5 ms, and the lines `told`.
fn record_of_subscriber(n: u64, pattern: &str, told: &[(u64, What)]) -> Vec<Line> {
    let mut lines = emitted(n);
    lines.push(at(5, subscribed(1, pattern, None)));
    lines.extend(told.iter().map(|(ms, what)| at(*ms, what.clone())));
    lines
}

fn got(ms: u64, n: u64) -> (u64, What) {
    (ms, received(1, "a.b", &n.to_string()))
}

#[test]
fn signals_that_are_heard_once_and_in_order_are_fine() {
    let lines = record_of_subscriber(3, "a.*", &[got(12, 1), got(22, 2), got(32, 3)]);
    let counts = judge(&lines).assert();
    assert_eq!((counts.signals, counts.received, counts.in_gaps), (3, 3, 0));
    assert_fine(&record_of_subscriber(2, "b.>", &[]));
    assert_fine(&record_of_subscriber(2, "a", &[]));
}

#[test]
fn doubled_disordered_invented_and_foreign_signals_are_found() {
    let doubled = record_of_subscriber(2, "a.>", &[got(12, 1), got(13, 1), got(22, 2)]);
    assert_broken(&doubled, &[(Rule::Signals, "was delivered 2 times")]);
    let disordered = record_of_subscriber(2, "a.>", &[got(22, 2), got(23, 1)]);
    assert_broken(
        &disordered,
        &[(Rule::Signals, "arrived after a signal that was emitted only after")],
    );
    let invented = record_of_subscriber(1, "a.>", &[got(12, 1), got(13, 9)]);
    assert_broken(&invented, &[(Rule::Signals, "was never emitted")]);
    let early = record_of_subscriber(2, "a.>", &[got(12, 1), got(13, 2)]);
    assert_broken(&early, &[(Rule::Signals, "was emitted later")]);
    let foreign = record_of_subscriber(1, "b.>", &[got(12, 1)]);
    assert_broken(&foreign, &[(Rule::Signals, "matches no pattern")]);
}

#[test]
fn concurrent_signals_have_no_order() {
    let mut lines = vec![
        at(5, subscribed(1, "a.b", None)),
        at(10, emits(1, "a.b", "1")),
        at(11, emits(2, "a.b", "2")),
        at(13, returned(1, Outcome::Done)),
        at(14, returned(2, Outcome::Done)),
    ];
    lines.extend([got(15, 2), got(16, 1)].map(|(ms, what)| at(ms, what)));
    assert_fine(&lines);
}

#[test]
fn a_missing_signal_is_found_unless_a_gap_was_reported_in_its_place() {
    assert_broken(
        &record_of_subscriber(3, "a.b", &[got(12, 1), got(32, 3)]),
        &[(Rule::Signals, "\"2\" on \"a.b\" was not received")],
    );
    let dropped = (25, gap(1, Extent::Here));
    assert_eq!(
        judge(&record_of_subscriber(
            3,
            "a.b",
            &[got(12, 1), dropped.clone(), got(32, 3)]
        ))
        .assert()
        .in_gaps,
        1
    );
    // A gap at another place does not cover the missing signal 2.
    for told in [
        [(11, gap(1, Extent::Here)), got(12, 1), got(32, 3)],
        [got(12, 1), got(32, 3), (33, gap(1, Extent::Here))],
        [got(12, 1), (15, gap(1, Extent::Here)), got(32, 3)],
    ] {
        assert_broken(
            &record_of_subscriber(3, "a.b", &told),
            &[(Rule::Signals, "no gap was reported")],
        );
    }
    // A gap covers the signals that are emitted while the gap is open.
    let begun = [
        got(12, 1),
        (15, gap(1, Extent::Begins)),
        (26, gap(1, Extent::Ends)),
        got(32, 3),
    ];
    assert_fine(&record_of_subscriber(3, "a.b", &begun));
    let open = [got(12, 1), (15, gap(1, Extent::Begins))];
    assert_fine(&record_of_subscriber(3, "a.b", &open));
    let over = [
        got(12, 1),
        (15, gap(1, Extent::Begins)),
        (16, gap(1, Extent::Ends)),
        got(32, 3),
    ];
    assert_broken(
        &record_of_subscriber(3, "a.b", &over),
        &[(Rule::Signals, "no gap was reported")],
    );
}

/// No signal follows the missing signal. So only the time of a gap shows whether it covers the missing signal.
#[test]
fn a_gap_that_is_reported_much_later_covers_nothing() {
    let told_at = |ms: u64| record_of_subscriber(1, "a.b", &[(ms, gap(1, Extent::Here))]);
    assert_eq!(judge(&told_at(32)).assert().in_gaps, 1);
    assert_broken(&told_at(33), &[(Rule::Signals, "no gap was reported")]);
    let broken = |ms: u64| {
        let mut lines = told_at(ms);
        lines.push(at(8, What::TroubleBegun(trouble("black hole"))));
        lines.push(at(9, What::TroubleEnded(trouble("black hole"))));
        lines
    };
    assert_fine(&broken(182));
    assert_broken(&broken(183), &[(Rule::Signals, "no gap was reported")]);
}

#[test]
fn signals_before_or_at_the_end_of_a_subscription_and_failed_ones_may_be_missing() {
    let ended = |ms: u64| {
        let mut lines = record_of_subscriber(1, "a.b", &[]);
        lines.push(at(ms, unsubscribed(1)));
        lines
    };
    assert_fine(&ended(31));
    assert_broken(&ended(32), &[(Rule::Signals, "was not received")]);
    let mut late = emitted(1);
    late.push(at(11, subscribed(1, "a.b", None)));
    assert_fine(&late);
    let mut failed = record_of_subscriber(1, "a.b", &[]);
    failed[1] = at(12, returned(1, Outcome::Failed));
    assert_fine(&failed);
    let mut killed = record_of_subscriber(1, "a.b", &[]);
    killed.push(at(20, What::ProcessKilled(process("p"))));
    assert_fine(&killed);
}

/// A signal connection has its own heartbeat. So a subscription may notice a silent connection later than other callers
/// do.
#[test]
fn during_trouble_a_subscription_may_report_a_gap_later() {
    let broken = |ends: u64| {
        let mut lines = record_of_subscriber(1, "a.b", &[]);
        lines.push(at(8, What::TroubleBegun(trouble("black hole"))));
        lines.push(at(300, What::TroubleEnded(trouble("black hole"))));
        lines.push(at(ends, unsubscribed(1)));
        lines
    };
    assert_fine(&broken(161));
    assert_broken(&broken(162), &[(Rule::Signals, "no gap was reported")]);
}

#[test]
fn a_subscription_gets_a_signal_once_for_all_its_patterns_and_once_for_each_group() {
    let times = |times: u64, patterns: &[(&str, Option<&str>)]| {
        let mut lines = emitted(1);
        lines.extend(
            patterns
                .iter()
                .map(|(pattern, group)| at(5, subscribed(1, pattern, *group))),
        );
        lines.extend((0..times).map(|n| at(12 + n, received(1, "a.b", "1"))));
        judge(&lines).is_valid()
    };
    let both = [("a.b", None), ("a.*", None)];
    assert!(times(1, &both) && !times(2, &both));
    let grouped = [("a.b", None), ("a.b", Some("g"))];
    assert!(times(2, &grouped) && !times(3, &grouped));
}

#[test]
fn a_group_gets_a_signal_once_in_all() {
    let group = |told: &[(u64, What)]| {
        let mut lines = emitted(2);
        for member in 1..=2 {
            lines.push(at(5, subscribed(member, "a.b", Some("g"))));
        }
        lines.extend(told.iter().map(|(ms, what)| at(*ms, what.clone())));
        lines
    };
    let to = |member: u64, ms: u64, n: u64| (ms, received(member, "a.b", &n.to_string()));
    assert_fine(&group(&[to(1, 12, 1), to(2, 22, 2)]));
    assert_broken(
        &group(&[to(1, 12, 1), to(2, 13, 1), to(2, 22, 2)]),
        &[(Rule::Signals, "was delivered 2 times to a group")],
    );
    assert_broken(
        &group(&[to(1, 12, 1)]),
        &[(Rule::Signals, "was not received by any member of a group")],
    );
    assert_fine(&group(&[to(1, 12, 1), (25, gap(2, Extent::Here))]));
}

/// A caller emits one signal from 10 ms to 12 ms, and a second signal from 20 ms to 22 ms. A group of two members
/// receives only the first signal. `lines` are added to the record.
fn record_with_missed_signal(lines: &[Line]) -> Vec<Line> {
    let mut all = emitted(2);
    for member in 1..=2 {
        all.push(at(5, subscribed(member, "a.b", Some("g"))));
    }
    all.push(at(12, received(1, "a.b", "1")));
    all.extend_from_slice(lines);
    all
}

/// A connection in this group is half open from `from` to `until`, in milliseconds.
fn half_open_connection(from: u64, until: u64, pattern: &str, group: &str) -> [Line; 2] {
    [at(from, half_open(pattern, group)), at(until, half_open_ended())]
}

/// A member of the group `g`. Its subscription has this number.
fn of_group(subscription: u64) -> Subscribed {
    Subscribed {
        process: "p".into(),
        subscription,
        pattern: "a.b".into(),
        group: Some("g".into()),
    }
}

const MISSED_SIGNAL: (Rule, &str) = (
    Rule::Signals,
    "\"2\" on \"a.b\" was not received by any member of a group",
);

#[test]
fn a_group_may_miss_signals_while_one_of_its_connections_is_half_open() {
    for (from, until) in [(8, 60), (20, 22), (22, 60), (8, 20)] {
        let lines = record_with_missed_signal(&half_open_connection(from, until, "a.b", "g"));
        assert_eq!(judge(&lines).assert().half_open, 1, "from {from} to {until} ms");
    }
    // The half-open connection did not lose the first signal, because a member received it.
    assert_eq!(
        judge(&record_with_missed_signal(&half_open_connection(8, 60, "a.b", "g")))
            .assert()
            .received,
        1
    );
}

#[test]
fn a_group_misses_nothing_before_and_after_a_half_open_connection() {
    assert_broken(&record_with_missed_signal(&[]), &[MISSED_SIGNAL]);
    assert_broken(
        &record_with_missed_signal(&half_open_connection(8, 19, "a.b", "g")),
        &[MISSED_SIGNAL],
    );
    assert_broken(
        &record_with_missed_signal(&half_open_connection(23, 60, "a.b", "g")),
        &[MISSED_SIGNAL],
    );
    // A cut that ended before the second signal was emitted is no excuse.
    let mut lines = record_with_missed_signal(&half_open_connection(8, 19, "a.b", "g"));
    lines.push(at(7, What::TroubleBegun(trouble("cut"))));
    lines.push(at(19, What::TroubleEnded(trouble("cut"))));
    assert_broken(&lines, &[MISSED_SIGNAL]);
}

#[test]
fn a_half_open_connection_excuses_its_own_group_only() {
    for (pattern, group) in [("a.b", "h"), ("a.*", "g")] {
        assert_broken(
            &record_with_missed_signal(&half_open_connection(8, 60, pattern, group)),
            &[MISSED_SIGNAL],
        );
    }
    // A subscription without a group has its own connection, so the half-open connection does not excuse it.
    let mut lines = record_of_subscriber(2, "a.b", &[got(12, 1)]);
    lines.extend(half_open_connection(8, 60, "a.b", "g"));
    assert_broken(&lines, &[(Rule::Signals, "was not received by a subscription")]);
}

/// The server chooses a member of the group for each signal. It cannot have chosen a member that joined after the
/// acknowledgement of the signal, even if that member reports a gap.
#[test]
fn a_gap_of_a_later_member_covers_nothing() {
    let with_other = |since: u64, told: &[(u64, What)]| {
        let mut lines = record_with_missed_signal(&[]);
        lines.push(at(since, subscribed(3, "a.b", Some("g"))));
        lines.extend(told.iter().map(|(ms, what)| at(*ms, what.clone())));
        lines
    };
    let joins = |ms: u64| [(ms, gap(3, Extent::Begins)), (ms + 1, gap(3, Extent::Ends))];
    // The signal was acknowledged at 22 ms. The server may have chosen any subscription that joined by then.
    // Subscription 3 begins with a gap, and it may have missed the signal in this gap.
    assert_fine(&with_other(22, &joins(22)));
    assert_broken(&with_other(23, &joins(23)), &[MISSED_SIGNAL]);
    // Trouble excuses only a subscription that was still a member at the emit (20 ms).
    let leaves = |ms: u64| {
        let begun = (6, What::TroubleBegun(trouble("black hole")));
        let ended = (18, What::TroubleEnded(trouble("black hole")));
        [begun, ended, (ms, unsubscribed(3))]
    };
    assert_fine(&with_other(5, &leaves(20)));
    assert_broken(&with_other(5, &leaves(19)), &[MISSED_SIGNAL]);
}

#[test]
fn a_member_that_leaves_may_lose_signals_on_their_way_to_it() {
    let leaves =
        |ms: u64| record_with_missed_signal(&[at(5, subscribed(3, "a.b", Some("g"))), at(ms, unsubscribed(3))]);
    // After its acknowledgement, a signal may be on its way for less than 5 ms (the bound `transit`).
    assert_fine(&leaves(26));
    assert_broken(&leaves(27), &[MISSED_SIGNAL]);
    assert_broken(&leaves(19), &[MISSED_SIGNAL]);
    let killed = |ms: u64| {
        let mut lines = record_with_missed_signal(&[]);
        let other = Subscribed {
            process: "q".into(),
            ..of_group(3)
        };
        lines.push(at(5, What::Subscribed(other)));
        lines.push(at(ms, What::ProcessKilled(process("q"))));
        lines
    };
    assert_fine(&killed(26));
    assert_broken(&killed(27), &[MISSED_SIGNAL]);
    assert_broken(&killed(19), &[MISSED_SIGNAL]);
}

/// No line says when the server closed the half-open connection. The judge then assumes that the server closed it after
/// its read timeout of 12 ms. The signal was emitted at 20 ms.
#[test]
fn a_half_open_connection_lasts_no_longer_than_the_read_timeout() {
    assert_fine(&record_with_missed_signal(&[at(8, half_open("a.b", "g"))]));
    assert_broken(
        &record_with_missed_signal(&[at(7, half_open("a.b", "g"))]),
        &[MISSED_SIGNAL],
    );
}

#[test]
fn a_half_open_connection_begins_once_and_ends_after_it_began() {
    let [begun, ended] = half_open_connection(8, 9, "a.b", "g");
    let other = at(8, half_open("a.*", "g"));
    assert_fine(&[begun.clone(), other, ended.clone()]);
    for lines in [vec![ended.clone()], vec![begun.clone(), begun, ended]] {
        assert_broken(&lines, &[(Rule::Record, "")]);
    }
}

#[test]
fn a_payload_that_is_emitted_twice_cannot_be_judged() {
    let mut lines = emitted(1);
    lines.push(at(40, emits(2, "a.b", "1")));
    assert_broken(&lines, &[(Rule::Signals, "for the second time")]);
}
