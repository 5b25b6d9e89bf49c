//! The exclusive connections of a shard: those that carry waits, and those that may.

use tokio::time::Instant;

use super::Connections;
use crate::shard::connection::{Connection, Work};
use crate::shard::effect::{Role, Turn};
use crate::shard::ids::{LaneId, WaitKey};
use crate::shard::request::Wait;
use crate::shard::waits::Bound;

impl Connections {
    /// How many exclusive connections carry waits, or are there for them. Those that are idle and own leases do not count.
    pub(in crate::shard) fn for_waits(&self) -> usize {
        self.count(Role::Exclusive).all - self.idle.owning.len()
    }

    /// How many exclusive connections are being established, for what is next when they are there.
    pub(in crate::shard) fn opening(&self) -> usize {
        self.idle.opening
    }

    /// An idle exclusive connection that owns nothing: the same one again and again, so that the others are closed.
    pub(in crate::shard) fn idle(&self) -> Option<LaneId> {
        self.idle.clean.first().copied()
    }

    /// An idle exclusive connection that owns leases, for a wait that then cannot be given up. But none whose session may own
    /// just that: asked for it again, the server would say that it has it already.
    pub(in crate::shard) fn idle_owner(&self, key: &WaitKey) -> Option<LaneId> {
        let mut owners = self.idle.owning.iter().copied();
        owners.find(|id| self.get(*id).is_some_and(|connection| !connection.may_have_had(key)))
    }

    /// The connections whose waits for this key may be given up by closing them, the newest first. Not those whose wait the server
    /// ends before `soon`.
    pub(in crate::shard) fn closable(&self, key: &WaitKey, soon: Instant) -> Vec<LaneId> {
        let waits = |connection: &Connection| matches!(&connection.work, Work::Waiting(other) if other == key);
        let mut ids = self.ids_of(|connection| waits(connection) && connection.is_closable(soon));
        ids.reverse();
        ids
    }

    /// What a connection was opened for in particular, once it is established.
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

    /// Gives up the exclusive connections that are being established to elsewhere than this endpoint. Returns what they were
    /// opened for in particular.
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

    /// The connections to this endpoint that own nothing, and on which a request blocks: for as long as that may wait, silence there tells
    /// nothing.
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
