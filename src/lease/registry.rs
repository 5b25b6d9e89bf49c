//! All leases of one shard, in order of what is due next. Pure: the caller brings the clock and does the I/O.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cell::{LeaseCell, LostReason};
use super::holdings::Holdings;
use super::metrics::{LeaseMetrics, RenewalOutcome};
use super::schedule::{RenewRatio, Schedule};
use crate::clock::after;
use crate::types::{Grant, Key, Kind, Ttl};

/// Names a lease of one shard. Never used again for another lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId {
    slot: u32,
    generation: u32,
}

/// Which connection a lease was acquired over.
pub(crate) type LaneId = u64;

/// What is kept for each lease.
#[derive(Debug)]
struct Entry {
    cell: Arc<LeaseCell>,
    owner: LaneId,
    phase: Phase,
    /// No renewal is sent from then on.
    renew_until: Option<Instant>,
    /// Its own ratio, if it has one.
    renew_ratio: Option<RenewRatio>,
    renew_at: Instant,
    /// When it is over, as far as its last grant or renewal goes.
    ends: Instant,
    /// When it is reported lost: then, or sooner if it is in doubt.
    deadline: Instant,
    /// Its place in the timer.
    timer: Option<Instant>,
}

/// Where a lease stands between grant and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Held; the next renewal is in the future.
    Waiting,
    /// Held; a renewal is on its way.
    Renewing,
    /// Held; a renewal is due but there is no connection to send it over.
    Overdue,
    /// Lost; kept until its guard is gone, to give back what the server may still hold.
    Lost,
    /// On its way back to the server. Nothing is renewed and nothing is reported any more.
    Releasing,
}

impl Phase {
    /// Whether it is held, as far as is known.
    fn is_held(self) -> bool {
        !matches!(self, Self::Lost | Self::Releasing)
    }
}

/// How the leases of one acquire behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RenewPolicy {
    /// Do not renew at all.
    pub(crate) never: bool,
    /// Renew for so long, from the grant on.
    pub(crate) max_hold: Option<Duration>,
    /// Renew at another part of the TTL than the client's other leases.
    pub(crate) ratio: Option<RenewRatio>,
}

/// What a tick brings to light.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// To be renewed now.
    pub(crate) renew: Vec<LeaseId>,
    /// Reported lost just now.
    pub(crate) expired: usize,
}

/// The leases of one shard.
#[derive(Debug)]
pub(crate) struct Registry {
    schedule: Schedule,
    slots: Vec<Slot>,
    free: Vec<u32>,
    timer: BTreeSet<(Instant, LeaseId)>,
    holdings: Holdings,
    metrics: LeaseMetrics,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

/// What has to be told to a server to give a lease back or to renew it.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) cell: Arc<LeaseCell>,
    pub(crate) owner: LaneId,
}

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

impl Entry {
    fn renews(&self) -> bool {
        self.renew_until.is_none_or(|until| self.renew_at < until)
    }

    /// It must be renewed before it is sure that it is held.
    fn suspect(&mut self, survive: Survival) {
        self.phase = Phase::Overdue;
        if let Survival::Until(until) = survive {
            self.deadline = self.deadline.min(until);
        }
        self.cell.suspect(self.deadline);
    }
}

impl Registry {
    pub(crate) fn new(schedule: Schedule, metrics: LeaseMetrics) -> Self {
        Self {
            schedule,
            slots: Vec::new(),
            free: Vec::new(),
            timer: BTreeSet::new(),
            holdings: Holdings::default(),
            metrics,
        }
    }

    /// Takes up a lease that was got by a request sent at `sent_at` over the connection `owner`.
    pub(crate) fn insert(
        &mut self,
        key: Key,
        kind: Kind,
        grant: Grant,
        sent_at: Instant,
        owner: LaneId,
        policy: RenewPolicy,
    ) -> (LeaseId, Arc<LeaseCell>) {
        let deadline = self.schedule.deadline(sent_at, grant.ttl);
        let cell = Arc::new(LeaseCell::new(key, kind, grant, deadline));
        let renew_until = if policy.never {
            Some(sent_at)
        } else {
            policy.max_hold.map(|hold| after(sent_at, hold))
        };
        let entry = Entry {
            cell: Arc::clone(&cell),
            owner,
            phase: Phase::Waiting,
            renew_until,
            renew_ratio: policy.ratio,
            renew_at: self
                .schedule
                .renew_at(sent_at, grant.ttl, policy.ratio, fastrand::f64()),
            ends: deadline,
            deadline,
            timer: None,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                entry: None,
            });
            (self.slots.len() - 1) as u32
        });
        let place = &mut self.slots[slot as usize];
        place.entry = Some(entry);
        let id = LeaseId {
            slot,
            generation: place.generation,
        };
        self.metrics.taken(kind);
        self.holdings.add(kind, &cell.key);
        self.arm(id);
        (id, cell)
    }

    /// When something is due next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timer.first().map(|(when, _)| *when)
    }

    /// Reports as lost what has run out, and names what must be renewed. `connected`: whether renewals can be sent;
    /// where they cannot, they are kept for [`overdue`](Self::overdue). Renewals that are due within `together` are
    /// brought forward, so that they leave with the others.
    pub(crate) fn tick(&mut self, now: Instant, together: Duration, connected: bool) -> Due {
        let mut due = Due::default();
        let mut not_yet = Vec::new();
        while let Some((when, id)) = self.timer.first().copied() {
            if when > now + together {
                break;
            }
            self.timer.remove(&(when, id));
            let Some(entry) = self.entry_mut(id) else { continue };
            if entry.deadline <= now {
                self.lose(id, LostReason::Expired);
                due.expired += 1;
            } else if entry.phase == Phase::Waiting && entry.renews() {
                entry.phase = if connected { Phase::Renewing } else { Phase::Overdue };
                if connected {
                    due.renew.push(id);
                }
                self.arm(id);
            } else {
                // A deadline: never brought forward.
                not_yet.push((when, id));
            }
        }
        self.timer.extend(not_yet);
        due
    }

    /// The connection is back: names what must be renewed at once, the suspects among it.
    pub(crate) fn overdue(&mut self) -> Vec<LeaseId> {
        let ids: Vec<LeaseId> = self.ids().collect();
        ids.into_iter().filter(|id| self.begin_overdue(*id)).collect()
    }

    fn begin_overdue(&mut self, id: LeaseId) -> bool {
        match self.entry_mut(id) {
            Some(entry) if entry.phase == Phase::Overdue => {
                entry.phase = Phase::Renewing;
                true
            }
            _ => false,
        }
    }

    /// A renewal that was sent at `sent_at` succeeded; the server says that `left` is left of the lease.
    /// Changes nothing if the lease is not held any more.
    pub(crate) fn renewed(&mut self, id: LeaseId, sent_at: Instant, left: Option<u64>) {
        let schedule = self.schedule;
        let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase == Phase::Renewing) else {
            return;
        };
        let ttl = match granted_ttl(entry.cell.ttl, left) {
            Some(ttl) => ttl,
            None => return self.renewal_failed(id),
        };
        let (asked, left) = (entry.cell.ttl, entry.cell.remaining());
        entry.phase = Phase::Waiting;
        // One that is not to be renewed was only asked after: it ends when it was to end.
        if entry.renews() {
            entry.ends = schedule.deadline(sent_at, ttl);
            entry.renew_at = schedule.renew_at(sent_at, ttl, entry.renew_ratio, fastrand::f64());
        }
        entry.deadline = entry.ends;
        if entry.cell.extend(entry.deadline) {
            self.metrics.renewal(RenewalOutcome::Renewed { left, ttl: asked });
            self.arm(id);
        } else {
            self.metrics.renewal(RenewalOutcome::Unanswered);
            self.lose(id, LostReason::Expired);
        }
    }

    /// The server says that a lease whose renewal it was sent is not held. Whether that was news.
    pub(crate) fn renewal_rejected(&mut self, id: LeaseId) -> bool {
        self.metrics.renewal(RenewalOutcome::Rejected);
        self.lose(id, LostReason::Rejected)
    }

    /// A renewal was not answered, or refused for a reason that passes: it stays due.
    pub(crate) fn renewal_failed(&mut self, id: LeaseId) {
        self.metrics.renewal(RenewalOutcome::Unanswered);
        if let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase == Phase::Renewing) {
            entry.phase = Phase::Overdue;
            self.arm(id);
        }
    }

    /// A renewal was refused for now by a server that is there: try again after a pause, while the lease lasts.
    pub(crate) fn renew_again_at(&mut self, id: LeaseId, when: Instant) {
        if let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase == Phase::Renewing) {
            entry.phase = Phase::Waiting;
            entry.renew_at = when;
            self.metrics.renewal(RenewalOutcome::PutOff);
            self.arm(id);
        }
    }

    /// Reports a lease as lost, unless it is lost or given back already. The entry stays until its guard is gone.
    pub(crate) fn lose(&mut self, id: LeaseId, why: LostReason) -> bool {
        let Some(entry) = self.entry_mut(id) else { return false };
        if !entry.phase.is_held() {
            return false;
        }
        entry.phase = Phase::Lost;
        entry.cell.lose(why);
        let cell = Arc::clone(&entry.cell);
        tracing::debug!(key = %cell.key, kind = cell.kind.as_str(), token = %cell.token, reason = why.as_str(), "lease lost");
        self.metrics.lost(&cell, why);
        self.holdings.remove(cell.kind, &cell.key);
        self.disarm(id);
        true
    }

    /// A connection is gone. Its leases are either lost, or suspect until `overdue` has them renewed over another one, though no
    /// longer than they `survive`. Gives back what was lost.
    pub(crate) fn owner_gone(&mut self, owner: LaneId, survive: Survival, why: LostReason) -> Vec<Claim> {
        let ids: Vec<LeaseId> = self.ids().collect();
        let mut lost = Vec::new();
        for id in ids {
            let Some(entry) = self.entry_mut(id).filter(|entry| entry.owner == owner) else {
                continue;
            };
            if !entry.phase.is_held() {
                continue;
            }
            if survive == Survival::None {
                lost.extend(self.claim(id));
                self.lose(id, why);
            } else {
                entry.suspect(survive);
                self.arm(id);
            }
        }
        lost
    }

    /// All connections may have to be made anew, and the server remembers its leases: all that is held is suspect until
    /// `overdue` has it renewed, though no longer than it survives.
    pub(crate) fn suspect_all(&mut self, survive: Survival) {
        let ids: Vec<LeaseId> = self.ids().collect();
        for id in ids {
            if let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase.is_held()) {
                entry.suspect(survive);
                self.arm(id);
            }
        }
    }

    /// Reports everything that is held as lost: how much that was.
    pub(crate) fn lose_all(&mut self, why: LostReason) -> usize {
        let ids: Vec<LeaseId> = self.ids().collect();
        ids.into_iter().filter(|id| self.lose(*id, why)).count()
    }

    /// Brings the next renewal forward to now; if it cannot be sent, it is kept for [`overdue`](Self::overdue). Not where the
    /// lease is not to be renewed. Whether it is to be sent.
    pub(crate) fn renew_now(&mut self, id: LeaseId, connected: bool) -> bool {
        let Some(entry) = self
            .entry_mut(id)
            .filter(|entry| entry.phase == Phase::Waiting && entry.renews())
        else {
            return false;
        };
        entry.phase = if connected { Phase::Renewing } else { Phase::Overdue };
        self.arm(id);
        connected
    }

    /// Another connection owns a lease now. Which one did before, if that is another and the lease is held.
    pub(crate) fn change_owner(&mut self, id: LeaseId, owner: LaneId) -> Option<LaneId> {
        let entry = self.entry_mut(id).filter(|entry| entry.phase.is_held())?;
        let before = std::mem::replace(&mut entry.owner, owner);
        (before != owner).then_some(before)
    }

    /// Begins to give a lease back: from now on it is neither renewed nor reported.
    pub(crate) fn begin_release(&mut self, id: LeaseId) -> Option<Claim> {
        let entry = self.entry_mut(id)?;
        if entry.phase == Phase::Releasing {
            return None;
        }
        let was_held = entry.phase.is_held();
        entry.cell.release();
        entry.phase = Phase::Releasing;
        self.disarm(id);
        let claim = self.claim(id)?;
        if was_held {
            self.metrics.released(&claim.cell);
            self.holdings.remove(claim.cell.kind, &claim.cell.key);
        }
        Some(claim)
    }

    /// Forgets a lease.
    pub(crate) fn remove(&mut self, id: LeaseId) {
        self.disarm(id);
        let Some(slot) = self
            .slots
            .get_mut(id.slot as usize)
            .filter(|slot| slot.generation == id.generation)
        else {
            return;
        };
        let Some(entry) = slot.entry.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        if entry.phase.is_held() {
            self.metrics.released(&entry.cell);
            self.holdings.remove(entry.cell.kind, &entry.cell.key);
        }
    }

    /// A grant came when nobody waited for it any more, and is given back.
    pub(crate) fn orphaned(&mut self, kind: Kind) {
        self.metrics.orphan(kind);
    }

    /// What the server needs to hear about a lease.
    pub(crate) fn claim(&self, id: LeaseId) -> Option<Claim> {
        self.entry(id).map(|entry| Claim {
            cell: Arc::clone(&entry.cell),
            owner: entry.owner,
        })
    }

    /// Returns how many leases on a key are held (suspects included).
    pub(crate) fn own(&self, kind: Kind, key: &Key) -> u32 {
        self.holdings.count(kind, key)
    }

    /// How many leases are held (suspects included).
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        let entries = self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        entries.filter(|entry| entry.phase.is_held()).count()
    }

    /// All leases, the lost ones included.
    pub(crate) fn ids(&self) -> impl Iterator<Item = LeaseId> + '_ {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            slot.entry.as_ref().map(|_| LeaseId {
                slot: index as u32,
                generation: slot.generation,
            })
        })
    }

    fn entry(&self, id: LeaseId) -> Option<&Entry> {
        let slot = self.slots.get(id.slot as usize)?;
        slot.entry.as_ref().filter(|_| slot.generation == id.generation)
    }

    fn entry_mut(&mut self, id: LeaseId) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        let generation = slot.generation;
        slot.entry.as_mut().filter(|_| generation == id.generation)
    }

    /// Puts a held lease where it belongs in the timer.
    fn arm(&mut self, id: LeaseId) {
        self.disarm(id);
        let Some(entry) = self.entry_mut(id) else { return };
        let when = if entry.phase == Phase::Waiting && entry.renews() {
            entry.renew_at.min(entry.deadline)
        } else {
            entry.deadline
        };
        entry.timer = Some(when);
        self.timer.insert((when, id));
    }

    fn disarm(&mut self, id: LeaseId) {
        let armed = self.entry_mut(id).and_then(|entry| entry.timer.take());
        if let Some(when) = armed {
            self.timer.remove(&(when, id));
        }
    }
}

/// The lease that a renewal for `asked` brought, of which the server says that `left` seconds are left. Its word counts
/// where it gave less than it was asked for; but servers that round down (seen: the Python server 0.5.0) say one less
/// than they gave. Less than a second is as good as nothing.
fn granted_ttl(asked: Ttl, left: Option<u64>) -> Option<Ttl> {
    match left {
        Some(left) if left + 1 < asked.as_secs() => Ttl::from_secs(left),
        Some(_) | None => Some(asked),
    }
}

/// The actor died, or its runtime ended: nobody renews these any more, and their holders must know.
impl Drop for Registry {
    fn drop(&mut self) {
        let ids: Vec<LeaseId> = self.ids().collect();
        for id in ids {
            self.lose(id, LostReason::ShardGone);
        }
    }
}

#[cfg(test)]
mod tests;
