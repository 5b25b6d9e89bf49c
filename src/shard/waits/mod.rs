//! Who waits for what, and what waits for it on the server. Pure: the caller brings the clock and does the I/O.
//!
//! A wait blocks its connection, so connections are scarce and callers may be many. They are kept apart:
//!
//! - **Callers** of a key stand in order of arrival. A grant goes to the first of them, whichever request brought it.
//! - **Server waits** are the `l` that block on the server, each on a connection. They belong to no caller in particular. A key
//!   gets as many as it has callers, up to a bound. When a caller goes away, its server wait serves the next: so a
//!   position in the server's queue is passed on, and is given up only when no caller has wanted it for a while.
//! - A key whose callers have no server wait is **tried** now and then over a pipelined connection ([`tries`]), so that it is
//!   had soon after it is free, however many other waits there are.
//! - **Tickets** are callers that want a queue position of their own. Each takes a connection.
//! - What waited in a session, and lost its connection, is **bound**: it needs a connection in that session.
//!
//! The next connection goes to a key of whose callers one holds other leases meanwhile, since other callers may wait for
//! those; then to a key without a server wait; then to the others, and to keys that this client holds itself, which only
//! it can release. Within each of these groups it is first come, first served.

mod claims;
mod cleaning;
mod kinds;
mod queue;
mod rate;
mod tries;

use std::collections::hash_map::Entry as KeyEntry;
use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

pub(crate) use self::cleaning::KEPT_UNCLAIMED;
pub(crate) use self::kinds::{Bound, Lack, Occupant, Start, Urgency, Waiter};
use self::queue::{Figures, KeyQueue};
pub(crate) use self::rate::{Lingering, TokenBucket};
use self::tries::TryTimes;
use super::ids::{Arrival, WaitKey};

/// Fewer waits than this are not worth looking through for callers that are gone.
const CLEAN_AT_LEAST: usize = 1024;

/// The waits of one shard.
#[derive(Debug)]
pub(crate) struct Waits<W> {
    keys: HashMap<WaitKey, KeyQueue<W>>,
    /// Of each key that could use one more connection: its next, by urgency and arrival.
    ready: BTreeMap<(Urgency, Arrival), WaitKey>,
    /// Of each key: the first that is bound.
    bound: BTreeMap<Arrival, WaitKey>,
    tries: TryTimes,
    next_arrival: Arrival,
    most_per_key: usize,
    /// Why those have no connection that have none.
    lack: Lack,
    /// Sums over all keys.
    startable: usize,
    local: usize,
    at_server: usize,
    /// So many waits, the gone included, are looked through for those that are gone.
    clean_at: usize,
}

impl<W: Waiter> Waits<W> {
    /// `most_per_key`: how many connections a key may occupy. `seed`: what sets the times of its tries apart from those of other
    /// clients.
    pub(crate) fn new(most_per_key: usize, seed: u64) -> Self {
        Self {
            keys: HashMap::new(),
            ready: BTreeMap::new(),
            bound: BTreeMap::new(),
            tries: TryTimes::new(seed),
            next_arrival: 0,
            most_per_key: most_per_key.max(1),
            lack: Lack::NotEstablished,
            startable: 0,
            local: 0,
            at_server: 0,
            clean_at: CLEAN_AT_LEAST,
        }
    }

    /// A caller waits, behind all others. `holding`: it holds other leases of this client meanwhile. `ours`: this client holds all
    /// that can be held of the key.
    pub(crate) fn push(&mut self, key: WaitKey, wait: W, holding: bool, ours: bool, now: Instant) {
        let entry = self.enter(None, wait, holding);
        self.change(key, now, |queue| {
            queue.set_ours(ours);
            queue.push_caller(entry);
        });
        self.clean_if_many(now);
    }

    /// A caller wants a ticket. `arrival`: where it stood before, if it did; otherwise it stands behind all others.
    pub(crate) fn push_ticket(&mut self, key: WaitKey, arrival: Option<Arrival>, wait: W, now: Instant) {
        let entry = self.enter(arrival, wait, false);
        self.change(key, now, |queue| queue.push_ticket(entry));
        self.clean_if_many(now);
    }

    /// Something must be sent again in its session. `arrival`: where it stood before, if it did.
    pub(crate) fn push_bound(
        &mut self,
        key: WaitKey,
        arrival: Option<Arrival>,
        wait: W,
        occupant: Occupant,
        now: Instant,
    ) {
        let arrival = arrival.unwrap_or_else(|| self.take_arrival());
        self.change(key, now, |queue| queue.push_bound(arrival, wait, occupant));
    }

    /// Whether anything waits that any connection would do for.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether anything waits for a connection in its session.
    pub(crate) fn has_bound(&self) -> bool {
        !self.bound.is_empty()
    }

    /// How many more connections could be used now.
    pub(crate) fn startable(&self) -> usize {
        self.startable
    }

    /// The key whose turn it is to get a connection.
    pub(crate) fn next(&mut self, now: Instant) -> Option<&WaitKey> {
        loop {
            let (at, key) = self.ready.first_key_value().map(|(at, key)| (*at, key.clone()))?;
            // Its caller may have gone since.
            self.sync(&key, now);
            let first = self.ready.first_key_value().map(|(first, _)| *first);
            if first == Some(at) {
                break;
            }
        }
        self.ready.first_key_value().map(|(_, key)| key)
    }

    /// Starts what is next over a connection that is there. It occupies that until it has [ended](Self::ended).
    pub(crate) fn begin(&mut self, now: Instant) -> Option<Start<W>> {
        let key = self.next(now)?.clone();
        let ticket = self.keys.get_mut(&key)?.begin();
        self.sync(&key, now);
        Some(match ticket {
            Some(entry) => Start::Ticket(key, entry.arrival, entry.wait),
            None => Start::Wait(key),
        })
    }

    /// Starts the next that needs a connection in its session.
    pub(crate) fn begin_bound(&mut self, now: Instant) -> Option<Bound<W>> {
        let key = self.bound.first_key_value()?.1.clone();
        self.sync(&key, now);
        let (entry, occupant) = self.keys.get_mut(&key)?.begin_bound()?;
        self.sync(&key, now);
        Some(Bound {
            key,
            arrival: entry.arrival,
            wait: entry.wait,
            occupant,
        })
    }

    /// A connection does not wait for this key any more.
    pub(crate) fn ended(&mut self, key: &WaitKey, occupant: Occupant, now: Instant) {
        self.change_if_there(key, now, |queue| queue.ended(occupant));
    }

    /// Whether a key has more server waits than callers.
    pub(crate) fn check_surplus(&mut self, key: &WaitKey, now: Instant) -> bool {
        self.sync(key, now);
        self.keys.get(key).is_none_or(KeyQueue::has_surplus)
    }

    /// A server wait that no caller wants becomes an errand that gives its queue position up.
    pub(crate) fn turn_into_errand(&mut self, key: &WaitKey, now: Instant) {
        self.change_if_there(key, now, KeyQueue::turn_into_errand);
    }

    /// Why those have no connection that have none, from now on. They are told.
    pub(crate) fn lacks(&mut self, lack: Lack) {
        if std::mem::replace(&mut self.lack, lack) != lack {
            let queues = self.keys.values_mut();
            queues.for_each(|queue| queue.tell(lack, self.most_per_key));
        }
    }

    /// This client has taken all that can be held of a key.
    pub(crate) fn mark_ours(&mut self, key: &WaitKey, now: Instant) {
        self.change_if_there(key, now, |queue| queue.set_ours(true));
    }

    /// This client releases a key: if nothing stands for it on the server, it is tried at once.
    pub(crate) fn released(&mut self, key: &WaitKey, now: Instant) {
        if self.keys.contains_key(key) {
            self.change_if_there(key, now, |queue| queue.set_ours(false));
            self.tries.hurry(key, now);
        }
    }

    /// A key to be tried now over the pipelined connection, whose answer [ends](Self::tried) that. Those are passed over that are
    /// held `here` themselves: nobody else can grant them.
    pub(crate) fn take_due(&mut self, now: Instant, here: impl Fn(&WaitKey) -> bool) -> Option<WaitKey> {
        loop {
            let key = self.tries.take(now, &here)?;
            self.change_if_there(&key, now, |queue| queue.set_ours(false));
            // The callers may all have gone.
            if self.keys.get(&key).is_some_and(|queue| queue.shown.wants_tries) {
                return Some(key);
            }
            self.tries.ended(&key, now);
        }
    }

    /// A key was tried.
    pub(crate) fn tried(&mut self, key: &WaitKey, now: Instant) {
        self.tries.ended(key, now);
    }

    /// When a key is to be tried next.
    pub(crate) fn next_try(&self, now: Instant) -> Option<Instant> {
        self.tries.next_due(now)
    }

    /// Returns how many wait without a queue position on the server. Some of their callers may be gone.
    pub(crate) fn local(&self) -> usize {
        self.local
    }

    /// Returns how many have a queue position on the server.
    pub(crate) fn at_server(&self) -> usize {
        self.at_server
    }

    /// Whether there is neither a caller nor anything on the server.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn len(&self) -> usize {
        self.local + self.at_server
    }

    fn enter(&mut self, arrival: Option<Arrival>, wait: W, holding: bool) -> queue::WaitEntry<W> {
        let arrival = arrival.unwrap_or_else(|| self.take_arrival());
        let ahead = u32::try_from(self.local).unwrap_or(u32::MAX);
        queue::WaitEntry::new(arrival, wait, holding, ahead)
    }

    fn take_arrival(&mut self) -> Arrival {
        self.next_arrival += 1;
        self.next_arrival
    }

    fn change(&mut self, key: WaitKey, now: Instant, change: impl FnOnce(&mut KeyQueue<W>)) {
        let queue = match self.keys.entry(key.clone()) {
            KeyEntry::Occupied(entry) => entry.into_mut(),
            KeyEntry::Vacant(entry) => entry.insert(KeyQueue::new()),
        };
        queue.prune();
        change(queue);
        self.sync(&key, now);
    }

    fn change_if_there(&mut self, key: &WaitKey, now: Instant, change: impl FnOnce(&mut KeyQueue<W>)) {
        if let Some(queue) = self.keys.get_mut(key) {
            change(queue);
            self.sync(key, now);
        }
    }

    /// Makes everything that is kept in mind of a key true again, and forgets the key if nothing is left of it.
    fn sync(&mut self, key: &WaitKey, now: Instant) {
        let Some(queue) = self.keys.get_mut(key) else { return };
        queue.prune();
        queue.tell(self.lack, self.most_per_key);
        queue.note_unclaimed(now);
        let after = queue.figures(self.most_per_key);
        let before = std::mem::replace(&mut queue.shown, after);
        if queue.is_over() {
            self.keys.remove(key);
        }
        self.publish(key, &before, &after, now);
    }

    fn publish(&mut self, key: &WaitKey, before: &Figures, after: &Figures, now: Instant) {
        if before == after {
            return;
        }
        if before.ready != after.ready {
            if let Some(at) = before.ready {
                self.ready.remove(&at);
            }
            if let Some(at) = after.ready {
                self.ready.insert(at, key.clone());
            }
        }
        if before.bound != after.bound {
            if let Some(arrival) = before.bound {
                self.bound.remove(&arrival);
            }
            if let Some(arrival) = after.bound {
                self.bound.insert(arrival, key.clone());
            }
        }
        if before.wants_tries != after.wants_tries {
            match after.wants_tries {
                true => self.tries.want(key, now),
                false => self.tries.unwant(key),
            }
        }
        self.startable = self.startable - before.startable + after.startable;
        self.local = self.local - before.local + after.local;
        self.at_server = self.at_server - before.at_server + after.at_server;
    }
}

#[cfg(test)]
mod tests;
