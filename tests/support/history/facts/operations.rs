//! The operations of callers.

use std::collections::HashMap;

use super::super::record::{Action, Invoke, Kind, Name, Outcome, Return};

#[derive(Clone, Debug)]
pub struct Operation {
    pub process: Name,
    pub caller: u64,
    pub op: u64,
    pub action: Action,
    pub kind: Option<Kind>,
    pub key: Option<Name>,
    pub timeout: Option<u64>,
    pub holder: Option<u64>,
    pub ticket: Option<u64>,
    pub channel: Option<Name>,
    pub payload: Option<Name>,
    pub line: usize,
    pub at: u64,
    pub returned: Option<Returned>,
    /// For an `enqueue`: when the caller dropped the ticket or began to wait at it.
    pub ticket_gone: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub struct Returned {
    pub at: u64,
    pub outcome: Outcome,
}

/// All operations, in the order of their `invoke` lines.
#[derive(Debug, Default)]
pub struct Operations {
    pub all: Vec<Operation>,
    by_id: HashMap<(Name, u64), usize>,
}

impl Operations {
    pub fn of(&self, process: &Name, op: u64) -> Option<&Operation> {
        self.all.get(*self.by_id.get(&(process.clone(), op))?)
    }

    fn of_mut(&mut self, process: &Name, op: u64) -> Option<&mut Operation> {
        self.all.get_mut(*self.by_id.get(&(process.clone(), op))?)
    }

    /// Returns false if the process already has an operation with this number.
    pub fn invoke(&mut self, line: usize, at: u64, invoke: &Invoke) -> bool {
        if let Some(enqueued) = invoke.ticket {
            self.end_ticket(at, &invoke.process, enqueued);
        }
        let number = self.all.len();
        let before = self.by_id.insert((invoke.process.clone(), invoke.op), number);
        self.all.push(Operation {
            process: invoke.process.clone(),
            caller: invoke.caller,
            op: invoke.op,
            action: invoke.action,
            kind: invoke.kind,
            key: invoke.key.clone(),
            timeout: invoke.timeout,
            holder: invoke.holder,
            ticket: invoke.ticket,
            channel: invoke.channel.clone(),
            payload: invoke.payload.clone(),
            line,
            at,
            returned: None,
            ticket_gone: None,
        });
        before.is_none()
    }

    /// Returns false if no operation with this number is under way.
    pub fn end(&mut self, at: u64, end: &Return) -> bool {
        let operation = self.of_mut(&end.process, end.op);
        let Some(operation) = operation.filter(|operation| operation.returned.is_none()) else {
            return false;
        };
        let outcome = end.outcome;
        operation.returned = Some(Returned { at, outcome });
        true
    }

    pub fn end_ticket(&mut self, at: u64, process: &Name, enqueued: u64) {
        if let Some(operation) = self.of_mut(process, enqueued) {
            operation.ticket_gone.get_or_insert(at);
        }
    }
}

impl Operation {
    pub fn asks_for_grants(&self) -> bool {
        matches!(
            self.action,
            Action::Acquire | Action::Try | Action::Enqueue | Action::Wait | Action::Reclaim
        )
    }

    /// Returns the time after which the operation cannot receive a grant. This is the end of its ticket, if it returned
    /// a ticket. Otherwise it is the return. `None` if the record ends before that time.
    pub fn awaits_until(&self) -> Option<u64> {
        let returned = self.returned?;
        match returned.outcome {
            Outcome::Queued => self.ticket_gone,
            _ => Some(returned.at),
        }
    }

    pub fn outcome(&self) -> Option<Outcome> {
        self.returned.map(|returned| returned.outcome)
    }
}
