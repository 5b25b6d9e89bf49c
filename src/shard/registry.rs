//! All leases of one shard, in order of what is due next. Pure: the caller brings the clock and does the I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::holdings::Holdings;
use super::ids::{LaneId, LeaseId, WaitKey};
use crate::clock::{Moment, after, before};
use crate::lease::cell::{CellTimes, LeaseCell, LeaseState, LostReason};
use crate::lease::lost_keys::LostKeys;
use crate::lease::metrics::{LeaseMetrics, RenewalOutcome};
use crate::lease::policy::RenewPolicy;
use crate::lease::schedule::{RenewRatio, Schedule};
use crate::types::{Grant, Key, Kind, Target, Token, Ttl};
use crate::unwind::catch;

/// What is kept for each lease.
#[derive(Debug)]
struct LeaseEntry {
    cell: Arc<LeaseCell>,
    target: Target,
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
    /// Its neighbours among the leases of its owner.
    before: Option<u32>,
    behind: Option<u32>,
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

/// What a tick brings to light.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// To be renewed now.
    pub(crate) renew: Vec<LeaseId>,
    /// Reported lost just now.
    pub(crate) expired: LostKeys,
}

/// The leases of one shard.
///
/// Each change takes `now`: nothing here reads a clock.
#[derive(Debug)]
pub(crate) struct Registry {
    schedule: Schedule,
    slots: Vec<LeaseSlot>,
    free: Vec<u32>,
    timer: BTreeSet<(Instant, LeaseId)>,
    holdings: Holdings,
    /// Leases whose renewal is due and cannot be sent.
    overdue: BTreeSet<LeaseId>,
    /// The first slot of each connection's leases, which are chained through their entries: what the end of a connection
    /// costs is proportional to what it owned.
    owned: BTreeMap<LaneId, u32>,
    /// For how long the machine has been suspended, as far as was heard. All instants here are as they are seen after that.
    suspended: Duration,
    jitter: fastrand::Rng,
    metrics: LeaseMetrics,
}

#[derive(Debug)]
struct LeaseSlot {
    generation: u32,
    entry: Option<LeaseEntry>,
}

/// What has to be told to a server to give a lease back or to renew it.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) cell: Arc<LeaseCell>,
    pub(crate) target: Target,
    pub(crate) owner: LaneId,
}

/// When a grant was asked for, and when it was taken up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrantTimes {
    /// A moment before the request was given to the socket.
    pub(crate) sent_at: Moment,
    pub(crate) now: Instant,
}

/// What is known here of a lease, by its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Not,
    Held(LeaseId),
    /// It is lost, and its guard still there.
    Lost,
    /// It is on its way back.
    Releasing,
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

impl LeaseEntry {
    fn renews(&self) -> bool {
        self.renew_until.is_none_or(|until| self.renew_at < until)
    }
}

impl Registry {
    /// Creates an empty registry. `jitter` spreads the renewals.
    pub(crate) fn new(schedule: Schedule, jitter: fastrand::Rng, metrics: LeaseMetrics) -> Self {
        Self {
            schedule,
            slots: Vec::new(),
            free: Vec::new(),
            timer: BTreeSet::new(),
            holdings: Holdings::default(),
            overdue: BTreeSet::new(),
            owned: BTreeMap::new(),
            suspended: Duration::ZERO,
            jitter,
            metrics,
        }
    }

    /// Takes up a lease that was got by a request sent at `sent_at` over the connection `owner`.
    pub(crate) fn insert(
        &mut self,
        key: Key,
        target: Target,
        grant: Grant,
        times: GrantTimes,
        owner: LaneId,
        policy: RenewPolicy,
    ) -> (LeaseId, Arc<LeaseCell>) {
        let GrantTimes { sent_at: sent, now } = times;
        let sent_at = self.seen(sent);
        let kind = target.kind();
        let deadline = self.schedule.deadline(sent_at, grant.ttl);
        let times = CellTimes {
            got: self.moment(now),
            deadline,
            lost_when_suspended: self.schedule.lost_when_suspended(sent),
        };
        let cell = Arc::new(LeaseCell::new(key, kind, grant, times));
        let renew_until = if policy.never {
            Some(sent_at)
        } else {
            policy.max_hold.map(|hold| after(sent_at, hold))
        };
        let entry = LeaseEntry {
            cell: Arc::clone(&cell),
            target,
            owner,
            phase: Phase::Waiting,
            renew_until,
            renew_ratio: policy.ratio,
            renew_at: self
                .schedule
                .renew_at(sent_at, grant.ttl, policy.ratio, self.jitter.f64()),
            ends: deadline,
            deadline,
            timer: None,
            before: None,
            behind: None,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(LeaseSlot {
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
        self.chain(slot, owner);
        self.metrics.taken(kind);
        self.holdings.add(kind, &cell.key);
        self.arm(id);
        (id, cell)
    }

    /// An instant of now as a moment.
    pub(crate) fn moment(&self, now: Instant) -> Moment {
        Moment {
            at: now,
            suspended: self.suspended,
        }
    }

    /// A moment as an instant, as it is seen now.
    pub(crate) fn seen(&self, moment: Moment) -> Instant {
        moment.seen_after(self.suspended)
    }

    /// The machine has been suspended for so long by now. Everything that was due is due sooner by what is new of that. What was lost
    /// meanwhile is due at once.
    pub(crate) fn note_suspended(&mut self, suspended: Duration, now: Instant) {
        let Some(since) = suspended.checked_sub(self.suspended).filter(|since| !since.is_zero()) else {
            return;
        };
        self.suspended = suspended;
        let moment = self.moment(now);
        let ids: Vec<LeaseId> = self.ids().collect();
        for id in ids {
            let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase.is_held()) else {
                continue;
            };
            entry.renew_at = before(entry.renew_at, since);
            entry.ends = before(entry.ends, since);
            entry.deadline = before(entry.deadline, since);
            entry.renew_until = entry.renew_until.map(|until| before(until, since));
            if let LeaseState::Lost(_) = entry.cell.state_at(moment) {
                entry.deadline = entry.deadline.min(now);
            }
            self.arm(id);
        }
    }

    /// When something is due next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timer.first().map(|(when, _)| *when)
    }

    /// Reports as lost what has run out, and names what must be renewed. `connected`: whether renewals can be sent;
    /// where they cannot, they are kept for [`take_overdue`](Self::take_overdue). Renewals that are due within `together` are
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
                let key = entry.cell.key.clone();
                self.lose(id, LostReason::Expired, now);
                due.expired.push(&key);
            } else if entry.phase == Phase::Waiting && entry.renews() {
                self.set_phase(id, if connected { Phase::Renewing } else { Phase::Overdue });
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

    /// There is a connection again: names what must be renewed at once, the suspects among it.
    pub(crate) fn take_overdue(&mut self) -> Vec<LeaseId> {
        let ids: Vec<LeaseId> = std::mem::take(&mut self.overdue).into_iter().collect();
        for id in &ids {
            self.set_phase(*id, Phase::Renewing);
        }
        ids
    }

    /// A renewal that was sent at `sent_at` over the connection `from` succeeded; the server says that `left` is left of the lease.
    /// Changes nothing if the lease is not held any more. Returns whether the lease goes on.
    pub(crate) fn renewed(&mut self, id: LeaseId, from: LaneId, sent: Moment, left: Option<u64>, now: Instant) -> bool {
        let (schedule, sent_at, now) = (self.schedule, self.seen(sent), self.moment(now));
        let random = self.jitter.f64();
        let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase == Phase::Renewing) else {
            return false;
        };
        let Some(ttl) = granted_ttl(entry.cell.ttl, left) else {
            self.renewal_failed(id);
            return false;
        };
        let (asked, left) = (entry.cell.ttl, entry.cell.remaining_at(now));
        entry.phase = Phase::Waiting;
        // A lease that is not renewed keeps its end: this was a probe.
        if entry.renews() {
            entry.ends = schedule.deadline(sent_at, ttl);
            entry.renew_at = schedule.renew_at(sent_at, ttl, entry.renew_ratio, random);
        }
        entry.deadline = entry.ends;
        // The connection that owns it stood when this was sent. Of others that says nothing.
        if entry.owner == from {
            entry.cell.stood(schedule.lost_when_suspended(sent));
        }
        let goes_on = entry.cell.extend(entry.deadline, now);
        if goes_on {
            self.metrics.renewal(RenewalOutcome::Renewed { left, ttl: asked });
            self.arm(id);
        } else {
            self.metrics.renewal(RenewalOutcome::Unanswered);
            self.lose(id, LostReason::Expired, now.at);
        }
        goes_on
    }

    /// The server says that a lease whose renewal it was sent is not held. Returns whether that was news.
    pub(crate) fn renewal_rejected(&mut self, id: LeaseId, now: Instant) -> bool {
        self.metrics.renewal(RenewalOutcome::Rejected);
        self.lose(id, LostReason::Rejected, now)
    }

    /// A renewal was not answered, or refused for a reason that passes: it stays due.
    pub(crate) fn renewal_failed(&mut self, id: LeaseId) {
        self.metrics.renewal(RenewalOutcome::Unanswered);
        if self.phase(id) == Some(Phase::Renewing) {
            self.set_phase(id, Phase::Overdue);
            self.arm(id);
        }
    }

    /// A renewal was refused for now by a server that is there: try again after a pause, while the lease lasts.
    pub(crate) fn retry_renewal_at(&mut self, id: LeaseId, when: Instant) {
        if let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase == Phase::Renewing) {
            entry.phase = Phase::Waiting;
            entry.renew_at = when;
            self.metrics.renewal(RenewalOutcome::PutOff);
            self.arm(id);
        }
    }

    /// Reports a lease as lost, unless it is lost or given back already. The entry stays until its guard is gone.
    pub(crate) fn lose(&mut self, id: LeaseId, why: LostReason, now: Instant) -> bool {
        if !self.phase(id).is_some_and(Phase::is_held) {
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
        true
    }

    /// A connection is gone. Its leases are either lost, or suspect until `take_overdue` has them renewed over another one,
    /// though no longer than they `survive`. Returns what was lost. Costs as much as the connection owned.
    pub(crate) fn owner_gone(&mut self, owner: LaneId, survive: Survival, why: LostReason, now: Instant) -> Vec<Claim> {
        let mut lost = Vec::new();
        for id in self.owned_by(owner) {
            if !self.phase(id).is_some_and(Phase::is_held) {
                continue;
            }
            if survive == Survival::None {
                lost.extend(self.claim(id));
                self.lose(id, why, now);
            } else {
                self.suspect(id, survive);
            }
        }
        lost
    }

    /// All connections may have to be made anew, and the server remembers its leases: all that is held is suspect until
    /// `take_overdue` has it renewed, though no longer than it survives.
    pub(crate) fn suspect_all(&mut self, survive: Survival) {
        let ids: Vec<LeaseId> = self.ids().collect();
        for id in ids {
            if self.phase(id).is_some_and(Phase::is_held) {
                self.suspect(id, survive);
            }
        }
    }

    /// A lease must be renewed before it is sure that it is held.
    fn suspect(&mut self, id: LeaseId, survive: Survival) {
        self.set_phase(id, Phase::Overdue);
        let suspended = self.suspended;
        if let Some(entry) = self.entry_mut(id) {
            if let Survival::Until(until) = survive {
                entry.deadline = entry.deadline.min(until);
            }
            entry.cell.suspect(entry.deadline, suspended);
        }
        self.arm(id);
    }

    /// Reports everything that is held as lost. Returns what that was.
    pub(crate) fn lose_all(&mut self, why: LostReason, now: Instant) -> LostKeys {
        let mut lost = LostKeys::default();
        let ids: Vec<LeaseId> = self.ids().collect();
        for id in ids {
            if self.lose(id, why, now) {
                self.entry(id).into_iter().for_each(|entry| lost.push(&entry.cell.key));
            }
        }
        lost
    }

    /// The shard ends without having been shut down: these leases are kept no more, and their holders are told. Returns what was lost.
    pub(crate) fn abandon(&mut self, now: Instant) -> LostKeys {
        let ids: Vec<LeaseId> = self.ids().collect();
        let entries = self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        // First the holders: what is recorded and logged below runs users' code, which may panic.
        let mut lost = LostKeys::default();
        for entry in entries.filter(|entry| entry.phase.is_held()) {
            entry.cell.lose(LostReason::ShardGone);
            lost.push(&entry.cell.key);
        }
        for id in ids {
            drop(catch(|| self.lose(id, LostReason::ShardGone, now)));
        }
        lost
    }

    /// Brings the next renewal forward to now; if it cannot be sent, it is kept for [`take_overdue`](Self::take_overdue). Not
    /// where the lease is not renewed. Returns whether to send it.
    pub(crate) fn renew_now(&mut self, id: LeaseId, connected: bool) -> bool {
        if !self
            .entry(id)
            .is_some_and(|entry| entry.phase == Phase::Waiting && entry.renews())
        {
            return false;
        }
        self.set_phase(id, if connected { Phase::Renewing } else { Phase::Overdue });
        self.arm(id);
        connected
    }

    /// Another connection owns a lease now. Returns the one that did before, if that is another and the lease is held.
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

    /// Begins to give a lease back: from now on it is neither renewed nor reported.
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

    /// Whether a lease is being given back.
    pub(crate) fn is_on_its_way_back(&self, id: LeaseId) -> bool {
        self.phase(id) == Some(Phase::Releasing)
    }

    /// Forgets a lease.
    pub(crate) fn remove(&mut self, id: LeaseId, now: Instant) {
        if self.entry(id).is_none() {
            return;
        }
        self.disarm(id);
        self.overdue.remove(&id);
        self.unchain(id.slot);
        let slot = &mut self.slots[id.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        if let Some(entry) = slot.entry.take().filter(|entry| entry.phase.is_held()) {
            self.metrics.released(&entry.cell, now);
            self.holdings.remove(entry.cell.kind, &entry.cell.key);
        }
    }

    /// A grant came when no caller waited for it any more, and is given back.
    pub(crate) fn orphaned(&mut self, kind: Kind) {
        self.metrics.orphan(kind);
    }

    /// What the server needs to hear about a lease.
    pub(crate) fn claim(&self, id: LeaseId) -> Option<Claim> {
        self.entry(id).map(|entry| Claim {
            cell: Arc::clone(&entry.cell),
            target: entry.target,
            owner: entry.owner,
        })
    }

    /// Returns the keys of leases that are on their way back.
    pub(crate) fn releasing(&self) -> impl Iterator<Item = Key> + '_ {
        let entries = self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        let releasing = entries.filter(|entry| entry.phase == Phase::Releasing);
        releasing.map(|entry| entry.cell.key.clone())
    }

    /// Returns how many leases on a key are held (suspects included).
    pub(crate) fn own(&self, kind: Kind, key: &Key) -> u32 {
        self.holdings.count(kind, key)
    }

    /// Whether all that can be held of a key is held here, so that no server can grant it before it is released.
    pub(crate) fn holds_all_of(&self, key: &WaitKey) -> bool {
        let limit = match key.0 {
            Target::Lock => 1,
            Target::Semaphore(limit) => limit.get(),
        };
        self.own(key.0.kind(), &key.1) >= limit
    }

    /// How many leases are held (suspects included).
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        let entries = self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        entries.filter(|entry| entry.phase.is_held()).count()
    }

    /// How many leases are counted to keys.
    #[cfg(test)]
    pub(crate) fn held_by_key(&self) -> usize {
        self.holdings.len()
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

    /// What is known of the lease of a token. Looks at all leases.
    pub(crate) fn know(&self, kind: Kind, key: &Key, token: &Token) -> Known {
        let is_it = |id: &LeaseId| {
            self.entry(*id).is_some_and(|entry| {
                let cell = &entry.cell;
                (cell.kind, &cell.key, &cell.token) == (kind, key, token)
            })
        };
        match self.ids().find(is_it).map(|id| (id, self.phase(id))) {
            None | Some((_, None)) => Known::Not,
            Some((_, Some(Phase::Lost))) => Known::Lost,
            Some((_, Some(Phase::Releasing))) => Known::Releasing,
            Some((id, Some(_))) => Known::Held(id),
        }
    }

    /// The server has begun a lease anew with this TTL, by a request that was sent at `sent` over the connection `from`: it must be renewed
    /// with its own, before that is over. Returns the connection that owned it.
    pub(crate) fn taken_back(&mut self, id: LeaseId, from: LaneId, sent: Moment, ttl: Ttl) -> Option<LaneId> {
        let until = self.schedule.deadline(self.seen(sent), ttl);
        self.suspect(id, Survival::Until(until));
        self.change_owner(id, from)
    }

    /// How many leases of one connection are lost, and not given back yet.
    pub(crate) fn lost_of(&self, owner: LaneId) -> usize {
        let ids = self.owned_by(owner).into_iter();
        ids.filter(|id| self.phase(*id) == Some(Phase::Lost)).count()
    }

    /// The leases of one connection, the lost ones included.
    fn owned_by(&self, owner: LaneId) -> Vec<LeaseId> {
        let mut ids = Vec::new();
        let mut next = self.owned.get(&owner).copied();
        while let Some(index) = next {
            let Some(slot) = self.slots.get(index as usize) else {
                break;
            };
            ids.push(LeaseId {
                slot: index,
                generation: slot.generation,
            });
            next = slot.entry.as_ref().and_then(|entry| entry.behind);
        }
        ids
    }

    /// Puts the lease in a slot in front of those of its owner.
    fn chain(&mut self, slot: u32, owner: LaneId) {
        let behind = self.owned.insert(owner, slot);
        if let Some(entry) = behind.and_then(|slot| self.at(slot)) {
            entry.before = Some(slot);
        }
        if let Some(entry) = self.at(slot) {
            entry.before = None;
            entry.behind = behind;
        }
    }

    /// Takes the lease in a slot out of the chain of its owner.
    fn unchain(&mut self, slot: u32) {
        let Some((owner, before, behind)) = self.at(slot).map(|entry| (entry.owner, entry.before, entry.behind)) else {
            return;
        };
        if let Some(entry) = behind.and_then(|slot| self.at(slot)) {
            entry.before = before;
        }
        match (before, behind) {
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

    fn at(&mut self, slot: u32) -> Option<&mut LeaseEntry> {
        self.slots.get_mut(slot as usize)?.entry.as_mut()
    }

    fn entry(&self, id: LeaseId) -> Option<&LeaseEntry> {
        let slot = self.slots.get(id.slot as usize)?;
        slot.entry.as_ref().filter(|_| slot.generation == id.generation)
    }

    fn entry_mut(&mut self, id: LeaseId) -> Option<&mut LeaseEntry> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        let generation = slot.generation;
        slot.entry.as_mut().filter(|_| generation == id.generation)
    }

    fn phase(&self, id: LeaseId) -> Option<Phase> {
        self.entry(id).map(|entry| entry.phase)
    }

    /// Changes the phase, and with it whether the lease is among the overdue.
    fn set_phase(&mut self, id: LeaseId, phase: Phase) {
        let Some(entry) = self.entry_mut(id) else { return };
        let before = std::mem::replace(&mut entry.phase, phase);
        if phase == Phase::Overdue {
            self.overdue.insert(id);
        } else if before == Phase::Overdue {
            self.overdue.remove(&id);
        }
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
pub(super) fn granted_ttl(asked: Ttl, left: Option<u64>) -> Option<Ttl> {
    match left {
        Some(left) if left + 1 < asked.as_secs() => Ttl::from_secs(left),
        Some(_) | None => Some(asked),
    }
}

#[cfg(test)]
mod tests;
