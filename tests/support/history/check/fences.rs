//! Fences grow: each grant of a key has a greater fence than all earlier grants of the key at the same server. Servers
//! that were started one after the other at one address count as one server here, and so does a cluster. If a client
//! shows a fence, its server issued that fence for the grant.
//!
//! Allows: a holder without a fence, although its server issued one. With `Fencing::Off`, no holder shows a fence. With
//! `Fencing::IfKnown`, the first grant over a connection may have none, because the client does not yet know whether
//! the server issues fences. The record does not contain the client's `Fencing`, so the rule cannot know whether a
//! holder had to show a fence.
//!
//! The rule does not compare fences of servers at different addresses, because a standby issues its own fences.
//!
//! If the record has no lines of servers, the rule compares the fences that clients show. It compares two holders of a
//! key only if the first was acquired before the second was requested. For a ticket, the request is the `enqueue`. In a
//! record without lines of servers, the rule assumes one server for each key.

use std::collections::HashMap;

use super::super::facts::holders::Holder;
use super::super::record::{Kind, Name};
use super::super::verdict::Rule;
use super::{Findings, about_grant, about_key, named};

pub fn check(findings: &mut Findings<'_>) {
    match findings.facts.servers_recorded {
        true => {
            granted(findings);
            shown(findings);
        }
        false => seen(findings),
    }
}

/// Checks the fences in the lines of servers.
fn granted(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    let mut last: HashMap<(&Name, Kind, &Name), u64> = HashMap::new();
    for grant in &facts.grants.all {
        let Some(fence) = grant.fence else { continue };
        let subject = (facts.first_of(&grant.server), grant.kind, &grant.key);
        let before = last.insert(subject, fence);
        findings.counts.fences += usize::from(before.is_some());
        if let Some(before) = before.filter(|before| *before >= fence) {
            let what = format!("grant {} has fence {fence}, the one before has {before}", grant.token);
            findings.violation(Rule::Fences, grant.line, about_grant(grant), what);
        }
    }
}

/// Checks that the fences that clients showed are those that servers issued.
fn shown(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    for holder in &facts.holders.all {
        let (Some(fence), Some(grant)) = (holder.fence, facts.grants.of(holder.token)) else {
            continue;
        };
        if grant.fence != Some(fence) {
            let what = format!(
                "{} shows fence {fence}, but its server issued {:?}",
                named(holder),
                grant.fence
            );
            findings.violation(Rule::Fences, holder.line, about_key(holder), what);
        }
    }
}

/// The time of the request, the time of the acquire, the fence that the client shows, and the holder.
type Shown<'a> = (u64, u64, u64, &'a Holder);

/// Checks the fences that clients showed, in a record without lines of servers.
fn seen(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    let mut of_keys: HashMap<(Kind, &Name), Vec<Shown<'_>>> = HashMap::new();
    for holder in &facts.holders.all {
        let Some(fence) = holder.fence else { continue };
        let of_key = of_keys.entry((holder.kind, &holder.key)).or_default();
        of_key.push((facts.requested_at(holder), holder.at, fence, holder));
    }
    for of_key in of_keys.values_mut() {
        of_key.sort_unstable_by_key(|(requested, ..)| *requested);
        let mut had: Vec<(u64, u64)> = of_key.iter().map(|(_, at, fence, _)| (*at, *fence)).collect();
        had.sort_unstable();
        // The greatest fence of the holders that were acquired before the request of the current holder, and the number
        // of these holders.
        let (mut greatest, mut next) = (None, 0);
        for (requested, _, fence, holder) in of_key.iter() {
            while let Some((_, before)) = had.get(next).filter(|(at, _)| at < requested) {
                greatest = greatest.max(Some(*before));
                next += 1;
            }
            let Some(before) = greatest else { continue };
            findings.counts.fences += 1;
            if before >= *fence {
                let what = format!(
                    "{} shows fence {fence}, but an earlier holder showed {before} before this holder was requested",
                    named(holder)
                );
                findings.violation(Rule::Fences, holder.line, about_key(holder), what);
            }
        }
    }
}
