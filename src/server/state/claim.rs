//! The claims by which a cluster recognizes the leases and queue positions of a session.

use tokio::time::Instant;

use crate::protocol::StableRef;

/// The number of no process.
const NO_PROCESS: u64 = u64::MAX;

/// The owner of a lease or a queue position, in addition to the number of its connection. Only clusters use it.
#[derive(Clone, Default)]
pub(super) struct Claim {
    /// The process of the member that the connection leads to. A member has a new process after each start.
    pub(super) process: u64,
    /// The ref that the connection has presented.
    pub(super) reference: Option<StableRef>,
    /// How long it is kept for its session, once the leader has seen its connection end.
    pub(super) kept_until: Option<Instant>,
}

impl Claim {
    /// Returns whether another connection of the session can take it back: its connection has ended, as far as the
    /// other connection's member can know.
    pub(super) fn is_open_to(&self, other: &Self) -> bool {
        self.kept_until.is_some() || self.process != other.process
    }

    /// Returns the claim for the lease that is granted at a queue position. If the position was an orphan, its time no
    /// longer runs, and any connection of the session can take the lease.
    pub(super) fn promoted(mut self) -> Self {
        if self.kept_until.take().is_some() {
            self.process = NO_PROCESS;
        }
        self
    }

    /// Detaches it from its session.
    pub(super) fn forget(&mut self) {
        self.reference = None;
        self.kept_until = None;
    }

    /// Returns whether it is an orphan whose time is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.kept_until.is_some_and(|until| until <= now)
    }
}
