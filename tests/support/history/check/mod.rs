//! The rules. Each is a file, or a folder (`signals`), that says what the rule assumes and what it allows. The rule
//! `record` is checked here.

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

/// The number of violations whose history is shown: the first ones are enough to begin with.
const WITH_HISTORY: usize = 10;

/// The input of the rules, and the violations that they find.
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

    /// Returns whether a client may still believe, at this time, in a grant that its server has ended at a moment that the client cannot
    /// know: not beyond the lease, and for `unnoticed` of running time at most; if no fault can have hidden the end, for `scheduling`.
    pub fn may_be_believed_until(&self, holder: &Holder, grant: &Grant, belief: u64) -> bool {
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

    /// Returns whether a fault can have hidden the end of a grant from the process that had it. The end of a server and
    /// a leader that forgets are such faults. The end of a connection is visible at once to its client. It is hidden
    /// only if there was trouble at the server, or the process was frozen, during `unnoticed` before it, or if the
    /// server ended before it or within `scheduling` after it.
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

/// The key of a holder.
fn about_key(holder: &Holder) -> Subject {
    Subject::Key(holder.kind, holder.key.clone())
}

fn about_grant(grant: &Grant) -> Subject {
    Subject::Key(grant.kind, grant.key.clone())
}

/// Describes a holder for readers.
fn named(holder: &Holder) -> String {
    format!(
        "holder {} of {:?} (token {}, {} {:?})",
        holder.holder, holder.process, holder.token, holder.kind, holder.key
    )
}

/// Formats a time for readers.
fn time(at: u64) -> String {
    format!("+{:.6} s", at as f64 / 1e9)
}
