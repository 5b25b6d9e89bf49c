//! Leases that are being released.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Phase, Registry};
use crate::lease::cell::LeaseCell;
use crate::shard::ids::{LaneId, LeaseId};
use crate::types::{Key, Kind, Target};

/// The data that a request needs to release or renew a lease.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) cell: Arc<LeaseCell>,
    pub(crate) target: Target,
    pub(crate) owner: LaneId,
}

impl Registry {
    /// Begins to release a lease, which is then neither renewed nor reported as lost.
    pub(crate) fn begin_release(&mut self, id: LeaseId, now: Instant) -> Option<Claim> {
        let was = self.phase(id).filter(|phase| *phase != Phase::Releasing)?;
        self.set_phase(id, Phase::Releasing);
        self.disarm(id);
        let claim = self.claim(id)?;
        claim.cell.release();
        if was.is_held() {
            self.metrics.released(&claim.cell, now);
            self.holdings.remove(claim.cell.kind, &claim.cell.key);
        }
        Some(claim)
    }

    /// Whether a lease is being released.
    pub(crate) fn is_releasing(&self, id: LeaseId) -> bool {
        self.phase(id) == Some(Phase::Releasing)
    }

    /// Removes a lease. If another lease has the same token by now, the token stays known for that lease.
    pub(crate) fn remove(&mut self, id: LeaseId, now: Instant) {
        if self.entry(id).is_none() {
            return;
        }
        self.disarm(id);
        self.overdue.remove(&id);
        self.unchain(id.slot);
        let Some(slot) = self.slots.get_mut(id.slot) else {
            return;
        };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        let Some(entry) = slot.entry.take() else { return };
        let token = &entry.cell.token;
        if let Some(tokens) = self.tokens.as_mut().filter(|tokens| tokens.get(token) == Some(&id)) {
            tokens.remove(token);
        }
        if entry.phase.is_held() {
            self.metrics.released(&entry.cell, now);
            self.holdings.remove(entry.cell.kind, &entry.cell.key);
        }
    }

    /// Counts a grant that is released because no caller gets it.
    pub(crate) fn orphaned(&mut self, kind: Kind) {
        self.metrics.orphan(kind);
    }

    /// Returns the data that a request needs to release or renew a lease.
    pub(crate) fn claim(&self, id: LeaseId) -> Option<Claim> {
        self.entry(id).map(|entry| Claim {
            cell: Arc::clone(&entry.cell),
            target: entry.target,
            owner: entry.owner,
        })
    }

    /// Returns the keys of leases that are being released.
    pub(crate) fn releasing(&self) -> impl Iterator<Item = Key> + '_ {
        let entries = self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        let releasing = entries.filter(|entry| entry.phase == Phase::Releasing);
        releasing.map(|entry| entry.cell.key.clone())
    }
}
