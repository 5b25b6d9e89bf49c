//! Operations return in time: those with a timeout by its end, and all others at some time.
//!
//! An operation is late by the running time of its process between its deadline and its return; more than `scheduling` is a violation.
//! So a frozen process is judged by what it does after the thaw. Trouble outside the process is no excuse.
//!
//! An acquire of several keys (which names no key) asks for one key after another, and for the later ones even when its time is over. It is
//! late by the running time beyond its timeout: after a freeze its last requests may still take their time.
//!
//! An operation that has not returned is judged up to the death of its process, or to the end of the record. Without a timeout it may wait
//! for ever, but not beyond the orderly end of its process. Dropping its future is a return (`cancelled`).

use super::super::facts::processes::Death;
use super::super::record::Action;
use super::super::shortened::Subject;
use super::super::verdict::Rule;
use super::{Findings, time};

pub fn check(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    for operation in &facts.operations.all {
        let life = facts.processes.life(&operation.process);
        let returned = operation.returned.map(|returned| returned.at);
        let until = returned.unwrap_or_else(|| facts.processes.last_moment(&operation.process, facts.end));
        let named = || {
            format!(
                "operation {} of {:?} ({:?})",
                operation.op, operation.process, operation.action
            )
        };
        let subject = || Subject::Operation(operation.process.clone(), operation.op);
        if let (None, Some((at, Death::Ended))) = (returned, life.death) {
            let what = format!("{} had not returned when its process ended at {}", named(), time(at));
            findings.violation(Rule::Deadlines, operation.line, subject(), what);
        }
        let Some(timeout) = operation.timeout else { continue };
        findings.counts.deadlines += 1;
        let deadline = operation.at.saturating_add(timeout);
        let late = match (operation.action, &operation.key) {
            (Action::Acquire, None) => life.frozen.outside(operation.at, until).saturating_sub(timeout),
            _ => life.frozen.outside(deadline, until),
        };
        if late <= findings.bounds.scheduling {
            continue;
        }
        let what = match returned {
            Some(at) => format!("{} had until {} and returned at {}", named(), time(deadline), time(at)),
            None => format!(
                "{} had until {} and had not returned at {}",
                named(),
                time(deadline),
                time(until)
            ),
        };
        findings.violation(Rule::Deadlines, operation.line, subject(), what);
    }
}
