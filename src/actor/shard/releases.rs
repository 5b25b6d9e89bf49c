//! Leases on their way back to the server.

use tokio::sync::oneshot;

use super::Shard;
use crate::actor::message::{Pending, Releasing};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::cell::{LeaseState, LostReason};
use crate::lease::registry::{LaneId, LeaseId};

impl Shard {
    pub(super) fn release(&mut self, id: LeaseId, told: Option<oneshot::Sender<Result<()>>>) {
        let state = self.registry.claim(id).map(|claim| (claim.cell.state(), claim));
        let Some((state, claim)) = state else {
            // A lease that was lost with its connection: there is nothing to give back.
            return;
        };
        let LeaseState::Lost(why) = state else {
            if self.registry.begin_release(id).is_some() {
                self.owe(Releasing::of(&claim, Some(id), false, told));
            }
            return;
        };
        if let Some(told) = told {
            let error = Error::new(
                ErrorKind::LeaseLost,
                format!("the lease of {} was lost before it was released: {why}", claim.cell.key),
            );
            drop(told.send(Err(self.here(error))));
        }
        // Where time alone took it, the server may hold it still.
        if why == LostReason::Expired && self.registry.begin_release(id).is_some() {
            self.owe(Releasing::of(&claim, Some(id), true, None));
        } else {
            self.registry.remove(id);
            self.disown(claim.owner);
        }
    }

    pub(super) fn send_owed(&mut self) {
        for releasing in std::mem::take(&mut self.owed) {
            self.send(Pending::Release(releasing));
        }
    }

    /// Sends a release now, or as soon as there is a connection.
    pub(super) fn owe(&mut self, releasing: Releasing) {
        self.releasing += 1;
        if self.main_is_up {
            self.send(Pending::Release(releasing));
        } else {
            self.keep_house();
            self.owed.push(releasing);
        }
    }

    /// A release is over, one way or the other.
    pub(super) fn settle_release(&mut self, releasing: Releasing, outcome: Result<()>) {
        self.releasing = self.releasing.saturating_sub(1);
        if let Some(id) = releasing.id {
            self.registry.remove(id);
        }
        self.disown(releasing.owner);
        if let Some(closing) = &mut self.closing {
            match &outcome {
                Ok(()) => closing.report.released += 1,
                Err(_) => closing.report.unreleased.push(releasing.key.clone()),
            }
        }
        if let Some(told) = releasing.told {
            drop(told.send(outcome));
        }
    }

    /// The server counts one more lease to this connection.
    pub(super) fn own(&mut self, owner: LaneId) {
        if let Some(lane) = self.lanes.get_mut(owner) {
            lane.owns += 1;
        }
    }

    pub(super) fn disown(&mut self, owner: LaneId) {
        if let Some(lane) = self.lanes.get_mut(owner) {
            lane.owns = lane.owns.saturating_sub(1);
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }
}
