//! Gives tests access to the state of a server, and lets them inject faults.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

pub use super::state::ObservedLease;
use super::state::{RefusedRequest, State};
use crate::protocol::Status;
use crate::types::{Key, Token};

/// A server, or all members of a cluster, under the control of a test.
pub(crate) struct Control(Arc<Mutex<State>>);

impl Control {
    pub(super) fn of(state: &Arc<Mutex<State>>) -> Self {
        Self(Arc::clone(state))
    }

    pub(crate) fn leases(&self, key: &Key) -> Vec<ObservedLease> {
        self.state().leases_of(key, Instant::now())
    }

    pub(crate) fn waiters(&self, key: &Key) -> usize {
        self.state().waiters_of(key)
    }

    pub(crate) fn connections(&self) -> usize {
        self.state().open_connections()
    }

    /// Ends the lease of a token, or all leases of the key. Returns the tokens of the ended leases.
    pub(crate) fn revoke(&self, key: &Key, token: Option<&Token>) -> Vec<Token> {
        self.state().revoke(key, token, Instant::now())
    }

    pub(crate) fn cut(&self) {
        self.state().cut(Instant::now());
    }

    pub(crate) fn refuse_acquire(&self, status: Status) {
        self.state().plan_refusal(RefusedRequest::Acquire, status);
    }

    pub(crate) fn refuse_renewal(&self, status: Status) {
        self.state().plan_refusal(RefusedRequest::Renew, status);
    }

    pub(crate) fn refuse_release(&self, status: Status) {
        self.state().plan_refusal(RefusedRequest::Release, status);
    }

    pub(crate) fn refuse_secret(&self) {
        self.state().plan_refused_secret();
    }

    /// Locks the state. The guard must not be held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
