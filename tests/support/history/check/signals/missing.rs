//! Finds the signals that subscriptions had to receive and did not receive.

use std::collections::HashMap;

use super::super::super::bounds::Bounds;
use super::super::super::facts::Facts;
use super::super::super::facts::operations::Operation;
use super::super::super::facts::signals::Subscription;
use super::super::super::record::{Name, Outcome};
use super::super::super::shortened::Subject;
use super::super::super::verdict::Rule;
use super::super::Findings;
use super::Emitted;
use super::heard::Heard;
use super::pattern::matches;

/// A pattern, and the name of a group of subscribers to that pattern.
type Group<'a> = (&'a Name, &'a Name);

/// A subscription, and the signals that it received.
type Listener<'a> = (&'a Subscription, Heard<'a>);

pub fn check<'a>(findings: &mut Findings<'a>, emitted: &Emitted<'a>, all: &[Listener<'a>]) {
    let mut groups: HashMap<Group<'_>, Vec<&Listener<'a>>> = HashMap::new();
    for listener in all {
        let subscription = listener.0;
        for pattern in &subscription.patterns {
            match &pattern.group {
                None => {
                    for emit in due(
                        findings.facts,
                        emitted,
                        findings.bounds.delivery,
                        subscription,
                        &pattern.pattern,
                    ) {
                        alone(findings, listener, emit);
                    }
                }
                Some(group) => groups.entry((&pattern.pattern, group)).or_default().push(listener),
            }
        }
    }
    for (group, members) in groups {
        if members.iter().all(|(member, _)| member.patterns.len() == 1) {
            together(findings, emitted, group, &members);
        }
    }
}

/// Checks one signal that a subscription had to receive through a pattern without a group.
fn alone<'a>(findings: &mut Findings<'a>, listener: &Listener<'a>, emit: &'a Operation) {
    let Some(signal) = emit.channel.as_ref().zip(emit.payload.as_ref()) else {
        return;
    };
    if listener.1.signals.contains_key(&signal) {
        return;
    }
    match is_covered(findings, listener, emit) {
        true => findings.counts.in_gaps += 1,
        false => report_missing(
            findings,
            emit,
            &format!("by a subscription of {:?}", listener.0.process),
        ),
    }
}

/// Checks the signals of a group. One member of the group receives each signal.
fn together<'a>(findings: &mut Findings<'a>, emitted: &Emitted<'a>, group: Group<'_>, members: &[&Listener<'a>]) {
    let (pattern, name) = group;
    let half_open = findings.facts.half_open.of(pattern, name);
    let channels = emitted
        .of_channels
        .iter()
        .filter(|(channel, _)| matches(pattern, channel));
    for emit in channels.flat_map(|(_, emits)| emits) {
        let Some(signal) = emit.channel.as_ref().zip(emit.payload.as_ref()) else {
            continue;
        };
        let times: usize = members.iter().filter_map(|(_, heard)| heard.signals.get(&signal)).sum();
        if times > 1 {
            let what = format!(
                "{:?} on {:?} was delivered {times} times to a group of {pattern:?}",
                signal.1, signal.0
            );
            findings.violation(Rule::Signals, emit.line, Subject::Channel(signal.0.clone()), what);
        }
        let mut had_to = members
            .iter()
            .filter(|(member, _)| must_hear(findings.facts, member, emit, findings.bounds.delivery));
        if times > 0 || had_to.next().is_none() {
            continue;
        }
        let done = emit.returned.map_or(emit.at, |returned| returned.at);
        let mut chosen = members
            .iter()
            .copied()
            .filter(|(member, _)| may_be_chosen(findings.facts, member, emit.at, done));
        let may_leave_with_it =
            |(member, _): &Listener<'_>| ran(findings.facts, member, done) < findings.bounds.transit;
        if chosen.clone().any(|member| is_covered(findings, member, emit)) {
            findings.counts.in_gaps += 1;
        } else if half_open.meet(emit.at, done) {
            findings.counts.half_open += 1;
        } else if !chosen.any(may_leave_with_it) {
            report_missing(findings, emit, &format!("by any member of a group of {pattern:?}"));
        }
    }
}

fn report_missing(findings: &mut Findings<'_>, emit: &Operation, of: &str) {
    let (Some(channel), Some(payload)) = (&emit.channel, &emit.payload) else {
        return;
    };
    let what = format!("{payload:?} on {channel:?} was not received {of}, and no gap was reported");
    findings.violation(Rule::Signals, emit.line, Subject::Channel(channel.clone()), what);
}

/// Returns the signals that match a pattern and that a subscription had to receive.
fn due<'a>(
    facts: &Facts<'_>,
    emitted: &Emitted<'a>,
    delivery: u64,
    subscription: &Subscription,
    pattern: &Name,
) -> Vec<&'a Operation> {
    let channels = emitted
        .of_channels
        .iter()
        .filter(|(channel, _)| matches(pattern, channel));
    let emits = channels.flat_map(|(_, emits)| emits.iter().copied());
    emits
        .filter(|emit| must_hear(facts, subscription, emit, delivery))
        .collect()
}

fn must_hear(facts: &Facts<'_>, subscription: &Subscription, emit: &Operation, delivery: u64) -> bool {
    let Some(channel) = &emit.channel else { return false };
    let mut matching = subscription
        .patterns
        .iter()
        .filter(|own| matches(&own.pattern, channel));
    let Some(done) = emit.returned.filter(|returned| returned.outcome == Outcome::Done) else {
        return false;
    };
    matching.any(|own| own.since <= emit.at) && ran(facts, subscription, done.at) >= delivery
}

/// Returns whether a subscription was a member of its group at some moment between an emit and its acknowledgement. The
/// server may then have sent the signal to this member.
fn may_be_chosen(facts: &Facts<'_>, member: &Subscription, emitted: u64, done: u64) -> bool {
    let has_joined = member.patterns.iter().any(|own| own.since <= done);
    has_joined && end_of(facts, member) >= emitted
}

/// Returns how long the process of a subscription ran between the time `at` and the end of the subscription.
fn ran(facts: &Facts<'_>, subscription: &Subscription, at: u64) -> u64 {
    facts
        .processes
        .ran(&subscription.process, at, end_of(facts, subscription))
}

/// Returns when a subscription, its process, or the record ended, whichever came first.
fn end_of(facts: &Facts<'_>, subscription: &Subscription) -> u64 {
    let last_moment = facts.processes.last_moment(&subscription.process, facts.end);
    subscription.ended.map_or(last_moment, |ended| ended.min(last_moment))
}

/// Returns whether a gap covers the missing signal.
fn is_covered(findings: &Findings<'_>, (subscription, heard): &Listener<'_>, emit: &Operation) -> bool {
    let facts = findings.facts;
    let source = emit
        .channel
        .as_ref()
        .map(|channel| (&emit.process, emit.caller, channel));
    let stream = source.and_then(|source| heard.streams.get(&source));
    let (before, behind) = stream.map_or((None, None), |stream| stream.neighbours(emit.at));
    if heard.gaps.is_open(emit.at) {
        return true;
    }
    let done = emit.returned.map_or(emit.at, |returned| returned.at);
    let Bounds { silence, delivery, .. } = findings.bounds;
    // Trouble may delay the report by `silence`.
    let was_broken = facts
        .troubles
        .all
        .meet(emit.at.saturating_sub(silence), done.saturating_add(delivery));
    if let Some(told) = heard.gaps.told(before, behind, emit.at) {
        // Without a later signal, only the time of the report shows that the gap covers the missing signal.
        let most = delivery.saturating_add(if was_broken { silence } else { 0 });
        return behind.is_some() || facts.processes.ran(&subscription.process, done, told) <= most;
    }
    // A subscription that ended before the delayed report needs no report.
    was_broken && ran(facts, subscription, done) < silence && behind.is_none()
}
