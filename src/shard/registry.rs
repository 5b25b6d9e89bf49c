//! All leases of one shard, ordered by the time at which each is next due. Pure: the caller provides the time and does
//! the I/O.

mod entry;
mod losing;
mod owners;
mod releasing;
mod renewing;
mod slots;
mod stamp;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::entry::{LeaseEntry, Neighbour, Phase, Terms};
pub(crate) use self::losing::Survival;
pub(crate) use self::releasing::Claim;
pub(super) use self::renewing::granted_ttl;
use self::slots::Slots;
use self::stamp::{Epoch, Stamp};
use super::holdings::Holdings;
use super::ids::{LaneId, LeaseId, WaitKey};
use crate::clock::{Moment, after};
use crate::events::ShardEvents;
use crate::lease::cell::{CellTimes, LeaseCell};
use crate::lease::lost_keys::LostKeys;
use crate::lease::metrics::LeaseMetrics;
use crate::lease::policy::RenewTerms;
use crate::lease::schedule::Schedule;
use crate::lease::state::{LeaseState, LostReason};
use crate::types::{Grant, Key, Kind, Target, Token};

/// Which renewals are sent together with one that is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batching {
    /// Renewals that become due within this duration.
    pub(crate) within: Duration,
    /// The maximum number of renewals in one batch, because callers' requests wait behind the batch. Renewals that are
    /// due already are always included, even if there are more.
    pub(crate) most: usize,
}

/// The result of a tick.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// The leases to renew now.
    pub(crate) renew: Vec<LeaseId>,
    /// The leases that this tick reported as lost.
    pub(crate) expired: LostKeys,
}

/// The leases of one shard.
///
/// Methods that depend on the time take `now`: the registry reads no clock.
#[derive(Debug)]
pub(crate) struct Registry {
    schedule: Schedule,
    slots: Slots,
    free: Vec<u32>,
    /// The origin of its stamps.
    epoch: Epoch,
    timer: BTreeSet<(Stamp, LeaseId)>,
    holdings: Holdings,
    /// The leases whose renewal is due and cannot be sent.
    overdue: BTreeSet<LeaseId>,
    /// For each connection, the first slot in the list of its leases. Each entry links to its neighbours in the list.
    /// So the end of a connection takes time in proportion to its own leases, not to all leases.
    owned: BTreeMap<LaneId, u32>,
    /// In clusters, the lease of each token.
    tokens: Option<HashMap<Token, LeaseId>>,
    /// The total time for which the machine was suspended, as of the last call of
    /// [`note_suspended`](Self::note_suspended). All stored instants take it into account.
    suspended: Duration,
    jitter: fastrand::Rng,
    metrics: LeaseMetrics,
    events: ShardEvents,
}

/// When a grant was requested, and when it was registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrantTimes {
    /// A moment before the request was passed to the socket.
    pub(crate) sent_at: Moment,
    pub(crate) now: Instant,
}

/// What the registry knows about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Not,
    Held(LeaseId),
    /// Its lease is lost, and its guard still exists.
    Lost,
    /// Its lease is being released.
    Releasing,
}

impl Registry {
    /// Creates an empty registry. `jitter` spreads the renewals.
    pub(crate) fn new(schedule: Schedule, jitter: fastrand::Rng, metrics: LeaseMetrics, now: Instant) -> Self {
        Self {
            schedule,
            slots: Slots::default(),
            free: Vec::new(),
            epoch: Epoch(now),
            timer: BTreeSet::new(),
            holdings: Holdings::default(),
            overdue: BTreeSet::new(),
            owned: BTreeMap::new(),
            tokens: None,
            suspended: Duration::ZERO,
            jitter,
            metrics,
            events: ShardEvents::default(),
        }
    }

    /// Makes the registry report lost leases through `events`.
    pub(crate) fn tell(&mut self, events: ShardEvents) {
        self.events = events;
    }

    /// Returns this registry. With `in_cluster`, it remembers tokens for [`know`](Self::know).
    pub(crate) fn remembering_tokens(mut self, in_cluster: bool) -> Self {
        self.tokens = in_cluster.then(HashMap::new);
        self
    }

    /// Registers a lease that was granted to a request sent at `times.sent_at` over the connection `owner`.
    pub(crate) fn insert(
        &mut self,
        key: Key,
        target: Target,
        grant: Grant,
        times: GrantTimes,
        owner: LaneId,
        policy: RenewTerms,
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
        let terms = (renew_until.is_some() || policy.pace.is_some()).then(|| {
            Box::new(Terms {
                renew_until: renew_until.map(|until| self.epoch.stamp(until)),
                pace: policy.pace,
            })
        });
        let random = self.jitter.f64();
        let renew_at = self.schedule.renew_at(sent_at, grant.ttl, policy.pace, random);
        let ends = self.epoch.stamp(deadline);
        let entry = LeaseEntry {
            cell: Arc::clone(&cell),
            target,
            owner,
            phase: Phase::Waiting,
            terms,
            renew_at: self.epoch.stamp(renew_at),
            ends,
            deadline: ends,
            timer: None,
            before: Neighbour::default(),
            behind: Neighbour::default(),
        };
        let slot = self.free.pop().unwrap_or_else(|| self.slots.add());
        let mut id = LeaseId { slot, generation: 0 };
        if let Some(position) = self.slots.get_mut(slot) {
            position.entry = Some(entry);
            id.generation = position.generation;
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.insert(grant.token, id);
        }
        self.chain(slot, owner);
        self.metrics.taken(kind);
        self.holdings.add(kind, &cell.key);
        self.arm(id);
        (id, cell)
    }

    /// Returns the moment that is now: the instant `now`, and the total suspended time.
    pub(crate) fn moment(&self, now: Instant) -> Moment {
        Moment {
            at: now,
            suspended: self.suspended,
        }
    }

    /// Returns what is known about the lease with this token. Always `Not` outside of clusters, because only clusters
    /// give a token twice.
    pub(crate) fn know(&self, token: &Token) -> Known {
        let id = self.tokens.as_ref().and_then(|tokens| tokens.get(token).copied());
        match id.map(|id| (id, self.phase(id))) {
            None | Some((_, None)) => Known::Not,
            Some((_, Some(Phase::Lost))) => Known::Lost,
            Some((_, Some(Phase::Releasing))) => Known::Releasing,
            Some((id, Some(_))) => Known::Held(id),
        }
    }

    /// Converts a moment to an instant of the current clock, given all suspends so far.
    pub(crate) fn seen(&self, moment: Moment) -> Instant {
        moment.seen_after(self.suspended)
    }

    /// Notes the total time for which the machine was suspended. Each renewal and deadline becomes due earlier by the
    /// increase. A lease that was lost during the suspend becomes due now.
    pub(crate) fn note_suspended(&mut self, suspended: Duration, now: Instant) {
        let Some(since) = suspended.checked_sub(self.suspended).filter(|since| !since.is_zero()) else {
            return;
        };
        self.suspended = suspended;
        let (moment, now) = (self.moment(now), self.epoch.stamp(now));
        let ids: Vec<LeaseId> = self.ids().collect();
        for id in ids {
            let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase.is_held()) else {
                continue;
            };
            entry.renew_at = entry.renew_at.earlier_by(since);
            entry.ends = entry.ends.earlier_by(since);
            entry.deadline = entry.deadline.earlier_by(since);
            if let Some(terms) = &mut entry.terms {
                terms.renew_until = terms.renew_until.map(|until| until.earlier_by(since));
            }
            if let LeaseState::Lost(_) = entry.cell.state_at(moment) {
                entry.deadline = entry.deadline.min(now);
            }
            self.arm(id);
        }
    }

    /// Returns when something is due next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timer.first().map(|(when, _)| self.epoch.instant(*when))
    }

    /// Reports expired leases as lost, and returns the leases to renew. Unless `connected`, renewals are kept for
    /// [`take_overdue`](Self::take_overdue). Brings forward some renewals that are due soon, so that they are sent with
    /// the others.
    pub(crate) fn tick(&mut self, now: Instant, batching: Batching, connected: bool) -> Due {
        let mut due = Due::default();
        let mut not_yet = Vec::new();
        let (until, at) = (self.epoch.stamp(now + batching.within), self.epoch.stamp(now));
        while let Some((when, id)) = self.timer.first().copied() {
            if when > until || when > at && due.renew.len() >= batching.most {
                break;
            }
            self.timer.remove(&(when, id));
            let Some(entry) = self.entry_mut(id) else { continue };
            if entry.deadline <= at {
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
                // This is a deadline, and deadlines are not brought forward.
                not_yet.push((when, id));
            }
        }
        self.timer.extend(not_yet);
        due
    }

    /// Removes and returns the leases to renew at once, including suspect ones, after a reconnect.
    pub(crate) fn take_overdue(&mut self) -> Vec<LeaseId> {
        let ids: Vec<LeaseId> = std::mem::take(&mut self.overdue).into_iter().collect();
        for id in &ids {
            self.set_phase(*id, Phase::Renewing);
        }
        ids
    }

    /// Returns how many leases on a key this client holds, including suspect ones.
    pub(crate) fn own(&self, kind: Kind, key: &Key) -> u32 {
        self.holdings.count(kind, key)
    }

    /// Whether this client holds the key's lock or all its slots, so that no server can grant the key before this
    /// client releases it.
    pub(crate) fn holds_all_of(&self, key: &WaitKey) -> bool {
        let limit = match key.0 {
            Target::Lock => 1,
            Target::Semaphore(limit) => limit.get(),
        };
        self.own(key.0.kind(), &key.1) >= limit
    }

    /// Returns how many leases are held, including suspect ones.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        let entries = self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        entries.filter(|entry| entry.phase.is_held()).count()
    }

    /// Returns how many keys are held.
    #[cfg(test)]
    pub(crate) fn held_by_key(&self) -> usize {
        self.holdings.len()
    }

    /// Whether a lease is neither lost nor released, as far as the registry knows.
    pub(crate) fn is_held(&self, id: LeaseId) -> bool {
        self.phase(id).is_some_and(Phase::is_held)
    }

    /// Returns all leases, including lost ones.
    pub(crate) fn ids(&self) -> impl Iterator<Item = LeaseId> + '_ {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            slot.entry.as_ref().map(|_| LeaseId {
                slot: index as u32,
                generation: slot.generation,
            })
        })
    }

    fn at(&mut self, slot: u32) -> Option<&mut LeaseEntry> {
        self.slots.get_mut(slot)?.entry.as_mut()
    }

    fn entry(&self, id: LeaseId) -> Option<&LeaseEntry> {
        let slot = self.slots.get(id.slot)?;
        slot.entry.as_ref().filter(|_| slot.generation == id.generation)
    }

    fn entry_mut(&mut self, id: LeaseId) -> Option<&mut LeaseEntry> {
        let slot = self.slots.get_mut(id.slot)?;
        let generation = slot.generation;
        slot.entry.as_mut().filter(|_| generation == id.generation)
    }

    fn phase(&self, id: LeaseId) -> Option<Phase> {
        self.entry(id).map(|entry| entry.phase)
    }

    /// Changes a lease's phase, and updates the set of overdue leases.
    fn set_phase(&mut self, id: LeaseId, phase: Phase) {
        let Some(entry) = self.entry_mut(id) else { return };
        let before = std::mem::replace(&mut entry.phase, phase);
        if phase == Phase::Overdue {
            self.overdue.insert(id);
        } else if before == Phase::Overdue {
            self.overdue.remove(&id);
        }
    }

    /// Puts a held lease into the timer.
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

#[cfg(test)]
mod tests;
