//! Signals are delivered once and in order, a reported gap covers each missing one, and none is made up.
//!
//! Once: to each subscription once for all its patterns without a group, and once more for each of its groups. A group whose members have
//! no other pattern gets a signal once in all.
//!
//! In order: among the signals of one caller on one channel, a signal that was acknowledged before the next one was
//! emitted is delivered before that one. Between channels no order is promised, since they may be at different servers.
//!
//! Missing: an acknowledged signal must reach each subscription that had a matching pattern before the emit and lived for `delivery` after
//! the acknowledgement. Otherwise a gap must be reported between its neighbours (the signals of the same caller and channel that were
//! received before and after it) that was not over at the emit; without a later neighbour, within `delivery` of the acknowledgement.
//! During trouble the subscription may take `silence` more to learn of it.
//!
//! Missing from a group: only a subscription that was a member at some moment of the emit may have lost the signal, so
//! only its gaps cover it. Signals on their way to a member that ended are lost with it, for `transit` after the
//! acknowledgement. A half-open connection (cut in silence, or closed by the client) stays a member for its server until
//! the server notices, and gets its share, which no client can report. So a signal to a group may be missing without a
//! gap while its server has such a member. No other signal may be: neither one that was emitted after the server had
//! ended that connection, nor one that a subscription outside the group had to receive.
//!
//! Assumes: each payload is emitted on a channel once, a caller's operations do not overlap, and a subscription is read to the end before
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

/// All signals that were emitted.
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
