//! No client renews a token after the release of this token was acknowledged. A renewal that the server refuses counts
//! too (`renewal_refused`).
//!
//! Allows: a renewal that arrives at most `transit` after the acknowledgement, because it may have been sent before.

use std::collections::HashMap;

use super::super::facts::holders::Holder;
use super::super::record::{Token, What};
use super::super::verdict::Rule;
use super::{Findings, about_key, named, time};

pub fn check(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    let mut released: HashMap<Token, (u64, &Holder)> = HashMap::new();
    for holder in &facts.holders.all {
        if let Some(at) = holder.released {
            released.insert(holder.token, (at, holder));
        }
    }
    findings.counts.releases = released.len();
    for (number, line) in facts.lines.iter().enumerate() {
        let (What::Renewed(entry) | What::RenewalRefused(entry)) = &line.what else {
            continue;
        };
        let released = entry.token.and_then(|token| released.get(&token));
        let Some((at, holder)) = released.filter(|(at, _)| line.at > at.saturating_add(findings.bounds.transit)) else {
            continue;
        };
        let what = format!(
            "a renewal of {} arrived after its release had been acknowledged at {}",
            named(holder),
            time(*at)
        );
        findings.violation(Rule::Renewals, number, about_key(holder), what);
    }
}
