//! A belief needs a grant: at the time of the belief, a server had granted the holder's token and had not ended the
//! grant.
//!
//! Assumes: if the record has lines of any server, it has the lines of all servers that the clients used. A use at the
//! same time as the beginning or the end of a grant is within the grant.
//!
//! Allows: a belief after the server has ended the grant, while the client may be unaware of the end. The client may be
//! unaware if the connection or the server ended, or if a new leader forgot the grant. The belief may come at most
//! `unnoticed` after the end, counted in running time of the client's process. It must not come after the end of the
//! lease. If a connection ended and no fault can have hidden that, the bound is `scheduling`.

use super::super::verdict::Rule;
use super::{Findings, about_key, named, time};

pub fn check(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    for holder in &facts.holders.all {
        findings.counts.beliefs += holder.believed.len();
        if !facts.servers_recorded {
            continue;
        }
        let Some(grant) = facts.grants.of(holder.token) else {
            if let Some((line, _)) = holder.believed.first() {
                let what = format!("{} was used, and no server granted it", named(holder));
                findings.violation(Rule::BeliefInGrant, *line, about_key(holder), what);
            }
            continue;
        };
        if (grant.kind, &grant.key) != (holder.kind, &holder.key) {
            let what = format!(
                "{} has a token that was granted for {} {:?}",
                named(holder),
                grant.kind,
                grant.key
            );
            findings.violation(Rule::BeliefInGrant, holder.line, about_key(holder), what);
            continue;
        }
        let early = holder.believed.iter().find(|(_, at)| *at < grant.at);
        if let Some((line, _)) = early {
            let what = format!("{} was used before its grant at {}", named(holder), time(grant.at));
            findings.violation(Rule::BeliefInGrant, *line, about_key(holder), what);
        }
        let Some(end) = grant.end else { continue };
        let mut is_stale = false;
        for (line, at) in holder.believed.iter().filter(|(_, at)| *at > end.at) {
            if findings.may_be_believed_at(holder, grant, *at) {
                is_stale = findings.is_hidden(&holder.process, grant);
                continue;
            }
            let what = format!(
                "{} was used after its grant had ended at {} ({:?})",
                named(holder),
                time(end.at),
                end.why
            );
            findings.violation(Rule::BeliefInGrant, *line, about_key(holder), what);
            break;
        }
        findings.counts.stale += usize::from(is_stale);
    }
}
