//! The waits for one key.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{Lack, Occupant, Urgency, Waiter};
use crate::shard::ids::Arrival;
use crate::shard::progress::{WaitsFor, is_fresh};

/// A waiting entry.
#[derive(Debug)]
pub(super) struct WaitEntry<W> {
    pub(super) arrival: Arrival,
    pub(super) wait: W,
    /// Whether its caller holds other leases of this client.
    holding: bool,
    /// The number of waits that had no queue position on the server when it arrived.
    ahead: u32,
    told: Told,
}

/// The last progress that a caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It waits behind other callers.
    Behind,
    /// It is the first caller without a server wait, or it wants a ticket. The [`Lack`] says why it has no connection.
    /// The flag says whether its key already occupies the maximum number of connections.
    Next(Lack, bool),
    /// It has a server wait.
    Covered,
}

impl<W: Waiter> WaitEntry<W> {
    pub(super) fn new(arrival: Arrival, wait: W, holding: bool, ahead: u32) -> Self {
        wait.waits_for(WaitsFor::Connection { ahead });
        Self {
            arrival,
            wait,
            holding,
            ahead,
            told: Told::Behind,
        }
    }

    fn tell(&mut self, what: Told) {
        if self.told == what {
            return;
        }
        self.told = what;
        self.wait.waits_for(match what {
            Told::Behind | Told::Next(Lack::InUse, _) | Told::Next(_, true) => {
                WaitsFor::Connection { ahead: self.ahead }
            }
            Told::Next(Lack::NotEstablished, false) => WaitsFor::Opening,
            Told::Next(Lack::Full, false) => WaitsFor::Full,
            Told::Covered => WaitsFor::Turn,
        });
    }
}

/// The waits for one key.
#[derive(Debug)]
pub(super) struct KeyQueue<W> {
    /// Callers that want a grant, in order. With N server waits, the first N callers are *covered*.
    callers: VecDeque<WaitEntry<W>>,
    /// Callers that want a ticket, in order.
    tickets: VecDeque<WaitEntry<W>>,
    /// Waits that must be sent again in their session, in order, and the use that each will make of its connection.
    bound: VecDeque<(WaitEntry<W>, Occupant)>,
    /// The number of server waits.
    server_waits: usize,
    /// The number of server waits among `bound`.
    resuming: usize,
    /// The number of connections that belong to one ticket each.
    own: usize,
    /// The number of callers that hold other leases.
    holding: usize,
    /// When a server last said that the key is held.
    refused_at: Option<Instant>,
    /// Whether this client holds the key's lock or all its slots, so that no server can grant it before this client
    /// releases it.
    ours: bool,
    /// An instant, and the number of server waits that have had no caller since then.
    unclaimed: Option<(Instant, usize)>,
    /// The figures that [`Waits`](super::Waits) has taken into account.
    pub(super) shown: Figures,
}

/// The figures of a key's queue that [`Waits`](super::Waits) needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// The next entry that may be sent over any connection.
    pub(super) ready: Option<(Urgency, Arrival)>,
    /// The next entry that needs a connection in its own session.
    pub(super) bound: Option<Arrival>,
    /// How many more connections the key could use now.
    pub(super) startable: usize,
    /// The number of waits without a queue position on the server.
    pub(super) local: usize,
    /// The number of waits with a queue position on the server.
    pub(super) at_server: usize,
    /// Whether a caller waits and the key has no wait on the server.
    pub(super) wants_tries: bool,
}

impl<W: Waiter> KeyQueue<W> {
    pub(super) fn new() -> Self {
        Self {
            callers: VecDeque::new(),
            tickets: VecDeque::new(),
            bound: VecDeque::new(),
            server_waits: 0,
            resuming: 0,
            own: 0,
            holding: 0,
            refused_at: None,
            ours: false,
            unclaimed: None,
            shown: Figures::default(),
        }
    }

    pub(super) fn push_caller(&mut self, entry: WaitEntry<W>) {
        self.holding += usize::from(entry.holding);
        self.callers.push_back(entry);
    }

    pub(super) fn push_ticket(&mut self, entry: WaitEntry<W>) {
        let index = self.tickets.partition_point(|other| other.arrival < entry.arrival);
        self.tickets.insert(index, entry);
    }

    pub(super) fn push_bound(&mut self, arrival: Arrival, wait: W, occupant: Occupant) {
        self.resuming += usize::from(occupant == Occupant::Wait);
        let entry = WaitEntry::new(arrival, wait, false, 0);
        let index = self.bound.partition_point(|(other, _)| other.arrival < arrival);
        self.bound.insert(index, (entry, occupant));
    }

    /// Starts the next entry, over any connection. Returns the ticket, or `None` if a server wait starts for the first
    /// caller that is not covered.
    pub(super) fn begin(&mut self) -> Option<WaitEntry<W>> {
        let (_, arrival) = self.shown.ready?;
        if self.tickets.front().is_some_and(|ticket| ticket.arrival == arrival) {
            self.own += 1;
            return self.tickets.pop_front();
        }
        self.server_waits += 1;
        None
    }

    /// Starts the next entry that needs a connection in its own session.
    pub(super) fn begin_bound(&mut self) -> Option<(WaitEntry<W>, Occupant)> {
        let (entry, occupant) = self.bound.pop_front()?;
        match occupant {
            Occupant::Wait => {
                self.resuming -= 1;
                self.server_waits += 1;
            }
            Occupant::Ticket => self.own += 1,
        }
        Some((entry, occupant))
    }

    pub(super) fn ended(&mut self, occupant: Occupant) {
        let count = match occupant {
            Occupant::Wait => &mut self.server_waits,
            Occupant::Ticket => &mut self.own,
        };
        *count = count.saturating_sub(1);
    }

    /// Turns a server wait into a request that gives its queue position up.
    pub(super) fn turn_into_give_up(&mut self) {
        self.ended(Occupant::Wait);
        self.own += 1;
    }

    /// Removes and returns the caller that gets a grant: the first one, whichever request brought the grant.
    pub(super) fn claim(&mut self) -> Option<WaitEntry<W>> {
        let caller = self.callers.front().map(|entry| entry.arrival);
        let ticket = self.tickets.front().map(|entry| entry.arrival);
        match (caller, ticket) {
            (Some(caller), Some(ticket)) if ticket < caller => self.tickets.pop_front(),
            (None, _) => self.tickets.pop_front(),
            (Some(_), _) => self.take_caller(0),
        }
    }

    /// Returns the caller that would get a grant.
    pub(super) fn first(&self) -> Option<&W> {
        let all = [self.callers.front(), self.tickets.front()];
        let first = all.into_iter().flatten().min_by_key(|entry| entry.arrival);
        first.map(|entry| &entry.wait)
    }

    /// Returns the last covered caller, for which the last server wait was started.
    pub(super) fn last_covered(&self) -> Option<&W> {
        let index = self.covered().checked_sub(1)?;
        self.callers.get(index).map(|entry| &entry.wait)
    }

    /// Returns the first caller that is not covered.
    pub(super) fn uncovered(&mut self) -> Option<&mut W> {
        let index = self.server_waits + self.resuming;
        self.callers.get_mut(index).map(|entry| &mut entry.wait)
    }

    pub(super) fn take_uncovered(&mut self) -> Option<WaitEntry<W>> {
        self.take_caller(self.server_waits + self.resuming)
    }

    /// Whether there are more server waits than callers.
    pub(super) fn has_surplus(&self) -> bool {
        self.callers.len() < self.server_waits
    }

    pub(super) fn set_ours(&mut self, ours: bool) {
        self.ours = ours;
    }

    pub(super) fn refused(&mut self, at: Instant) {
        self.refused_at = self.refused_at.max(Some(at));
    }

    /// Returns when a server said that the key is held, if the answer also counts for other callers. It counts for a
    /// short while. It also counts as long as an uncovered caller or a caller for a ticket waits, because no new caller
    /// may overtake that one.
    pub(super) fn refused_at(&self, now: Instant) -> Option<Instant> {
        let waits_here = self.callers.len() > self.covered() || !self.tickets.is_empty();
        self.refused_at.filter(|at| waits_here || is_fresh(*at, now))
    }

    pub(super) fn is_over(&self) -> bool {
        self.callers.is_empty()
            && self.tickets.is_empty()
            && self.bound.is_empty()
            && self.server_waits == 0
            && self.own == 0
    }

    /// Removes callers that are gone, until all covered callers and the first uncovered one still wait.
    pub(super) fn prune(&mut self) {
        let mut index = 0;
        while index <= self.server_waits + self.resuming {
            match self.callers.get(index) {
                None => break,
                Some(entry) if entry.wait.is_gone() => drop(self.take_caller(index)),
                Some(_) => index += 1,
            }
        }
        while self.tickets.front().is_some_and(|entry| entry.wait.is_gone()) {
            self.tickets.pop_front();
        }
    }

    /// Tells each caller what it waits for, if this has changed.
    pub(super) fn tell(&mut self, lack: Lack, most: usize) {
        let (covered, next) = (self.covered(), Told::Next(lack, self.is_full(most)));
        for (index, entry) in self.callers.iter_mut().enumerate() {
            match index {
                _ if index < covered => entry.tell(Told::Covered),
                _ if index == covered => entry.tell(next),
                // The callers behind this one know it already.
                _ if entry.told == Told::Behind => break,
                _ => entry.tell(Told::Behind),
            }
        }
        for ticket in &mut self.tickets {
            ticket.tell(next);
        }
    }

    /// Whether the key occupies the maximum number of connections.
    fn is_full(&self, most: usize) -> bool {
        self.server_waits + self.own >= most
    }

    /// Removes all callers that are gone.
    pub(super) fn prune_all(&mut self) {
        self.callers.retain(|entry| !entry.wait.is_gone());
        self.tickets.retain(|entry| !entry.wait.is_gone());
        self.holding = self.callers.iter().filter(|entry| entry.holding).count();
        // Frees memory after a large number of callers is gone.
        for queue in [&mut self.callers, &mut self.tickets] {
            if queue.capacity() > 64 && queue.capacity() / 4 > queue.len() {
                queue.shrink_to_fit();
            }
        }
    }

    /// Notes how many server waits have no caller, and since when. Must be called after each arrival of a caller,
    /// because the smallest number counts.
    pub(super) fn note_unclaimed(&mut self, now: Instant) {
        let unclaimed = self.server_waits.saturating_sub(self.callers.len());
        self.unclaimed = match self.unclaimed {
            _ if unclaimed == 0 => None,
            None => Some((now, unclaimed)),
            Some((since, least)) => Some((since, least.min(unclaimed))),
        };
    }

    /// Returns the number of server waits that have had no caller since `since` or an earlier instant. The time then
    /// starts again for the server waits that remain.
    pub(super) fn take_unclaimed(&mut self, since: Instant, now: Instant) -> usize {
        let unclaimed = match self.unclaimed {
            Some((from, least)) if from <= since => least,
            _ => return 0,
        };
        let left = self.server_waits.saturating_sub(self.callers.len() + unclaimed);
        self.unclaimed = Some((now, left)).filter(|(_, left)| *left > 0);
        unclaimed
    }

    /// Removes and returns the uncovered callers, the tickets and the bound entries.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = WaitEntry<W>> {
        let covered = self.callers.len().min(self.server_waits);
        let callers = self.callers.split_off(covered);
        self.holding = self.callers.iter().filter(|entry| entry.holding).count();
        self.resuming = 0;
        let bound = std::mem::take(&mut self.bound).into_iter().map(|(entry, _)| entry);
        callers
            .into_iter()
            .chain(std::mem::take(&mut self.tickets))
            .chain(bound)
    }

    /// Removes and returns the covered callers.
    pub(super) fn drain_covered(&mut self) -> VecDeque<WaitEntry<W>> {
        self.holding = 0;
        std::mem::take(&mut self.callers)
    }

    pub(super) fn len(&self) -> usize {
        self.callers.len() + self.tickets.len()
    }

    pub(super) fn figures(&self, most: usize) -> Figures {
        let covered = self.covered();
        let room = most.saturating_sub(self.server_waits + self.own);
        let uncovered = self.callers.len() - covered;
        let urgency = match self.server_waits > 0 || self.ours {
            _ if self.holding > 0 => Urgency::Holding,
            true => Urgency::Late,
            false => Urgency::First,
        };
        let caller = self.callers.get(covered).map(|entry| (urgency, entry.arrival));
        let ticket = self.tickets.front().map(|entry| (Urgency::First, entry.arrival));
        let next = [caller, ticket].into_iter().flatten().min();
        Figures {
            ready: next.filter(|_| room > 0),
            bound: self.bound.front().map(|(entry, _)| entry.arrival),
            startable: room.min(uncovered + self.tickets.len()),
            local: uncovered + self.tickets.len() + self.bound.len() - self.resuming,
            at_server: covered + self.own,
            wants_tries: self.server_waits == 0 && self.len() > 0,
        }
    }

    /// Returns the number of callers with a server wait.
    fn covered(&self) -> usize {
        self.callers.len().min(self.server_waits + self.resuming)
    }

    fn take_caller(&mut self, index: usize) -> Option<WaitEntry<W>> {
        let entry = self.callers.remove(index)?;
        self.holding -= usize::from(entry.holding);
        Some(entry)
    }
}
