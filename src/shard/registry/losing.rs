//! Leases that are lost or suspect.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Claim, Phase, Registry};
use crate::clock::Moment;
use crate::events::{ClientEvent, LeaseLost};
use crate::lease::lost_keys::LostKeys;
use crate::lease::state::LostReason;
use crate::shard::ids::{LaneId, LeaseId};
use crate::types::Ttl;
use crate::unwind::catch;

/// How long the leases of a connection outlive its end if they are not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    /// Not at all.
    None,
    /// Until this instant, or until their TTL is over if that is earlier.
    Until(Instant),
    /// Until their TTL is over.
    WholeTtl,
}

impl Registry {
    /// Notes that the server restarted a lease with this TTL because of a request that was sent at `sent` over the
    /// connection `from`. Makes the lease overdue: a renewal must restore the TTL that its holder asked for, before
    /// `ttl` is over. Returns its previous owner.
    pub(crate) fn taken_back(&mut self, id: LeaseId, from: LaneId, sent: Moment, ttl: Ttl) -> Option<LaneId> {
        let until = self.schedule.deadline(self.seen(sent), ttl);
        self.suspect(id, Survival::Until(until));
        self.change_owner(id, from)
    }

    /// Reports a lease as lost, unless it is lost or released already. The entry stays until the guard is gone.
    pub(crate) fn lose(&mut self, id: LeaseId, why: LostReason, now: Instant) -> bool {
        if !self.is_held(id) {
            return false;
        }
        self.set_phase(id, Phase::Lost);
        self.disarm(id);
        let Some(entry) = self.entry_mut(id) else { return false };
        entry.cell.lose(why);
        let cell = Arc::clone(&entry.cell);
        tracing::debug!(key = %cell.key, kind = cell.kind.as_str(), token = %cell.token, reason = why.as_str(), "lease lost");
        self.metrics.lost(&cell, why, now);
        self.holdings.remove(cell.kind, &cell.key);
        self.events.tell(|shard| {
            ClientEvent::LeaseLost(LeaseLost {
                shard,
                key: cell.key.clone(),
                kind: cell.kind,
                fence: cell.fence(),
                reason: why,
            })
        });
        true
    }

    /// Handles the end of a connection. Its leases are lost. If they `survive`, they become suspect and overdue
    /// instead, and are lost only if no renewal over another connection succeeds before the survival ends. Returns the
    /// lost leases. Takes time in proportion to the leases of the connection.
    pub(crate) fn owner_gone(&mut self, owner: LaneId, survive: Survival, why: LostReason, now: Instant) -> Vec<Claim> {
        let mut held = self.owned_by(owner);
        held.retain(|id| self.is_held(*id));
        let mut lost = Vec::new();
        if survive != Survival::None {
            held.into_iter().for_each(|id| self.suspect(id, survive));
            return lost;
        }
        self.tell_holders(&held, why);
        for id in held {
            lost.extend(self.claim(id));
            self.lose(id, why, now);
        }
        lost
    }

    /// Marks all these leases as lost for their holders, before [`lose`](Self::lose) records and logs each one.
    /// Recording and logging run users' code, which may take time or panic. Meanwhile, no holder may rely on a lease
    /// that the server may grant to others.
    fn tell_holders(&self, held: &[LeaseId], why: LostReason) {
        let entries = held.iter().filter_map(|id| self.entry(*id));
        entries.for_each(|entry| entry.cell.lose(why));
    }

    /// Makes all held leases suspect and overdue, because the serving server or leader may have changed. The new one
    /// remembers the leases. A lease is lost if no renewal succeeds before the survival ends.
    pub(crate) fn suspect_all(&mut self, survive: Survival) {
        self.all_held().into_iter().for_each(|id| self.suspect(id, survive));
    }

    /// Makes a lease suspect and overdue: only a renewal shows that it is still held.
    fn suspect(&mut self, id: LeaseId, survive: Survival) {
        self.set_phase(id, Phase::Overdue);
        let (suspended, epoch) = (self.suspended, self.epoch);
        if let Some(entry) = self.entry_mut(id) {
            if let Survival::Until(until) = survive {
                entry.deadline = entry.deadline.min(epoch.stamp(until));
            }
            entry.cell.suspect(epoch.instant(entry.deadline), suspended);
        }
        self.arm(id);
    }

    /// Reports all held leases as lost and returns their keys.
    pub(crate) fn lose_all(&mut self, why: LostReason, now: Instant) -> LostKeys {
        let held = self.all_held();
        self.tell_holders(&held, why);
        let mut lost = LostKeys::default();
        for id in held {
            if self.lose(id, why, now) {
                self.entry(id).into_iter().for_each(|entry| lost.push(&entry.cell.key));
            }
        }
        lost
    }

    fn all_held(&self) -> Vec<LeaseId> {
        self.ids().filter(|id| self.is_held(*id)).collect()
    }

    /// Ends the registry of a shard that ends without a shutdown. Tells all holders that their leases are lost. Returns
    /// the keys.
    pub(crate) fn abandon(&mut self, now: Instant) -> LostKeys {
        let held = self.all_held();
        self.tell_holders(&held, LostReason::ShardGone);
        let mut lost = LostKeys::default();
        let entries = held.iter().filter_map(|id| self.entry(*id));
        entries.for_each(|entry| lost.push(&entry.cell.key));
        for id in held {
            drop(catch(|| self.lose(id, LostReason::ShardGone, now)));
        }
        lost
    }
}
