//! The misbehaviour of cluster members that a test has requested.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{ConnectionId, State};

/// The misbehaviour of cluster members that a test has requested.
#[derive(Default)]
pub(in crate::server) struct Trouble {
    forgets_refs: bool,
    forgets_tokens: bool,
    /// Set if the leader loses leadership while the members agree on the next request. Contains the next leader, if
    /// any.
    pub(super) falls_in_flight: Option<Option<usize>>,
    /// Acquires and enqueues fail.
    pub(super) fails_to_persist: bool,
    overlooks_ends: bool,
    /// Connections whose end the members have not noticed.
    ghosts: BTreeSet<ConnectionId>,
}

impl Trouble {
    pub(in crate::server) fn forget_refs(&mut self, forgets: bool) {
        self.forgets_refs = forgets;
    }

    pub(in crate::server) fn forget_tokens(&mut self, forgets: bool) {
        self.forgets_tokens = forgets;
    }

    pub(in crate::server) fn fall_in_flight(&mut self, next: Option<usize>) {
        self.falls_in_flight = Some(next);
    }

    pub(in crate::server) fn fail_to_persist(&mut self, fails: bool) {
        self.fails_to_persist = fails;
    }

    /// Returns whether the next leader knows no refs, and whether it knows no tokens.
    pub(super) fn forgets(&self) -> (bool, bool) {
        (self.forgets_refs, self.forgets_tokens)
    }

    /// Returns whether the end of a connection goes unnoticed. If so, the connection becomes a ghost.
    pub(super) fn overlooks(&mut self, connection: ConnectionId) -> bool {
        if self.overlooks_ends {
            self.ghosts.insert(connection);
        }
        self.overlooks_ends
    }
}

impl State {
    /// Sets whether the ends of connections go unnoticed. If not, the overlooked ends are noticed now.
    pub(in crate::server) fn overlook_ends(&mut self, overlooks: bool, now: Instant) {
        let Some(membership) = &mut self.membership else { return };
        membership.trouble.overlooks_ends = overlooks;
        if !overlooks {
            for ghost in std::mem::take(&mut membership.trouble.ghosts) {
                self.disconnect(ghost, now);
            }
        }
    }

    /// Times out the requests of ghosts as if their connections still existed.
    pub(super) fn time_out_ghosts(&mut self, now: Instant) {
        let Some(membership) = &self.membership else { return };
        for ghost in membership.trouble.ghosts.clone() {
            let waits = self.clients.get(&ghost).and_then(|client| client.waits.as_ref());
            if let Some(over) = waits.filter(|waits| waits.until <= now) {
                let subject = over.subject;
                self.give_up(ghost, subject, now);
            }
        }
    }
}
