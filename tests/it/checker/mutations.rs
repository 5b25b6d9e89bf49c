//! Tests that the judge accepts the histories of the model, and that it finds the error that each mutation adds.
// Some mutations need only a slice, but all mutations must have the same type.
#![allow(clippy::ptr_arg)]

use std::collections::HashSet;

use fastrand::Rng;

use super::hand::{MS, token};
use super::model::{BOUNDS, history};
use crate::support::history::History;
use crate::support::history::record::{Action, Entry, Kind, Line, Outcome, Received, Token, Use, What};
use crate::support::history::verdict::{Rule, Verdict};

const SEEDS: u64 = 60;

fn judge(lines: Vec<Line>) -> Verdict {
    History::default().with(lines).judge(&BOUNDS)
}

/// Adds an error to a history. Returns `None` if the history lacks the lines that the mutation needs.
type Mutation = fn(&mut Vec<Line>, &mut Rng) -> Option<()>;

const MUTATIONS: &[(&str, Rule, Mutation)] = &[
    ("a release is dropped", Rule::Servers, drop_release),
    ("two grants are swapped", Rule::QueueOrder, swap_grants),
    ("a newcomer overtakes", Rule::QueueOrder, overtake),
    ("a place is left twice", Rule::QueueOrder, leave_twice),
    ("a token is granted again", Rule::Servers, grant_again),
    ("a fence falls back", Rule::Fences, lower_fence),
    ("a client shows another fence", Rule::Fences, show_another_fence),
    ("a belief is extended into the next", Rule::Believers, extend_belief),
    ("a belief outlives its grant", Rule::BeliefInGrant, outlive_grant),
    ("a token is made up", Rule::BeliefInGrant, make_up_token),
    ("a lost lease is used again", Rule::Losses, use_after_loss),
    ("a loss is not reported to its caller", Rule::Losses, remove_loss_report),
    ("an operation never returns", Rule::Deadlines, never_return),
    ("an operation returns late", Rule::Deadlines, return_late),
    ("a grant has no owner", Rule::Owners, remove_owner),
    ("a renewal follows a release", Rule::Renewals, renew_after_release),
    ("a signal is doubled", Rule::Signals, double_signal),
    ("two signals are swapped", Rule::Signals, swap_signals),
    ("a signal is lost", Rule::Signals, lose_signal),
    ("a signal is made up", Rule::Signals, make_up_signal),
];

#[test]
fn histories_that_are_right_pass_and_each_mutation_of_them_is_found() {
    let mut applied = vec![0; MUTATIONS.len()];
    for seed in 0..SEEDS {
        let right = history(seed);
        let verdict = judge(right.clone());
        assert!(verdict.is_valid(), "seed {seed}: {verdict}");
        for (number, (name, rule, spoil)) in MUTATIONS.iter().enumerate() {
            let mut lines = right.clone();
            let mut rng = Rng::with_seed(seed);
            if spoil(&mut lines, &mut rng).is_none() {
                continue;
            }
            applied[number] += 1;
            let verdict = judge(lines);
            let found = verdict.violations.iter().any(|violation| violation.rule == *rule);
            assert!(found, "seed {seed}, {name}: {verdict}");
        }
    }
    for ((name, ..), applied) in MUTATIONS.iter().zip(applied) {
        assert!(applied > 10, "{name} was tried {applied} times");
    }
}

#[test]
fn the_histories_of_the_model_cover_every_rule() {
    let counts: Vec<_> = (0..20).map(|seed| judge(history(seed)).assert()).collect();
    let sum = |count: fn(&crate::support::history::verdict::Counts) -> usize| counts.iter().map(count).sum::<usize>();
    for (what, count) in [
        ("grants", sum(|counts| counts.grants)),
        ("from queues", sum(|counts| counts.from_queues)),
        ("beliefs", sum(|counts| counts.beliefs)),
        ("stale", sum(|counts| counts.stale)),
        ("losses", sum(|counts| counts.losses)),
        ("deadlines", sum(|counts| counts.deadlines)),
        ("fences", sum(|counts| counts.fences)),
        ("owned", sum(|counts| counts.owned)),
        ("releases", sum(|counts| counts.releases)),
        ("received", sum(|counts| counts.received)),
        ("in gaps", sum(|counts| counts.in_gaps)),
    ] {
        assert!(count > 10, "{what}: {count}");
    }
}

/// The order of lines matters only between lines of the same server.
#[test]
fn lines_may_come_from_several_files() {
    for seed in 0..20 {
        let (servers, clients): (Vec<Line>, Vec<Line>) =
            history(seed).into_iter().partition(|line| line.what.server().is_some());
        let mut shuffled = clients;
        Rng::with_seed(seed).shuffle(&mut shuffled);
        let apart = History::default().with(shuffled).with(servers);
        assert_eq!(apart.judge(&BOUNDS).assert(), judge(history(seed)).assert());
    }
}

/// Returns the index of a random line that `is` accepts.
fn any(lines: &[Line], rng: &mut Rng, is: impl Fn(&What) -> bool) -> Option<usize> {
    let all: Vec<usize> = (0..lines.len()).filter(|line| is(&lines[*line].what)).collect();
    rng.choice(all)
}

fn lock(what: &What) -> Option<&Entry> {
    what.entry().filter(|entry| entry.kind == Kind::Lock)
}

fn next(lines: &[Line], from: usize, is: impl Fn(&What) -> bool) -> Option<usize> {
    (from + 1..lines.len()).find(|line| is(&lines[*line].what))
}

fn is_grant(what: &What) -> bool {
    matches!(what, What::Granted(_))
}

fn drop_release(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let released = any(lines, rng, |what| {
        matches!(what, What::Released(_)) && lock(what).is_some()
    })?;
    next(lines, released, |what| is_grant(what) && lock(what).is_some())?;
    lines.remove(released);
    Some(())
}

fn swap_grants(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let from_queue = |what: &What| is_grant(what) && lock(what).is_some_and(|entry| entry.place.is_some());
    let first = any(lines, rng, from_queue)?;
    let second = next(lines, first, from_queue)?;
    let place = |line: usize, lines: &[Line]| lock(&lines[line].what).and_then(|entry| entry.place);
    let (one, other) = (place(first, lines), place(second, lines));
    // The swap breaks the queue order only if the later queue position was in the queue before the first grant.
    let queued = (0..first).any(|line| matches!(&lines[line].what, What::Queued(entry) if entry.place == other));
    if !queued {
        return None;
    }
    entry_mut(&mut lines[first].what)?.place = other;
    entry_mut(&mut lines[second].what)?.place = one;
    Some(())
}

fn overtake(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let granted = any(lines, rng, |what| {
        is_grant(what) && what.entry().is_some_and(|entry| entry.place.is_some())
    })?;
    entry_mut(&mut lines[granted].what)?.place = None;
    Some(())
}

fn leave_twice(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let left = any(lines, rng, |what| matches!(what, What::Left(_)))?;
    lines.insert(left, lines[left].clone());
    Some(())
}

fn grant_again(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let first = any(lines, rng, is_grant)?;
    let second = next(lines, first, is_grant)?;
    let token = lines[first].what.entry()?.token;
    entry_mut(&mut lines[second].what)?.token = token;
    Some(())
}

fn lower_fence(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let is_lock = |what: &What| is_grant(what) && lock(what).is_some();
    let first = any(lines, rng, is_lock)?;
    let second = next(lines, first, is_lock)?;
    let fence = lines[first].what.entry()?.fence;
    entry_mut(&mut lines[second].what)?.fence = fence;
    Some(())
}

fn show_another_fence(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let acquired = any(lines, rng, |what| matches!(what, What::Acquired(_)))?;
    if let What::Acquired(acquired) = &mut lines[acquired].what {
        acquired.fence = acquired.fence.map(|fence| fence + 1);
    }
    Some(())
}

/// Picks a random holder that later releases its lock. Returns the index of the holder's `Acquired` line, and the
/// token.
fn released_holder(lines: &[Line], rng: &mut Rng) -> Option<(usize, Token)> {
    let released: HashSet<Token> = lines
        .iter()
        .filter(|line| matches!(line.what, What::Released(_)))
        .filter_map(|line| lock(&line.what)?.token)
        .collect();
    let acquired = any(
        lines,
        rng,
        |what| matches!(what, What::Acquired(acquired) if released.contains(&acquired.token)),
    )?;
    let What::Acquired(holder) = &lines[acquired].what else {
        return None;
    };
    Some((acquired, holder.token))
}

/// Adds a line in which the holder of the line `acquired` uses its lease at the time `at`.
fn use_at(lines: &mut Vec<Line>, acquired: usize, at: u64) {
    let What::Acquired(holder) = &lines[acquired].what else {
        return;
    };
    let what = What::Use(Use {
        process: holder.process.clone(),
        holder: holder.holder,
        held: true,
    });
    lines.push(Line { at, what });
}

fn extend_belief(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let (acquired, _) = released_holder(lines, rng)?;
    // The next holder of the lock.
    let following = next(
        lines,
        acquired,
        |what| matches!(what, What::Acquired(next) if next.kind == Kind::Lock),
    )?;
    let What::Acquired(other) = &lines[following].what else {
        return None;
    };
    let (process, holder) = (other.process.clone(), other.holder);
    let used = next(
        lines,
        following,
        |what| matches!(what, What::Use(belief) if belief.held && belief.process == process && belief.holder == holder),
    )?;
    use_at(lines, acquired, lines[used].at);
    Some(())
}

fn outlive_grant(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let (acquired, token) = released_holder(lines, rng)?;
    let released = next(
        lines,
        acquired,
        |what| matches!(what, What::Released(entry) if entry.token == Some(token)),
    )?;
    use_at(lines, acquired, lines[released].at + 1);
    Some(())
}

fn make_up_token(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let used = any(lines, rng, |what| matches!(what, What::Use(belief) if belief.held))?;
    let What::Use(belief) = lines[used].what.clone() else {
        return None;
    };
    for line in lines {
        if let What::Acquired(acquired) = &mut line.what {
            if acquired.process == belief.process && acquired.holder == belief.holder {
                acquired.token = token(1 << 60);
            }
        }
    }
    Some(())
}

fn use_after_loss(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let lost = any(lines, rng, |what| matches!(what, What::Lost(_)))?;
    let (at, What::Lost(of)) = (lines[lost].at, lines[lost].what.clone()) else {
        return None;
    };
    let what = What::Use(Use {
        process: of.process,
        holder: of.holder,
        held: true,
    });
    lines.push(Line { at: at + 1, what });
    Some(())
}

/// Removes the lines in which a caller learns of a loss and drops its guard.
fn remove_loss_report(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let lost = any(lines, rng, |what| matches!(what, What::Lost(_)))?;
    let What::Lost(of) = lines[lost].what.clone() else {
        return None;
    };
    lines.retain(|line| match &line.what {
        What::Lost(lost) => (&lost.process, lost.holder) != (&of.process, of.holder),
        What::LetGo(let_go) => (&let_go.process, let_go.holder) != (&of.process, Some(of.holder)),
        _ => true,
    });
    Some(())
}

fn never_return(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let returned = any(
        lines,
        rng,
        |what| matches!(what, What::Return(end) if end.outcome == Outcome::TimedOut),
    )?;
    lines.remove(returned);
    Some(())
}

fn return_late(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let returned = any(
        lines,
        rng,
        |what| matches!(what, What::Return(end) if end.outcome == Outcome::TimedOut),
    )?;
    lines[returned].at += 3 * MS;
    Some(())
}

/// Picks a grant that a caller owned for at least 6 ms, and removes the caller's lines about it.
fn remove_owner(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    (0..20).find_map(|_| remove_one_owner(lines, rng))
}

fn remove_one_owner(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let (acquired, token) = released_holder(lines, rng)?;
    let released = next(
        lines,
        acquired,
        |what| matches!(what, What::Released(entry) if entry.token == Some(token)),
    )?;
    if lines[released].at < lines[acquired].at + 6 * MS {
        return None;
    }
    let (from, to) = (lines[acquired].at, lines[released].at);
    // Trouble excuses a grant without an owner.
    let troubled = |line: &Line| matches!(line.what, What::TroubleBegun(_)) && line.at + 100 * MS > from;
    if lines.iter().any(troubled) {
        return None;
    }
    // A caller whose acquire was under way in this time, and timed out or was cancelled, might have owned the grant.
    let in_vain = lines.iter().any(|line| {
        let What::Return(end) = &line.what else { return false };
        let began = lines
            .iter()
            .find(|line| matches!(&line.what, What::Invoke(invoke) if invoke.op == end.op));
        let is_in_vain = matches!(end.outcome, Outcome::TimedOut | Outcome::Cancelled);
        is_in_vain && line.at > from && began.is_some_and(|began| began.at < to)
    });
    if in_vain {
        return None;
    }
    let What::Acquired(holder) = lines[acquired].what.clone() else {
        return None;
    };
    lines.retain(|line| match &line.what {
        What::Acquired(other) => other.token != token,
        What::Use(belief) => (&belief.process, belief.holder) != (&holder.process, holder.holder),
        What::LetGo(let_go) => (&let_go.process, let_go.holder) != (&holder.process, Some(holder.holder)),
        What::Invoke(invoke) => {
            invoke.op != holder.op && (&invoke.process, invoke.holder) != (&holder.process, Some(holder.holder))
        }
        What::Return(end) => end.op != holder.op,
        _ => true,
    });
    Some(())
}

fn renew_after_release(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let invoked = any(
        lines,
        rng,
        |what| matches!(what, What::Invoke(invoke) if invoke.action == Action::Release),
    )?;
    let What::Invoke(release) = lines[invoked].what.clone() else {
        return None;
    };
    let returned = next(
        lines,
        invoked,
        |what| matches!(what, What::Return(end) if end.op == release.op && end.outcome == Outcome::Done),
    )?;
    let at = lines[returned].at;
    let of = lines.iter().find_map(|line| match &line.what {
        What::Acquired(acquired) if Some(acquired.holder) == release.holder => Some(acquired.token),
        _ => None,
    })?;
    let granted = lines
        .iter()
        .position(|line| is_grant(&line.what) && line.what.entry().is_some_and(|entry| entry.token == Some(of)))?;
    let entry = lines[granted].what.entry()?.clone();
    let what = What::RenewalRefused(entry);
    lines.insert(returned + 1, Line { at: at + 1, what });
    Some(())
}

fn is_received(what: &What) -> bool {
    matches!(what, What::Received(_))
}

fn double_signal(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let received = any(lines, rng, is_received)?;
    lines.insert(received, lines[received].clone());
    Some(())
}

fn received_mut(what: &mut What) -> Option<&mut Received> {
    match what {
        What::Received(received) => Some(received),
        _ => None,
    }
}

fn swap_signals(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let first = any(lines, rng, is_received)?;
    let second = next(lines, first, is_received)?;
    let (one, other) = (lines[first].what.clone(), lines[second].what.clone());
    (lines[first].what, lines[second].what) = (other, one);
    Some(())
}

/// Picks three signals that were received without a gap between them, and removes the second signal.
fn lose_signal(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let is_heard = |what: &What| is_received(what) || matches!(what, What::Gap(_));
    let first = any(lines, rng, is_received)?;
    let second = next(lines, first, is_heard)?;
    let third = next(lines, second, is_heard)?;
    if !is_received(&lines[second].what) || !is_received(&lines[third].what) {
        return None;
    }
    lines.remove(second);
    Some(())
}

fn make_up_signal(lines: &mut Vec<Line>, rng: &mut Rng) -> Option<()> {
    let received = any(lines, rng, is_received)?;
    received_mut(&mut lines[received].what)?.payload = "made up".into();
    Some(())
}

fn entry_mut(what: &mut What) -> Option<&mut Entry> {
    match what {
        What::Granted(entry) => Some(entry),
        _ => None,
    }
}
