//! The exclusive connections of a shard: those that carry waits, and those that can.

use tokio::time::Instant;

use super::Connections;
use crate::shard::connection::{Connection, Work};
use crate::shard::effect::{Role, Turn};
use crate::shard::ids::{LaneId, WaitKey};
use crate::shard::request::Wait;
use crate::shard::waits::Bound;

impl Connections {
    /// Returns the number of exclusive connections that carry waits or are available for them. Idle ones that own
    /// leases do not count.
    pub(in crate::shard) fn for_waits(&self) -> usize {
        self.count(Role::Exclusive).all - self.idle.owning.len()
    }

    /// Returns the number of exclusive connections that are opening for the next wait.
    pub(in crate::shard) fn opening(&self) -> usize {
        self.idle.opening
    }

    /// Returns the oldest idle exclusive connection that owns no lease. Because the oldest one is used first, the
    /// others stay idle until they are closed.
    pub(in crate::shard) fn idle(&self) -> Option<LaneId> {
        self.idle.clean.first().copied()
    }

    /// Returns an idle exclusive connection that owns leases. A wait on it cannot be given up by closing it. A
    /// connection whose session may own this key is excluded, because the server could answer with the old grant.
    pub(in crate::shard) fn idle_owner(&self, key: &WaitKey) -> Option<LaneId> {
        let mut owners = self.idle.owning.iter().copied();
        owners.find(|id| self.get(*id).is_some_and(|connection| !connection.may_have_had(key)))
    }

    /// Returns the connections whose waits for this key may be given up by closing them, newest first. Waits that the
    /// server ends before `soon` are excluded.
    pub(in crate::shard) fn closable(&self, key: &WaitKey, soon: Instant) -> Vec<LaneId> {
        let waits = |connection: &Connection| matches!(&connection.work, Work::Waiting(other) if other == key);
        let mut ids = self.ids_of(|connection| waits(connection) && connection.is_closable(soon));
        ids.reverse();
        ids
    }

    /// Removes and returns the wait for which a connection was opened. Called when the connection is up.
    pub(in crate::shard) fn take_opening(&mut self, id: LaneId, now: Instant) -> Option<Bound<Wait>> {
        let mut connection = self.get_mut(id)?;
        match std::mem::replace(&mut connection.work, Work::Idle(now)) {
            Work::Opening(bound) => bound.map(|bound| *bound),
            other => {
                connection.work = other;
                None
            }
        }
    }

    /// Closes the exclusive connections that are opening to another endpoint. Returns the waits for which they were
    /// opened.
    pub(in crate::shard) fn stop_opening_elsewhere(
        &mut self,
        endpoint: usize,
        turn: &mut Turn<'_>,
    ) -> Vec<Bound<Wait>> {
        let is_one =
            |connection: &Connection| connection.endpoint != endpoint && matches!(connection.work, Work::Opening(_));
        let ids = self.ids_of(is_one).into_iter();
        let closed: Vec<Connection> = ids.filter_map(|id| self.close(id, turn)).collect();
        let bound = closed.into_iter().filter_map(|connection| match connection.work {
            Work::Opening(bound) => bound.map(|bound| *bound),
            _ => None,
        });
        bound.collect()
    }

    /// Returns the connections to this endpoint that own no lease and carry a blocked request. While the request may
    /// wait, silence on such a connection does not show a fault.
    pub(in crate::shard) fn blocked_at(&self, endpoint: usize) -> Vec<LaneId> {
        self.ids_of(|connection| {
            let is_blocked = match connection.work {
                Work::Waiting(_) => true,
                Work::Ticket(..) => connection.in_flight > 0,
                _ => false,
            };
            is_blocked
                && connection.endpoint == endpoint
                && connection.owns == 0
                && !connection.retired
                && !connection.cut
        })
    }
}
