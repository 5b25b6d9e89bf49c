//! Operations return in time: none with a timeout later than that, and none never.
//!
//! An operation is late by the time in which its process ran between its deadline and its return; more than `scheduling` is a violation. So a
//! process that was stopped is judged by what it does when it goes on. What is broken outside is no excuse.
//!
//! An acquire of several keys (it names none) asks for one after another, for the later ones when their time is over, too. It is late
//! by the time in which its process ran beyond its timeout: what comes behind a stop may still take as long as its requests may.
//!
//! An operation that has not returned is judged up to the death of its process, or the end of the record. Without a timeout it may wait
//! for ever, but not beyond the end of a process that ended in order. Dropping its future is a return (`cancelled`).

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
