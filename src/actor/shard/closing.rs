//! The end of a shard: everything is given back first.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Shard;
use crate::actor::message::{Releasing, Shutdown, ShutdownReport};
use crate::health::ConnectionState;
use crate::lease::cell::LostReason;
use crate::lease::registry::LeaseId;

/// A shard that gives everything back before it ends.
pub(super) struct Closing {
    pub(super) until: Instant,
    told: Option<oneshot::Sender<ShutdownReport>>,
    pub(super) report: ShutdownReport,
}

impl Shard {
    pub(super) fn shut_down(&mut self, shutdown: Shutdown) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(Closing {
            until: shutdown.until,
            told: shutdown.told,
            report: ShutdownReport::default(),
        });
        self.set_health(ConnectionState::Closed);
        for pending in std::mem::take(&mut self.parked) {
            if let Some(error) = self.refusal() {
                self.refuse(pending, error);
            }
        }
        let ids: Vec<LeaseId> = self.registry.ids().collect();
        for id in ids {
            if self.registry.lose(id, LostReason::Shutdown) {
                if let Some(claim) = self.registry.begin_release(id) {
                    self.owe(Releasing::of(&claim, Some(id), false, None));
                }
            }
        }
        self.give_up_all_waits();
    }

    pub(super) fn end_if_done(&mut self) {
        let done = match &self.closing {
            None => false,
            // What is in flight may still bring a grant that has to be given back.
            Some(closing) => {
                let gave_back = self.releasing == 0 && self.lanes.in_flight_pipelined() == 0;
                (gave_back && self.gave_up_all_waits()) || closing.until <= Instant::now()
            }
        };
        if !done {
            return;
        }
        self.lanes.clear();
        let left: Vec<LeaseId> = self.registry.ids().collect();
        let unreleased: Vec<_> = left.into_iter().filter_map(|id| self.registry.claim(id)).collect();
        if let Some(mut closing) = self.closing.take() {
            closing
                .report
                .unreleased
                .extend(unreleased.into_iter().map(|claim| claim.cell.key.clone()));
            if let Some(told) = closing.told.take() {
                drop(told.send(closing.report));
            }
        }
        self.myself.stop(None);
    }
}
