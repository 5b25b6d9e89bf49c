//! Losses are reported in time, and are final.
//!
//! Final: after a caller learnt that its holder is lost, or after `is_held` returned false, `is_held` never returns
//! true again.
//!
//! In time: this applies to a holder whose caller waits for the loss (`watched`). The deadline depends on how the
//! grant ends:
//! - If the lease expires at the server, the caller must learn of the loss before the lease expires.
//! - If the grant ends neither by expiry nor by a release, the caller must learn of the loss at once.
//! - If a fault may have hidden this end of the grant, the caller must learn of the loss within `unnoticed`, and before
//!   the lease would have expired.
//!
//! In all cases, the caller may learn of the loss up to `scheduling` later, counted in running time of its process. A
//! holder that the caller has dropped or begun to release by then is exempt. A holder is also exempt if its process has
//! ended by then.

use super::super::facts::Facts;
use super::super::facts::grants::{Ending, Grant};
use super::super::facts::holders::Holder;
use super::super::verdict::Rule;
use super::{Findings, about_key, named, time};

pub fn check(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    for holder in &facts.holders.all {
        findings.counts.losses += usize::from(holder.lost.is_some());
        for_good(findings, holder);
        if holder.watched {
            in_time(findings, holder);
        }
    }
}

fn for_good(findings: &mut Findings<'_>, holder: &Holder) {
    let lost = holder.lost.map(|(_, at)| (at, "its caller was told that it is lost"));
    let doubted = holder.doubted.map(|at| (at, "is_held was false"));
    let Some((over, why)) = lost.into_iter().chain(doubted).min() else {
        return;
    };
    let again = holder.believed.iter().find(|(_, at)| *at > over);
    if let Some((line, _)) = again {
        let what = format!("{} was believed in again: at {} {why}", named(holder), time(over));
        findings.violation(Rule::Losses, *line, about_key(holder), what);
    }
}

fn in_time(findings: &mut Findings<'_>, holder: &Holder) {
    let facts = findings.facts;
    let Some(grant) = facts.grants.of(holder.token) else {
        return;
    };
    let Some(due) = due(findings, holder, grant) else {
        return;
    };
    let told = holder.given_up().unwrap_or_else(|| last_moment(facts, holder));
    if facts.processes.ran(&holder.process, due, told) <= findings.bounds.scheduling {
        return;
    }
    let line = match holder.lost {
        Some((line, _)) => line,
        None => grant.end.map_or(holder.line, |end| end.line),
    };
    let what = format!(
        "the loss of {} had to be reported by {}, and was reported {}",
        named(holder),
        time(due),
        match holder.lost {
            Some((_, at)) => format!("at {}", time(at)),
            None => "never".to_owned(),
        }
    );
    findings.violation(Rule::Losses, line, about_key(holder), what);
}

/// Returns when the client must report the end of a grant. `None` if there is nothing to report.
fn due(findings: &Findings<'_>, holder: &Holder, grant: &Grant) -> Option<u64> {
    let end = grant.end?;
    match end.why {
        Ending::Released => None,
        Ending::Expired => Some(end.at),
        Ending::Disconnected | Ending::Forgotten | Ending::ServerEnded => {
            let unnoticed = match findings.is_hidden(&holder.process, grant) {
                true => findings.bounds.unnoticed,
                false => 0,
            };
            let noticed = end.at.saturating_add(unnoticed);
            Some(
                grant
                    .lease_end
                    .map_or(noticed, |lease_end| noticed.min(lease_end.max(end.at))),
            )
        }
    }
}

fn last_moment(facts: &Facts<'_>, holder: &Holder) -> u64 {
    facts.processes.last_moment(&holder.process, facts.end)
}
