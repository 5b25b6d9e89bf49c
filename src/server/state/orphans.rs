//! Orphans: leases and queue positions of connections that the leader has seen end, kept for their sessions for a
//! limited time.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::report::About;
use super::{ConnectionId, GrantId, KeyId, Place, State};
use crate::clock::after;
use crate::server::event::EventKind;

/// The times at which the orphans of keys expire. A session may have reclaimed some of them in the meantime.
#[derive(Default)]
pub(super) struct Orphans {
    until: BTreeSet<(Instant, KeyId)>,
}

impl Orphans {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }
}

impl State {
    /// Keeps the lease of an ended connection for the session of that connection. Returns false if the server keeps no
    /// orphans.
    pub(super) fn orphan_lease(&mut self, subject: KeyId, lease: GrantId, now: Instant) -> bool {
        let Some(until) = self.kept_until(now) else {
            return false;
        };
        let entry = self.entries.get_mut(subject);
        let mut holders = entry.into_iter().flat_map(|entry| &mut entry.holders);
        let Some(holder) = holders.find(|holder| holder.lease == lease) else {
            return false;
        };
        holder.claim.kept_until = Some(until);
        let (connection, about) = (holder.connection, About::Lease(holder.grant.token));
        self.orphans.until.insert((until, subject));
        self.record(EventKind::Orphaned, subject, about, connection, now);
        true
    }

    /// Keeps a queue position of an ended connection for the session of that connection. Returns false if the server
    /// keeps no orphans.
    pub(super) fn orphan_place(&mut self, subject: KeyId, place: Place, now: Instant) -> bool {
        let Some(until) = self.kept_until(now) else {
            return false;
        };
        let entry = self.entries.get_mut(subject);
        let Some(waiter) = entry.and_then(|entry| entry.waiters.get_mut(&place)) else {
            return false;
        };
        waiter.claim.kept_until = Some(until);
        let connection = waiter.connection;
        self.orphans.until.insert((until, subject));
        self.record(EventKind::Orphaned, subject, About::Place(place), connection, now);
        true
    }

    fn kept_until(&self, now: Instant) -> Option<Instant> {
        let ttl = self.options.orphan_ttl;
        (!ttl.is_zero()).then(|| after(now, ttl))
    }

    /// Releases all orphans whose session did not come back in time.
    pub(super) fn give_up_orphans(&mut self, now: Instant) {
        while self.orphans.until.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, subject)) = self.orphans.until.pop_first() {
                self.give_up_orphans_of(subject, now);
            }
        }
    }

    fn give_up_orphans_of(&mut self, subject: KeyId, now: Instant) {
        let Some(entry) = self.entries.get(subject) else {
            return;
        };
        let waiters = entry.waiters.iter().filter(|(_, waiter)| waiter.claim.is_over(now));
        let places: Vec<(Place, ConnectionId)> = waiters.map(|(place, waiter)| (*place, waiter.connection)).collect();
        let holders = entry.holders.iter().filter(|holder| holder.claim.is_over(now));
        let leases: Vec<GrantId> = holders.map(|holder| holder.lease).collect();
        for (place, connection) in places {
            self.leave(connection, subject, place, now);
        }
        for lease in leases {
            self.end_lease(subject, lease, EventKind::Disconnected, now);
        }
    }
}

#[cfg(test)]
mod tests;
