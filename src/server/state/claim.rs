//! By what a session of a cluster is known at the keys that it asks for.

use tokio::time::Instant;

use crate::protocol::StableRef;

/// A process that no member is.
const NO_PROCESS: u64 = u64::MAX;

/// Who owns a lease or a place, beside the number of its connection. Only clusters look at it.
#[derive(Clone, Default)]
pub(super) struct Claim {
    /// The process of the member that the connection leads to: another one each time a member starts.
    pub(super) process: u64,
    /// What the connection has presented.
    pub(super) reference: Option<StableRef>,
    /// Until when it is kept for its session, once the leader has seen its connection end.
    pub(super) kept_until: Option<Instant>,
}

impl Claim {
    /// Whether another connection of the session may take it back: its connection has ended, as far as the member of the
    /// other one can know.
    pub(super) fn is_open_to(&self, other: &Self) -> bool {
        self.kept_until.is_some() || self.process != other.process
    }

    /// Of a place that was granted: no time to keep it is running, and if one was, any connection of the session may have it.
    pub(super) fn promoted(mut self) -> Self {
        if self.kept_until.take().is_some() {
            self.process = NO_PROCESS;
        }
        self
    }

    /// From now on it is no session's.
    pub(super) fn forget(&mut self) {
        self.reference = None;
        self.kept_until = None;
    }

    /// It is an orphan whose time is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.kept_until.is_some_and(|until| until <= now)
    }
}
