//! Leases that are lost, or in doubt.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Claim, Phase, Registry};
use crate::clock::Moment;
use crate::events::{ClientEvent, LeaseLost};
use crate::lease::cell::LostReason;
use crate::lease::lost_keys::LostKeys;
use crate::shard::ids::{LaneId, LeaseId};
use crate::types::Ttl;
use crate::unwind::catch;

/// How long the leases of a connection outlive its end, if nothing is heard of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    /// Not at all.
    None,
    /// Until then, or to the end of their TTL if that is sooner: when the server must have given them up.
    Until(Instant),
    /// To the end of their TTL.
    WholeTtl,
}

impl Registry {
    /// The server has begun a lease anew with this TTL, by a request that was sent at `sent` over the connection `from`: it must be renewed
    /// with its own, before that is over. Returns the connection that owned it.
    pub(crate) fn taken_back(&mut self, id: LeaseId, from: LaneId, sent: Moment, ttl: Ttl) -> Option<LaneId> {
        let until = self.schedule.deadline(self.seen(sent), ttl);
        self.suspect(id, Survival::Until(until));
        self.change_owner(id, from)
    }

    /// Reports a lease as lost, unless it is lost or given back already. The entry stays until its guard is gone.
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

    /// A connection is gone. Its leases are either lost, or suspect until `take_overdue` has them renewed over another one,
    /// though no longer than they `survive`. Returns what was lost. Costs as much as the connection owned.
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

    /// Tells the holders of all of them, before [`lose`](Self::lose) records and logs each: that runs users' code, which may take its time, or
    /// panic, and no holder may believe in a lease meanwhile that the server gives to another.
    fn tell_holders(&self, held: &[LeaseId], why: LostReason) {
        let entries = held.iter().filter_map(|id| self.entry(*id));
        entries.for_each(|entry| entry.cell.lose(why));
    }

    /// All connections may have to be made anew, and the server remembers its leases: all that is held is suspect until
    /// `take_overdue` has it renewed, though no longer than it survives.
    pub(crate) fn suspect_all(&mut self, survive: Survival) {
        self.all_held().into_iter().for_each(|id| self.suspect(id, survive));
    }

    /// A lease must be renewed before it is sure that it is held.
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

    /// Reports everything that is held as lost. Returns what that was.
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

    /// The shard ends without having been shut down: these leases are kept no more, and their holders are told. Returns what was lost.
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
