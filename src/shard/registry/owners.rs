//! Tracks which connection owns each lease, as the server sees it.

use super::{Neighbour, Phase, Registry};
use crate::shard::ids::{LaneId, LeaseId};

impl Registry {
    /// Moves a lease to another connection. Returns the previous owner, if the lease is held and the owner changed.
    pub(crate) fn change_owner(&mut self, id: LeaseId, owner: LaneId) -> Option<LaneId> {
        let before = self.entry(id).filter(|entry| entry.phase.is_held())?.owner;
        if before == owner {
            return None;
        }
        self.unchain(id.slot);
        if let Some(entry) = self.entry_mut(id) {
            entry.owner = owner;
        }
        self.chain(id.slot, owner);
        Some(before)
    }

    /// Returns how many leases of a connection are lost and not yet released.
    pub(crate) fn lost_of(&self, owner: LaneId) -> usize {
        let ids = self.owned_by(owner).into_iter();
        ids.filter(|id| self.phase(*id) == Some(Phase::Lost)).count()
    }

    /// Returns the leases of a connection, including lost ones.
    pub(super) fn owned_by(&self, owner: LaneId) -> Vec<LeaseId> {
        let mut ids = Vec::new();
        let mut next = self.owned.get(&owner).copied();
        while let Some(index) = next {
            let Some(slot) = self.slots.get(index) else {
                break;
            };
            ids.push(LeaseId {
                slot: index,
                generation: slot.generation,
            });
            next = slot.entry.as_ref().and_then(|entry| entry.behind.slot());
        }
        ids
    }

    /// Inserts the lease in a slot at the head of its owner's list.
    pub(super) fn chain(&mut self, slot: u32, owner: LaneId) {
        let behind = self.owned.insert(owner, slot);
        if let Some(entry) = behind.and_then(|slot| self.at(slot)) {
            entry.before = Neighbour::new(Some(slot));
        }
        if let Some(entry) = self.at(slot) {
            entry.before = Neighbour::default();
            entry.behind = Neighbour::new(behind);
        }
    }

    /// Removes the lease in a slot from its owner's list.
    pub(super) fn unchain(&mut self, slot: u32) {
        let Some((owner, before, behind)) = self.at(slot).map(|entry| (entry.owner, entry.before, entry.behind)) else {
            return;
        };
        if let Some(entry) = behind.slot().and_then(|slot| self.at(slot)) {
            entry.before = before;
        }
        match (before.slot(), behind.slot()) {
            (Some(before), _) => {
                if let Some(entry) = self.at(before) {
                    entry.behind = behind;
                }
            }
            (None, Some(behind)) => {
                self.owned.insert(owner, behind);
            }
            (None, None) => {
                self.owned.remove(&owner);
            }
        }
    }
}
