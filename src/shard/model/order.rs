//! Checks that a client's callers get a key in the order of their arrival.

use super::callers::{CallId, Callers};
use crate::shard::acquire::{Acquire, Patience};
use crate::shard::ids::WaitKey;
use crate::shard::request::Pending;

/// The callers of one client that wait for a grant, in order of arrival.
#[derive(Default)]
pub(super) struct Order(Vec<Waiting>);

struct Waiting {
    call: CallId,
    key: WaitKey,
    /// Whether it has a grant that is being confirmed.
    has_grant: bool,
}

impl Order {
    /// Notes an acquire that has reached the shard.
    pub(super) fn comes(&mut self, callers: &Callers, call: CallId, acquire: &Acquire, patience: Patience) {
        if let Patience::Until(..) = patience {
            self.0.retain(|waiting| callers.calls.contains_key(&waiting.call));
            self.0.push(Waiting {
                call,
                key: acquire.wait_key(),
                has_grant: false,
            });
        }
    }

    /// Notes a sent request. If the request confirms a grant, the grant belongs to the request's caller.
    pub(super) fn sends(&mut self, callers: &Callers, pending: &Pending) {
        if let Pending::Confirm { acquire, .. } = pending {
            let call = callers.of_ask(&acquire.ask);
            if let Some(waiting) = self.0.iter_mut().find(|waiting| Some(waiting.call) == call) {
                waiting.has_grant = true;
            }
        }
    }

    /// Notes that a call gets a lease. Returns an earlier call for the same key that still waits and has no grant.
    pub(super) fn granted(&self, callers: &Callers, call: CallId) -> Option<CallId> {
        let index = self.0.iter().position(|waiting| waiting.call == call)?;
        let key = &self.0[index].key;
        let passed_over =
            |waiting: &&Waiting| !waiting.has_grant && waiting.key == *key && callers.calls.contains_key(&waiting.call);
        self.0[..index].iter().find(passed_over).map(|waiting| waiting.call)
    }

    /// Notes that a call was answered.
    pub(super) fn answered(&mut self, call: CallId) {
        self.0.retain(|waiting| waiting.call != call);
    }
}
