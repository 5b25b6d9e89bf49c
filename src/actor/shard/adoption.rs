//! In a cluster, whoever renews a lease owns it. So the pipelined connection takes over what was acquired over others: those are
//! then free to come and go.

use super::Shard;
use crate::lease::registry::{LaneId, LeaseId};
use crate::protocol::Response;

impl Shard {
    /// Has the pipelined connection take over a lease that was acquired over another.
    pub(super) fn adopt(&mut self, id: LeaseId) {
        if self.registry.renew_now(id, self.main_is_up) {
            self.renew_all(vec![id]);
        }
    }

    /// A lease was renewed over this connection.
    pub(super) fn adopted(&mut self, id: LeaseId, by: LaneId) {
        if let Some(before) = self.registry.change_owner(id, by) {
            self.pass_on(before, by);
        }
    }

    /// Who owns a grant that was confirmed over this connection.
    pub(super) fn owned_by_now(&mut self, before: LaneId, by: LaneId, response: &Response) -> LaneId {
        if !self.failover.is_cluster() || before == by || !matches!(response, Response::Renewed(_)) {
            return before;
        }
        self.pass_on(before, by);
        by
    }

    fn pass_on(&mut self, before: LaneId, by: LaneId) {
        self.own(by);
        self.disown(before);
        match self.lanes.get_mut(before) {
            // Its session has had this key: asked for it once more, the server might say that it has it already.
            Some(lane) if lane.session.is_some() => lane.retire(),
            _ => {}
        }
    }
}
