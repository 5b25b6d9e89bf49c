//! The claims by which a cluster recognizes the leases and queue positions of a session.

use tokio::time::Instant;

use crate::protocol::StableRef;

/// A number that no process has.
const NO_PROCESS: u64 = u64::MAX;

/// The owner of a lease or a queue position, in addition to the number of its connection. Only clusters use it.
#[derive(Clone, Default)]
pub(super) struct SessionClaim {
    /// The process of the member at the other end of the connection. A member has a new process after each start.
    pub(super) process: u64,
    /// The ref that the connection has presented.
    pub(super) reference: Option<StableRef>,
    /// The end of the time for which the lease or queue position is kept for its session. `None` until the leader has
    /// seen its connection end.
    pub(super) kept_until: Option<Instant>,
}

impl SessionClaim {
    /// Returns whether another connection of the session can reclaim the lease or queue position: the owner's
    /// connection has ended, or it was to another process.
    pub(super) fn is_open_to(&self, other: &Self) -> bool {
        self.kept_until.is_some() || self.process != other.process
    }

    /// Returns the claim for the lease that is granted at a queue position. If the position was an orphan, its orphan
    /// TTL no longer applies, and any connection of the session can reclaim the lease.
    pub(super) fn promoted(mut self) -> Self {
        if self.kept_until.take().is_some() {
            self.process = NO_PROCESS;
        }
        self
    }

    /// Detaches the lease or queue position from its session.
    pub(super) fn forget(&mut self) {
        self.reference = None;
        self.kept_until = None;
    }

    /// Returns whether the lease or queue position is an orphan whose orphan TTL is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.kept_until.is_some_and(|until| until <= now)
    }
}
