//! Signals: each is delivered once, in order, every missing one is covered by a gap that was told, and none is made up.
//!
//! Once: to each subscription, for all its patterns without a group together, and once more for each of its groups. A group whose members have no
//! other pattern gets it once in all.
//!
//! In order: of the signals that one caller emitted to one channel, one that was acknowledged before the next was emitted comes before that. Between
//! channels no order is promised, since they may be at different servers.
//!
//! Missing: a signal that was acknowledged has to be heard by each subscription that had a matching pattern before it was emitted and lived for `delivery`
//! after the acknowledgement. Else a gap has to be told between its neighbours (those of the same caller and channel that were heard before and after
//! it), not over when it was emitted; without a later neighbour, within `delivery` of the acknowledgement. While something is broken the subscription may
//! take `silence` more to learn of it.
//!
//! Missing from a group: only who was a member at some moment of the emit may have lost it, so only that one's gaps cover it. What was on its way to a
//! member that ended, for `transit` behind the acknowledgement, is lost with that. And a connection that its client has no more, since it was cut in
//! silence or the client has closed it, is a member for its server until that has noticed, and is given its share, which no client can tell. So
//! what was under way to a group while its server had such a member may be missing without a gap. Nothing else may: neither what was
//! emitted when the server had ended that connection, nor what a subscription without a group, or of another group, had to hear.
//!
//! Assumes: each payload is emitted to a channel once, a caller's operations do not overlap, and a subscription is read to the end before
//! it is ended.

mod gaps;
mod heard;
mod missing;
mod pattern;
mod stream;

use std::collections::HashMap;

use self::heard::Heard;
use super::super::facts::operations::Operation;
use super::super::facts::signals::Subscription;
use super::super::record::{Action, Name};
use super::super::shortened::Subject;
use super::super::verdict::Rule;
use super::Findings;

/// A channel and a payload.
type Signal<'a> = (&'a Name, &'a Name);

/// All that was emitted.
#[derive(Default)]
struct Emitted<'a> {
    of: HashMap<Signal<'a>, &'a Operation>,
    /// In the order of their invocations.
    of_channels: HashMap<&'a Name, Vec<&'a Operation>>,
}

pub fn check(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    let mut emitted = Emitted::default();
    for operation in facts
        .operations
        .all
        .iter()
        .filter(|operation| operation.action == Action::Emit)
    {
        let (Some(channel), Some(payload)) = (&operation.channel, &operation.payload) else {
            continue;
        };
        findings.counts.signals += 1;
        emitted.of_channels.entry(channel).or_default().push(operation);
        if emitted.of.insert((channel, payload), operation).is_some() {
            let what = format!(
                "{payload:?} is emitted to {channel:?} for the second time, so its deliveries cannot be told apart"
            );
            findings.violation(Rule::Signals, operation.line, Subject::Channel(channel.clone()), what);
        }
    }
    let all: Vec<(&Subscription, Heard<'_>)> = facts
        .signals
        .subscriptions
        .iter()
        .map(|subscription| (subscription, heard::check(findings, &emitted, subscription)))
        .collect();
    missing::check(findings, &emitted, &all);
}
