//! Checks the signals that one subscription received: each was emitted, and arrived once and in order.

use std::collections::{HashMap, HashSet};

use super::super::super::facts::signals::{Subscription, Told};
use super::super::super::record::{Name, Outcome};
use super::super::super::shortened::Subject;
use super::super::super::verdict::Rule;
use super::super::{Findings, time};
use super::gaps::Gaps;
use super::pattern::matches;
use super::stream::Stream;
use super::{Emitted, Signal};

/// A process, the number of one of its callers, and a channel.
pub type Source<'a> = (&'a Name, u64, &'a Name);

/// The signals and gaps that a subscription received.
#[derive(Default)]
pub struct Heard<'a> {
    /// How often each signal was received.
    pub signals: HashMap<Signal<'a>, usize>,
    pub streams: HashMap<Source<'a>, Stream>,
    pub gaps: Gaps,
}

pub fn check<'a>(findings: &mut Findings<'a>, emitted: &Emitted<'a>, subscription: &'a Subscription) -> Heard<'a> {
    let mut heard = Heard {
        gaps: Gaps::of(subscription),
        ..Heard::default()
    };
    let mut emits: HashMap<Source<'_>, Vec<(u64, usize)>> = HashMap::new();
    // For each source, the time of the latest emit among the signals received so far.
    let mut latest: HashMap<Source<'_>, u64> = HashMap::new();
    let mut wrong: Vec<(usize, &Name, String)> = Vec::new();
    for (number, told) in subscription.heard.iter().enumerate() {
        let Told::Signal { channel, payload } = &told.told else {
            continue;
        };
        findings.counts.received += 1;
        let mut is_wrong =
            |what: String| wrong.push((told.line, channel, format!("{payload:?} on {channel:?} {what}")));
        let times = heard.signals.entry((channel, payload)).or_default();
        *times += 1;
        if *times > 1 && *times > deliveries(subscription, channel) {
            is_wrong(format!("was delivered {times} times"));
        }
        if deliveries(subscription, channel) == 0 {
            is_wrong("matches no pattern of the subscription".to_owned());
        }
        let Some(emit) = emitted.of.get(&(channel, payload)) else {
            is_wrong("was never emitted".to_owned());
            continue;
        };
        if emit.at > told.at {
            is_wrong(format!("was emitted later, at {}", time(emit.at)));
        }
        let source = (&emit.process, emit.caller, channel);
        emits.entry(source).or_default().push((emit.at, number));
        let latest = latest.entry(source).or_default();
        if let Some(returned) = emit.returned.filter(|returned| returned.outcome == Outcome::Done) {
            if returned.at < *latest && *times == 1 {
                is_wrong(
                    "arrived after a signal that was emitted only after the acknowledgement of this one".to_owned(),
                );
            }
        }
        *latest = emit.at.max(*latest);
    }
    let streams = emits.into_iter();
    heard.streams = streams.map(|(source, emits)| (source, Stream::of(emits))).collect();
    for (line, channel, what) in wrong {
        findings.violation(Rule::Signals, line, Subject::Channel(channel.clone()), what);
    }
    heard
}

/// Returns how often a subscription may receive each signal of a channel.
fn deliveries(subscription: &Subscription, channel: &Name) -> usize {
    let matching = subscription
        .patterns
        .iter()
        .filter(|own| matches(&own.pattern, channel));
    let ways: HashSet<_> = matching
        .map(|own| own.group.as_ref().map(|group| (&own.pattern, group)))
        .collect();
    ways.len()
}
