//! Places in the servers' queues whose tickets callers hold, each on the connection that took it.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::acquire::Acquire;
use super::ask::Ask;
use super::held::Acquired;
use super::ids::{LaneId, TicketId, WaitKey};
use crate::clock::Moment;
use crate::lease::policy::RenewTerms;
use crate::protocol::Request;
use crate::types::{Key, Target, Ttl};

/// The tickets that were given out and not used yet, and the places that are being taken back.
#[derive(Default)]
pub(super) struct Places {
    all: BTreeMap<TicketId, TakenPlace>,
    last: TicketId,
}

/// A place in a queue, and on which terms it was taken.
pub(super) struct TakenPlace {
    /// The connection that has it; `None` while it is being taken back.
    lane: Option<LaneId>,
    next: AfterRejoin,
    /// Since when the caller that waits there is known to be gone.
    abandoned: Option<Instant>,
    /// How often it was taken back.
    rejoined: u32,
    pub(super) target: Target,
    pub(super) key: Key,
    ttl: Option<Ttl>,
    policy: RenewTerms,
    /// When its `e` was sent: the grant, and with it the lease, may be as old as that.
    enqueued_at: Moment,
}

/// What is done with a place once it is taken back.
pub(super) enum AfterRejoin {
    /// It is kept for the holder of the ticket.
    Keep,
    /// What is granted there, until then, goes to a caller.
    Collect(Instant, Ask<Acquired>),
    /// It is given up.
    GiveUp,
}

/// What a place that is used has to be asked.
pub(super) enum Use {
    /// On this connection, now.
    On(LaneId, TakenPlace),
    /// Once the place is taken back.
    Later,
}

impl TakenPlace {
    /// The place of an acquire, on a connection or on none.
    pub(super) fn of(acquire: &Acquire, lane: Option<LaneId>, enqueued_at: Moment) -> Self {
        Self {
            lane,
            next: AfterRejoin::Keep,
            abandoned: None,
            rejoined: acquire.redirects,
            target: acquire.target,
            key: acquire.key.clone(),
            ttl: acquire.ttl,
            policy: acquire.policy,
            enqueued_at,
        }
    }

    /// A place that no caller wants any more, to be given up over a connection under its session's name.
    pub(super) fn to_give_up(target: Target, key: Key, rejoined: u32, now: Moment) -> Self {
        Self {
            lane: None,
            next: AfterRejoin::GiveUp,
            abandoned: None,
            rejoined,
            target,
            key,
            ttl: None,
            policy: RenewTerms::default(),
            enqueued_at: now,
        }
    }

    pub(super) fn rejoined(&self) -> u32 {
        self.rejoined
    }

    pub(super) fn enqueued_at(&self) -> Moment {
        self.enqueued_at
    }

    pub(super) fn ttl(&self) -> Option<Ttl> {
        self.ttl
    }

    pub(super) fn wait_key(&self) -> WaitKey {
        (self.target, self.key.clone())
    }

    /// The acquire of the caller that waits for what is granted there.
    pub(super) fn into_acquire(self) -> Option<Box<Acquire>> {
        let (target, key, ttl, policy) = (self.target, self.key.clone(), self.ttl, self.policy);
        let ask = self.into_caller()?;
        Some(Acquire::new(target, key, ttl, policy, ask))
    }

    /// The caller that waits for what is granted there.
    pub(super) fn into_caller(self) -> Option<Ask<Acquired>> {
        match self.next {
            AfterRejoin::Collect(_, ask) => Some(ask),
            AfterRejoin::Keep | AfterRejoin::GiveUp => None,
        }
    }

    pub(super) fn is_to_give_up(&self) -> bool {
        matches!(self.next, AfterRejoin::GiveUp)
    }
}

impl Places {
    pub(super) fn insert(&mut self, place: TakenPlace) -> TicketId {
        self.last += 1;
        self.all.insert(self.last, place);
        self.last
    }

    pub(super) fn remove(&mut self, id: TicketId) -> Option<TakenPlace> {
        self.all.remove(&id)
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The caller of a ticket wants what is granted at its place. Returns the connection that has the place; `None` if the place
    /// is being taken back. Gives the caller back if there is no such place.
    pub(super) fn collect(
        &mut self,
        id: TicketId,
        until: Instant,
        ask: Ask<Acquired>,
    ) -> Result<Option<LaneId>, Ask<Acquired>> {
        let Some(place) = self.all.get_mut(&id) else {
            return Err(ask);
        };
        place.next = AfterRejoin::Collect(until, ask);
        Ok(place.lane)
    }

    /// The ticket was dropped. `None` if there is no such place.
    pub(super) fn give_up(&mut self, id: TicketId) -> Option<Use> {
        let place = self.all.get_mut(&id)?;
        match place.lane {
            None => {
                place.next = AfterRejoin::GiveUp;
                Some(Use::Later)
            }
            Some(lane) => self.all.remove(&id).map(|place| Use::On(lane, place)),
        }
    }

    /// The connection of a place is gone, but its session is known: the place is being taken back.
    pub(super) fn leave_connection(&mut self, id: TicketId) -> bool {
        match self.all.get_mut(&id) {
            Some(place) => {
                place.lane = None;
                true
            }
            None => false,
        }
    }

    /// A place is taken back, on this connection. Returns what is done with it.
    pub(super) fn taken_back(&mut self, id: TicketId, lane: LaneId) -> Option<AfterRejoin> {
        let place = self.all.get_mut(&id)?;
        place.lane = Some(lane);
        Some(std::mem::replace(&mut place.next, AfterRejoin::Keep))
    }

    /// Takes a place that no caller wants any more.
    pub(super) fn take_to_give_up(&mut self, id: TicketId) -> Option<TakenPlace> {
        match self.is_to_give_up(id) {
            true => self.all.remove(&id),
            false => None,
        }
    }

    pub(super) fn is_to_give_up(&self, id: TicketId) -> bool {
        self.all.get(&id).is_some_and(TakenPlace::is_to_give_up)
    }

    /// Counts another rejoin and returns the total.
    pub(super) fn count_rejoin(&mut self, id: TicketId) -> Option<u32> {
        let place = self.all.get_mut(&id)?;
        place.rejoined += 1;
        Some(place.rejoined)
    }

    /// What it is a place for.
    pub(super) fn wait_key(&self, id: TicketId) -> Option<WaitKey> {
        self.all.get(&id).map(TakenPlace::wait_key)
    }

    /// Whether a caller waits for what is granted at a place, or did.
    pub(super) fn is_collected(&self, id: TicketId) -> bool {
        self.all
            .get(&id)
            .is_some_and(|place| matches!(place.next, AfterRejoin::Collect(..)))
    }

    /// The connections of places whose callers have been gone since `since`, as far as that was noticed.
    pub(super) fn abandoned(&mut self, now: Instant, since: Instant) -> Vec<LaneId> {
        let abandoned = self.all.values_mut().filter_map(|place| match &place.next {
            AfterRejoin::Collect(_, ask) if ask.is_gone() => {
                let gone = *place.abandoned.get_or_insert(now);
                place.lane.filter(|_| gone <= since)
            }
            _ => None,
        });
        let mut lanes: Vec<LaneId> = abandoned.collect();
        lanes.sort_unstable();
        lanes
    }

    /// Takes the callers that wait for what is granted at their places, and forgets all places.
    pub(super) fn take_callers(&mut self) -> Vec<Ask<Acquired>> {
        let all = std::mem::take(&mut self.all).into_values();
        all.filter_map(TakenPlace::into_caller).collect()
    }

    /// What takes a place back.
    pub(super) fn request(&self, id: TicketId) -> Option<Request> {
        self.all.get(&id).map(|place| Request::Enqueue {
            target: place.target,
            key: place.key.clone(),
            ttl: place.ttl,
        })
    }
}

#[cfg(test)]
mod tests;
