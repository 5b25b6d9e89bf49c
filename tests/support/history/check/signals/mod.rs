//! Each signal is delivered once and in order, or a gap is reported. No signal is delivered that was not emitted.
//!
//! Once: a subscription receives a signal once for all its patterns without a group, and once more for each of its
//! groups. A group receives a signal once, through one of its members. The rule checks this only for groups whose
//! members have no other pattern.
//!
//! In order: this applies to the signals of one caller on one channel. If a signal was acknowledged before the next
//! signal was emitted, it arrives before the next signal. No order is promised between channels, because they may be at
//! different servers.
//!
//! Missing: a subscription must receive a signal if three conditions hold:
//! - A server acknowledged the signal.
//! - The subscription had a matching pattern before the emit.
//! - The subscription lived for `delivery` after the acknowledgement, counted in running time of its process.
//!
//! If such a signal is missing, a gap must cover it. A gap covers the signal in two cases:
//! - The gap was open at the emit.
//! - The gap was reported after the emit, after the previous signal and before the next signal. The previous and the
//!   next signal are received signals of the same caller and channel. If no next signal was received, the report must
//!   come within `delivery` of the acknowledgement. Trouble allows a later report.
//!
//! Missing from a group: no member received the signal, but at least one member had to. The rule checks this only for
//! groups whose members have no other pattern. The server may have sent the signal to any subscription that was a
//! member at some moment between the emit and the acknowledgement. So a gap of any such member covers the signal. If
//! such a member ended before the acknowledgement, the signal may be lost with the member. The same holds if the member
//! ended less than `transit` after the acknowledgement, counted in running time of its process.
//!
//! A half-open connection (see [`HalfOpenBegun`](super::super::record::What::HalfOpenBegun)) stays a member until its
//! server notices the end. Until then, it gets its share of the signals, and no client can report that they are
//! missing. So a signal to a group may be missing without a gap if the group had a half-open connection between the
//! emit and the acknowledgement. This does not excuse a signal that a subscription outside the group had to receive.
//!
//! Assumes: each payload is emitted only once on a channel. The operations of a caller do not overlap. The test reads
//! all signals of a subscription before it ends the subscription.

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
    /// By channel. Each list has the order of the `invoke` lines.
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
