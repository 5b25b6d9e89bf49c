//! Queue positions: those of tickets, and those of waits that must be given up in their sessions. Each belongs to the
//! connection that took it or reclaimed it.

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

/// The queue positions of tickets, including those that are being reclaimed or given up, and the positions of waits
/// that must be given up in their sessions.
#[derive(Default)]
pub(super) struct QueuePositions {
    all: BTreeMap<TicketId, QueuePosition>,
    last: TicketId,
}

/// A queue position, and the terms on which it was taken.
pub(super) struct QueuePosition {
    /// The connection that owns it, or `None` while it waits for a connection in its session.
    lane: Option<LaneId>,
    next: AfterRejoin,
    /// When the shard first noticed that the caller that waits for the grant is gone.
    abandoned: Option<Instant>,
    /// The number of repeated requests that count toward `max_redirects`.
    rejoined: u32,
    pub(super) target: Target,
    pub(super) key: Key,
    ttl: Option<Ttl>,
    policy: RenewTerms,
    /// When its `e` was sent. The grant may be as old as this request, so the lease counts from this moment.
    enqueued_at: Moment,
}

/// What happens to a queue position after it is reclaimed.
pub(super) enum AfterRejoin {
    /// The ticket's holder keeps it.
    Keep,
    /// This caller waits for its grant, until this instant.
    Collect(Instant, Ask<Acquired>),
    /// It is given up.
    GiveUp,
}

/// How to give up a queue position.
pub(super) enum GivingUp {
    /// Over this connection, at once.
    On(LaneId, QueuePosition),
    /// Later, over a connection that presents the session's name.
    Later,
}

impl QueuePosition {
    /// Creates the queue position of an acquire, on a connection or without one.
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

    /// Creates a queue position that no caller wants. The shard gives it up over a connection that presents the
    /// session's name.
    pub(super) fn to_give_up(target: Target, key: Key, now: Moment) -> Self {
        Self {
            lane: None,
            next: AfterRejoin::GiveUp,
            abandoned: None,
            rejoined: 0,
            target,
            key,
            ttl: None,
            policy: RenewTerms::default(),
            enqueued_at: now,
        }
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

    /// Returns the acquire of the caller that waits for the grant.
    pub(super) fn into_acquire(self) -> Option<Box<Acquire>> {
        let (target, key, ttl, policy) = (self.target, self.key.clone(), self.ttl, self.policy);
        let ask = self.into_caller()?;
        Some(Acquire::new(target, key, ttl, policy, ask))
    }

    /// Returns the caller that waits for the grant.
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

impl QueuePositions {
    pub(super) fn insert(&mut self, position: QueuePosition) -> TicketId {
        self.last += 1;
        self.all.insert(self.last, position);
        self.last
    }

    pub(super) fn remove(&mut self, id: TicketId) -> Option<QueuePosition> {
        self.all.remove(&id)
    }

    /// Returns the number of queue positions.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Notes that a ticket's holder waits for the grant. Returns the connection that owns the position, or `None` if
    /// the position is being reclaimed. If there is no such position, returns the caller as the error.
    pub(super) fn collect(
        &mut self,
        id: TicketId,
        until: Instant,
        ask: Ask<Acquired>,
    ) -> Result<Option<LaneId>, Ask<Acquired>> {
        let Some(position) = self.all.get_mut(&id) else {
            return Err(ask);
        };
        position.next = AfterRejoin::Collect(until, ask);
        Ok(position.lane)
    }

    /// Handles the drop of a ticket. Returns how to give its position up, or `None` if there is no such position.
    pub(super) fn give_up(&mut self, id: TicketId) -> Option<GivingUp> {
        let position = self.all.get_mut(&id)?;
        match position.lane {
            None => {
                position.next = AfterRejoin::GiveUp;
                Some(GivingUp::Later)
            }
            Some(lane) => self.all.remove(&id).map(|position| GivingUp::On(lane, position)),
        }
    }

    /// Notes that a position has lost its connection and is being reclaimed in its session. Returns whether the
    /// position exists.
    pub(super) fn leave_connection(&mut self, id: TicketId) -> bool {
        match self.all.get_mut(&id) {
            Some(position) => {
                position.lane = None;
                true
            }
            None => false,
        }
    }

    /// Notes that a position was reclaimed over this connection. Returns what happens to it now.
    pub(super) fn taken_back(&mut self, id: TicketId, lane: LaneId) -> Option<AfterRejoin> {
        let position = self.all.get_mut(&id)?;
        position.lane = Some(lane);
        Some(std::mem::replace(&mut position.next, AfterRejoin::Keep))
    }

    /// Removes and returns a position, if it is marked to be given up.
    pub(super) fn take_to_give_up(&mut self, id: TicketId) -> Option<QueuePosition> {
        match self.is_to_give_up(id) {
            true => self.all.remove(&id),
            false => None,
        }
    }

    pub(super) fn is_to_give_up(&self, id: TicketId) -> bool {
        self.all.get(&id).is_some_and(QueuePosition::is_to_give_up)
    }

    /// Counts another reclaim and returns the total.
    pub(super) fn count_rejoin(&mut self, id: TicketId) -> Option<u32> {
        let position = self.all.get_mut(&id)?;
        position.rejoined += 1;
        Some(position.rejoined)
    }

    /// Returns the key of a position.
    pub(super) fn wait_key(&self, id: TicketId) -> Option<WaitKey> {
        self.all.get(&id).map(QueuePosition::wait_key)
    }

    /// Whether a caller waits for the grant at a position, or has waited.
    pub(super) fn is_collected(&self, id: TicketId) -> bool {
        self.all
            .get(&id)
            .is_some_and(|position| matches!(position.next, AfterRejoin::Collect(..)))
    }

    /// Notes which callers are gone. Returns the connections of positions whose callers were noted as gone at `since`
    /// or earlier.
    pub(super) fn abandoned(&mut self, now: Instant, since: Instant) -> Vec<LaneId> {
        let abandoned = self.all.values_mut().filter_map(|position| match &position.next {
            AfterRejoin::Collect(_, ask) if ask.is_gone() => {
                let gone = *position.abandoned.get_or_insert(now);
                position.lane.filter(|_| gone <= since)
            }
            _ => None,
        });
        let mut lanes: Vec<LaneId> = abandoned.collect();
        lanes.sort_unstable();
        lanes
    }

    /// Removes all positions and returns the callers that wait for their grants.
    pub(super) fn take_callers(&mut self) -> Vec<Ask<Acquired>> {
        let all = std::mem::take(&mut self.all).into_values();
        all.filter_map(QueuePosition::into_caller).collect()
    }

    /// Returns the request that reclaims a position.
    pub(super) fn request(&self, id: TicketId) -> Option<Request> {
        self.all.get(&id).map(|position| Request::Enqueue {
            target: position.target,
            key: position.key.clone(),
            ttl: position.ttl,
        })
    }
}

#[cfg(test)]
mod tests;
