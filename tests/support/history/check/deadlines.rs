//! Operations return in time. An operation with a timeout returns before its timeout is over. Each other operation
//! returns before an orderly end of its process.
//!
//! An operation is late if it returns after its deadline. Its lateness is the time from the deadline to the return,
//! without the time in which its process was frozen. Lateness of more than `scheduling` is a violation. So the time of
//! a freeze does not count, but the time after the thaw does. Trouble outside the process is no excuse.
//!
//! An acquire of several keys requests the later keys even after its deadline. So its lateness is counted differently:
//! it is the running time of the process from the `invoke` to the return, minus the timeout. In the record, such an
//! acquire names no key.
//!
//! An operation that has not returned is judged as if it returned at the end of its process or of the record. If its
//! process ended in an orderly way, that is always a violation. An operation whose future was dropped has returned,
//! with the outcome `cancelled`.

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
