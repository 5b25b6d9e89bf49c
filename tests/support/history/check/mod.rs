//! The rules. Each rule has a file or a folder (`signals`) here. The first comment of the file says what the rule
//! requires, assumes and allows. The rule `record` has no file, because [`all`] checks it.
//!
//! A *holder* is a guard or a permit of a caller. A *belief* is a use of a holder for which `is_held` returned true. It
//! shows that the caller believed that it held the key.

mod belief_in_grant;
mod believers;
mod deadlines;
mod fences;
mod losses;
mod owners;
mod queue_order;
mod renewals;
mod servers;
mod signals;

use super::bounds::Bounds;
use super::facts::Facts;
use super::facts::grants::{Ending, Grant};
use super::facts::holders::Holder;
use super::record::Name;
use super::shortened::{Subject, around};
use super::verdict::{Counts, Rule, Verdict, Violation};

/// The number of violations that are reported with other lines of the record ([`Violation::history`]).
const WITH_HISTORY: usize = 10;

/// The input of the rules, and the violations that the rules have found.
pub struct Findings<'a> {
    pub facts: &'a Facts<'a>,
    pub bounds: Bounds,
    pub counts: Counts,
    found: Vec<(Violation, Subject)>,
}

/// Applies all rules.
pub fn all(findings: &mut Findings<'_>) {
    for (line, what) in &findings.facts.unfounded {
        findings.violation(Rule::Record, *line, Subject::Nothing, (*what).to_owned());
    }
    servers::check(findings);
    queue_order::check(findings);
    fences::check(findings);
    believers::check(findings);
    belief_in_grant::check(findings);
    losses::check(findings);
    renewals::check(findings);
    owners::check(findings);
    deadlines::check(findings);
    signals::check(findings);
}

impl<'a> Findings<'a> {
    pub fn new(facts: &'a Facts<'a>, bounds: Bounds) -> Self {
        let counts = Counts {
            lines: facts.lines.len(),
            operations: facts.operations.all.len(),
            holders: facts.holders.all.len(),
            grants: facts.grants.all.len(),
            ..Counts::default()
        };
        Self {
            facts,
            bounds,
            counts,
            found: Vec::new(),
        }
    }

    pub fn violation(&mut self, rule: Rule, line: usize, subject: Subject, what: String) {
        let violation = Violation {
            rule,
            at: self.facts.lines.get(line).map_or(0, |line| line.at),
            line,
            what,
            history: Vec::new(),
        };
        self.found.push((violation, subject));
    }

    pub fn verdict(self) -> Verdict {
        let Self { facts, mut found, .. } = self;
        found.sort_by_key(|(violation, _)| violation.line);
        for (violation, subject) in found.iter_mut().take(WITH_HISTORY) {
            violation.history = around(facts, subject, violation.line);
        }
        if found.is_empty() && facts.lines.is_empty() {
            return Verdict::default();
        }
        Verdict {
            counts: self.counts,
            violations: found.into_iter().map(|(violation, _)| violation).collect(),
        }
    }

    /// Returns whether a belief in a holder at the time `belief` is allowed, although the server has ended the grant.
    ///
    /// Only some ends allow such beliefs: those with [`Ending::may_be_unnoticed`]. The belief may come at most
    /// `unnoticed` after the end if a fault may have hidden the end. Otherwise it may come at most `scheduling` after
    /// the end. Both bounds count only time in which the client's process ran. No belief is allowed after the end of the
    /// lease.
    pub fn may_be_believed_at(&self, holder: &Holder, grant: &Grant, belief: u64) -> bool {
        let Some(end) = grant.end.filter(|end| end.why.may_be_unnoticed()) else {
            return false;
        };
        let most = match self.is_hidden(&holder.process, grant) {
            true => self.bounds.unnoticed,
            false => self.bounds.scheduling,
        };
        let ran = self.facts.processes.ran(&holder.process, end.at, belief);
        ran <= most && grant.lease_end.is_none_or(|lease_end| belief <= lease_end)
    }

    /// Returns whether a fault may have hidden the end of a grant from the client's process.
    ///
    /// The end of a grant counts as hidden if the server's process ended, or if a leader forgot the grant. A release
    /// and an expiry do not count as hidden. The client notices the end of a connection at once, except in three cases:
    /// - there was trouble at the server during the time `unnoticed` before the end;
    /// - the client's process was frozen during that time;
    /// - the server's process ended before the end of the connection, or at most `scheduling` after it.
    pub fn is_hidden(&self, process: &Name, grant: &Grant) -> bool {
        let Some(end) = grant.end else { return false };
        let since = end.at.saturating_sub(self.bounds.unnoticed);
        match end.why {
            Ending::Released | Ending::Expired => false,
            Ending::Forgotten | Ending::ServerEnded => true,
            Ending::Disconnected => {
                let facts = self.facts;
                let server_ended = facts.grants.server_ended(&grant.server);
                facts.troubles_of(&grant.server).meet(since, end.at)
                    || facts.processes.life(process).frozen.meet(since, end.at)
                    || server_ended.is_some_and(|at| at <= end.at.saturating_add(self.bounds.scheduling))
            }
        }
    }
}

fn about_key(holder: &Holder) -> Subject {
    Subject::Key(holder.kind, holder.key.clone())
}

fn about_grant(grant: &Grant) -> Subject {
    Subject::Key(grant.kind, grant.key.clone())
}

/// Describes a holder in the text of a violation.
fn named(holder: &Holder) -> String {
    format!(
        "holder {} of {:?} (token {}, {} {:?})",
        holder.holder, holder.process, holder.token, holder.kind, holder.key
    )
}

/// Formats a time for the text of a violation.
fn time(at: u64) -> String {
    format!("+{:.6} s", at as f64 / 1e9)
}
