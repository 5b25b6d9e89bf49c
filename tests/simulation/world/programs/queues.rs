//! A program that takes a ticket and waits at it later.

use std::time::Duration;

use dflockd_client::Enqueued;

use super::super::caller::{Caller, Operation, Returned, failure};
use super::super::history::record::{Action, LetGo, Outcome, What};
use super::locks::{granted, hold, lock, release, rest};

pub async fn two_phase(caller: &mut Caller, keys: u64) {
    let subject = lock(caller.random.u64(..keys));
    let lock = caller.lock(&subject);
    let operation = Operation::of(Action::Enqueue, &subject).within(caller.process.request_timeout);
    let Returned { op, result } = caller.call(operation, lock.enqueue()).await;
    let held = match result {
        Some(Ok(Enqueued::Acquired(guard))) => granted(
            caller,
            &subject,
            Returned {
                op,
                result: Some(Ok(guard)),
            },
        ),
        Some(Ok(Enqueued::Queued(ticket))) => {
            caller.returned(op, Outcome::Queued, None);
            caller.pause(Duration::from_secs(2)).await;
            if caller.random.u32(..5) == 0 {
                caller.note(What::LetGo(LetGo {
                    process: caller.process.name.clone(),
                    holder: None,
                    ticket: Some(op),
                }));
                drop(ticket);
                None
            } else {
                let patience = Duration::from_millis(caller.random.u64(..8_000));
                let mut operation =
                    Operation::of(Action::Wait, &subject).within(patience + caller.process.request_timeout);
                operation.ticket = Some(op);
                let returned = caller.call(operation, ticket.wait(patience)).await;
                granted(caller, &subject, returned)
            }
        }
        Some(Err(error)) => {
            caller.returned(op, failure(&error), Some(&error));
            None
        }
        None => {
            caller.returned(op, Outcome::Cancelled, None);
            None
        }
    };
    if let Some((holder, guard)) = held {
        hold(caller, &holder, &guard, Duration::from_secs(2)).await;
        release(caller, &subject, holder, guard).await;
    }
    rest(caller).await;
}
