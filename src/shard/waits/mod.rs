//! The waiting callers, and the waits on the server that serve them. Pure: the caller of this module provides the time
//! and does the I/O.
//!
//! A wait blocks its connection. There are few connections, and there may be many callers, so the two are separate:
//!
//! - **Callers** of a key are kept in order of arrival. Each grant goes to the first caller, whichever request brought
//!   the grant.
//! - **Server waits** are `l` requests that block on the server, each on a connection. They belong to no caller in
//!   particular. A key gets one for each caller, up to a limit. When a caller goes away, its server wait serves the
//!   next caller. So the position in the server's queue is passed on. It is given up only when no caller has wanted it
//!   for a while.
//! - A key whose callers have no server wait is **tried** from time to time over a pipelined connection ([`tries`]). So
//!   a caller gets the key soon after it is free, even if many other waits have the connections.
//! - **Tickets** are callers that want a queue position of their own. Each takes a connection.
//! - A wait that belongs to a session and has lost its connection is **bound**: it needs a connection in that session.
//!
//! The next connection goes to a key with a caller that holds other leases, because further callers may wait for those
//! leases. Then come keys without a server wait. Last come keys with a server wait, and keys that this client itself
//! holds, because only this client can release them. Within each group, the order of arrival decides.

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

/// The minimum number of waits at which callers that are gone are removed.
const CLEAN_AT_LEAST: usize = 1024;

/// The waits of one shard.
#[derive(Debug)]
pub(crate) struct Waits<W> {
    keys: HashMap<WaitKey, KeyQueue<W>>,
    /// For each key that can use one more connection, its next entry by urgency and arrival.
    ready: BTreeMap<(Urgency, Arrival), WaitKey>,
    /// For each key, its first bound entry.
    bound: BTreeMap<Arrival, WaitKey>,
    tries: TryTimes,
    next_arrival: Arrival,
    most_per_key: usize,
    /// Why waits have no connection.
    lack: Lack,
    /// Sums over all keys.
    startable: usize,
    local: usize,
    at_server: usize,
    /// The number of waits, including those of callers that are gone, at which the next cleaning starts.
    clean_at: usize,
}

impl<W: Waiter> Waits<W> {
    /// Creates an empty collection. `most_per_key` is the maximum number of connections that a key may occupy. `seed`
    /// makes the times of this client's tries differ from those of other clients.
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

    /// Adds a caller behind all others. `holding` says that the caller holds other leases of this client, and `ours`
    /// that this client holds the key's lock or all its slots.
    pub(crate) fn push(&mut self, key: WaitKey, wait: W, holding: bool, ours: bool, now: Instant) {
        let entry = self.enter(None, wait, holding);
        self.change(key, now, |queue| {
            queue.set_ours(ours);
            queue.push_caller(entry);
        });
        self.clean_if_many(now);
    }

    /// Adds a caller that wants a ticket, at its former position `arrival`, or behind all others.
    pub(crate) fn push_ticket(&mut self, key: WaitKey, arrival: Option<Arrival>, wait: W, now: Instant) {
        let entry = self.enter(arrival, wait, false);
        self.change(key, now, |queue| queue.push_ticket(entry));
        self.clean_if_many(now);
    }

    /// Adds a wait that must be sent again in its session, at its former position `arrival`, or behind all others.
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

    /// Whether any entry can use an arbitrary connection.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether any entry needs a connection in its session.
    pub(crate) fn has_bound(&self) -> bool {
        !self.bound.is_empty()
    }

    /// Returns how many more connections could be used now.
    pub(crate) fn startable(&self) -> usize {
        self.startable
    }

    /// Returns the key that gets the next connection.
    pub(crate) fn next(&mut self, now: Instant) -> Option<&WaitKey> {
        loop {
            let (at, key) = self.ready.first_key_value().map(|(at, key)| (*at, key.clone()))?;
            // The key's callers may be gone.
            self.sync(&key, now);
            let first = self.ready.first_key_value().map(|(first, _)| *first);
            if first == Some(at) {
                break;
            }
        }
        self.ready.first_key_value().map(|(_, key)| key)
    }

    /// Starts the next entry over a connection that is up. The entry occupies the connection until it has
    /// [ended](Self::ended).
    pub(crate) fn begin(&mut self, now: Instant) -> Option<Start<W>> {
        let key = self.next(now)?.clone();
        let ticket = self.keys.get_mut(&key)?.begin();
        self.sync(&key, now);
        Some(match ticket {
            Some(entry) => Start::Ticket(key, entry.arrival, entry.wait),
            None => Start::Wait(key),
        })
    }

    /// Starts the next entry that needs a connection in its session.
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

    /// Notes that a connection no longer waits for this key.
    pub(crate) fn ended(&mut self, key: &WaitKey, occupant: Occupant, now: Instant) {
        self.change_if_there(key, now, |queue| queue.ended(occupant));
    }

    /// Whether a key has more server waits than callers.
    pub(crate) fn check_surplus(&mut self, key: &WaitKey, now: Instant) -> bool {
        self.sync(key, now);
        self.keys.get(key).is_none_or(KeyQueue::has_surplus)
    }

    /// Turns a surplus server wait into a request that gives its queue position up.
    pub(crate) fn turn_into_give_up(&mut self, key: &WaitKey, now: Instant) {
        self.change_if_there(key, now, KeyQueue::turn_into_give_up);
    }

    /// Sets why waits have no connection, and tells the waits.
    pub(crate) fn lacks(&mut self, lack: Lack) {
        if std::mem::replace(&mut self.lack, lack) != lack {
            let queues = self.keys.values_mut();
            queues.for_each(|queue| queue.tell(lack, self.most_per_key));
        }
    }

    /// Notes that this client holds the key's lock or all its slots.
    pub(crate) fn mark_ours(&mut self, key: &WaitKey, now: Instant) {
        self.change_if_there(key, now, |queue| queue.set_ours(true));
    }

    /// Notes that this client releases a key. If the key has no wait on the server, it is tried at once.
    pub(crate) fn released(&mut self, key: &WaitKey, now: Instant) {
        if self.keys.contains_key(key) {
            self.change_if_there(key, now, |queue| queue.set_ours(false));
            self.tries.hurry(key, now);
        }
    }

    /// Returns a key to try now over the pipelined connection. [`tried`](Self::tried) ends the try. Skips a key if
    /// `here` says that this client holds its lock or all its slots, because no server can grant that key.
    pub(crate) fn take_due(&mut self, now: Instant, here: impl Fn(&WaitKey) -> bool) -> Option<WaitKey> {
        loop {
            let key = self.tries.take(now, &here)?;
            self.change_if_there(&key, now, |queue| queue.set_ours(false));
            // The key's callers may all be gone.
            if self.keys.get(&key).is_some_and(|queue| queue.shown.wants_tries) {
                return Some(key);
            }
            self.tries.ended(&key, now);
        }
    }

    /// Notes the end of a try.
    pub(crate) fn tried(&mut self, key: &WaitKey, now: Instant) {
        self.tries.ended(key, now);
    }

    /// Returns when a key is next tried.
    pub(crate) fn next_try(&self, now: Instant) -> Option<Instant> {
        self.tries.next_due(now)
    }

    /// Returns the number of waits without a queue position on the server. Some of their callers may be gone.
    pub(crate) fn local(&self) -> usize {
        self.local
    }

    /// Returns the number of waits with a queue position on the server.
    pub(crate) fn at_server(&self) -> usize {
        self.at_server
    }

    /// Whether there is neither a caller nor a wait on the server.
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

    /// Updates all values that are derived from a key's queue, and removes the queue if it is empty.
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
