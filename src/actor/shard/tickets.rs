//! Places in the servers' queues that callers hold, each on the connection that took it.

use std::collections::HashMap;

use tokio::time::Instant;

use super::Shard;
use crate::actor::lanes::Work;
use crate::actor::message::{Acquire, Acquired, Ask, Pending, Ticket};
use crate::actor::waits::Subject;
use crate::error::{Error, ErrorKind};
use crate::lease::registry::{LaneId, RenewPolicy};
use crate::net::lane::OnAbandon;
use crate::protocol::{Request, Response, StableRef};
use crate::types::{Key, Target, Ttl};

/// Names a ticket of one shard.
pub(crate) type TicketId = u64;

/// The tickets that were given out and not used yet.
#[derive(Default)]
pub(super) struct Tickets {
    places: HashMap<TicketId, QueuePlace>,
    last: TicketId,
}

/// A place in a queue, and on which terms it was taken.
pub(super) struct QueuePlace {
    /// The connection that has it; none while it is being taken again.
    lane: Option<LaneId>,
    /// What is to be done with it once it is taken again.
    pub(super) then: Then,
    /// How often it was taken again.
    rejoined: u32,
    pub(super) target: Target,
    pub(super) key: Key,
    ttl: Option<Ttl>,
    policy: RenewPolicy,
    /// When its `e` was sent: the grant, and with it the lease, may be as old as that.
    enqueued_at: Instant,
}

/// What its holder wants of a place.
pub(super) enum Then {
    /// That it is kept.
    Keep,
    /// What is granted there, until then.
    Collect(Instant, Ask<Acquired>),
    /// To be rid of it.
    GiveUp,
}

impl QueuePlace {
    /// Of an acquire, on a connection or on none.
    pub(super) fn of(acquire: &Acquire, lane: Option<LaneId>, enqueued_at: Instant) -> Self {
        Self {
            lane,
            then: Then::Keep,
            rejoined: acquire.redirects,
            target: acquire.target,
            key: acquire.key.clone(),
            ttl: acquire.ttl,
            policy: acquire.policy,
            enqueued_at,
        }
    }

    /// One that nobody wants any more, and that must be taken again before it can be given up.
    pub(super) fn to_give_up(target: Target, key: Key, rejoined: u32) -> Self {
        Self {
            lane: None,
            then: Then::GiveUp,
            rejoined,
            target,
            key,
            ttl: None,
            policy: RenewPolicy::default(),
            enqueued_at: Instant::now(),
        }
    }
}

impl Tickets {
    pub(super) fn insert(&mut self, place: QueuePlace) -> TicketId {
        self.last += 1;
        self.places.insert(self.last, place);
        self.last
    }

    pub(super) fn remove(&mut self, id: TicketId) -> Option<QueuePlace> {
        self.places.remove(&id)
    }

    /// Whether it is to be given up once it is taken again.
    pub(super) fn is_to_give_up(&self, id: TicketId) -> bool {
        self.places
            .get(&id)
            .is_some_and(|place| matches!(place.then, Then::GiveUp))
    }

    /// It is taken again: for the how manieth time.
    pub(super) fn rejoined(&mut self, id: TicketId) -> Option<u32> {
        let place = self.places.get_mut(&id)?;
        place.rejoined += 1;
        Some(place.rejoined)
    }

    /// What it is a place for.
    pub(super) fn subject(&self, id: TicketId) -> Option<Subject> {
        self.places
            .get(&id)
            .map(|place| (place.target.kind(), place.key.clone()))
    }

    /// What takes a place again.
    pub(super) fn request(&self, id: TicketId) -> Option<Request> {
        self.places.get(&id).map(|place| Request::Enqueue {
            target: place.target,
            key: place.key.clone(),
            ttl: place.ttl,
        })
    }
}

impl Shard {
    /// The answer to an `e` came over the connection `from`.
    pub(super) fn enqueue_answered(&mut self, acquire: Acquire, response: Response, sent_at: Instant, from: LaneId) {
        match response {
            Response::Acquired(grant) => {
                // The server keeps the grant for a `w` and refuses another `e` for the key on this connection until then.
                // So it is collected at once; the answer is the same grant again. The caller need not wait for that.
                let settle = Pending::Settle(acquire.target.kind(), acquire.key.clone());
                self.send_on(from, settle, OnAbandon::Finish);
                self.granted(acquire, grant, sent_at, from);
            }
            Response::Queued => self.give_ticket(acquire, sent_at, from),
            other => {
                self.wait_ended(from);
                self.acquire_answered(acquire, other, sent_at, from);
            }
        }
    }

    /// The connection stays with the ticket until that is used or dropped. If its caller has gone meanwhile, the ticket is
    /// dropped right here, or with the answer that nobody reads, and so gives its place up.
    fn give_ticket(&mut self, acquire: Acquire, enqueued_at: Instant, from: LaneId) {
        let Some(lane) = self.lanes.get_mut(from) else {
            let error = Error::new(ErrorKind::Disconnected, "the connection was closed");
            return acquire.ask.tell(Err(self.here(error)));
        };
        let place = QueuePlace::of(&acquire, Some(from), enqueued_at);
        let id = self.tickets.insert(place);
        lane.hold_ticket(id);
        let refusal = self.refusal_of(acquire.target.kind(), &acquire.key);
        let ticket = Ticket::new(id, acquire.target, acquire.key, refusal, self.myself.clone());
        acquire.ask.tell(Ok(Acquired::Queued(ticket)));
    }

    /// Waits at the place of a ticket.
    pub(super) fn collect(&mut self, id: TicketId, until: Instant, ask: Ask<Acquired>) {
        let Some(mut place) = self.tickets.places.remove(&id) else {
            let error = if self.is_closing() {
                Error::new(ErrorKind::Shutdown, "the client is shut down")
            } else {
                Error::new(
                    ErrorKind::Disconnected,
                    "the place in the queue was lost with its connection: enqueue again",
                )
            };
            return ask.tell(Err(self.here(error)));
        };
        let Some(lane) = place.lane else {
            place.then = Then::Collect(until, ask);
            self.tickets.places.insert(id, place);
            return;
        };
        let acquire = Acquire::new(place.target, place.key, place.ttl, place.policy, ask);
        let collect = Pending::Collect {
            acquire: Acquire {
                redirects: place.rejoined,
                ..acquire
            },
            until,
            enqueued_at: place.enqueued_at,
        };
        let on_abandon = self.on_abandon(lane);
        self.leave_ticket(lane);
        self.send_on(lane, collect, on_abandon);
    }

    /// A ticket was dropped.
    pub(super) fn give_up(&mut self, id: TicketId) {
        let Some(mut place) = self.tickets.places.remove(&id) else {
            return;
        };
        let Some(lane) = place.lane else {
            place.then = Then::GiveUp;
            self.tickets.places.insert(id, place);
            return;
        };
        self.leave_ticket(lane);
        let give_up = Pending::GiveUp(place.target, place.key, place.rejoined);
        self.send_on(lane, give_up, OnAbandon::Finish);
    }

    /// The connection of a place is gone. What takes the place again, if its session is known; otherwise it is lost.
    pub(super) fn ticket_lost(&mut self, id: TicketId, session: Option<StableRef>) -> Option<Pending> {
        let place = self.tickets.places.get_mut(&id)?;
        match session {
            Some(session) if self.closing.is_none() => {
                place.lane = None;
                Some(Pending::Rejoin(id, session))
            }
            _ => {
                self.tickets.places.remove(&id);
                None
            }
        }
    }

    /// The answer to the `e` by which a place is taken again. A grant that came meanwhile is collected like any other.
    pub(super) fn rejoin_answered(&mut self, id: TicketId, response: &Response, from: LaneId) {
        let (Response::Queued | Response::Acquired(_)) = response else {
            self.wait_ended(from);
            let subject = self.tickets.places.get(&id).map(|place| place.key.clone());
            let error = match (response, subject) {
                (Response::Refused(status), Some(key)) => status.to_error(key.as_str()),
                (other, _) => Error::new(ErrorKind::Protocol, format!("{other:?} is no answer to an enqueue")),
            };
            return self.ticket_refused(id, self.at_lane(from, error));
        };
        let (Some(place), Some(lane)) = (self.tickets.places.get_mut(&id), self.lanes.get_mut(from)) else {
            return self.wait_ended(from);
        };
        place.lane = Some(from);
        lane.hold_ticket(id);
        match std::mem::replace(&mut place.then, Then::Keep) {
            Then::Keep => {}
            Then::Collect(until, ask) if !ask.is_gone() => self.collect(id, until, ask),
            Then::Collect(..) | Then::GiveUp => self.give_up(id),
        }
    }

    /// A place could not be taken again.
    pub(super) fn ticket_refused(&mut self, id: TicketId, error: Error) {
        if let Some(QueuePlace {
            then: Then::Collect(_, ask),
            ..
        }) = self.tickets.places.remove(&id)
        {
            ask.tell(Err(error));
        }
    }

    /// Nobody has a ticket for this connection any more; what is sent next ends its wait.
    fn leave_ticket(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(id) {
            lane.work = match std::mem::replace(&mut lane.work, Work::Ending) {
                Work::Ticket(subject, place, _) => Work::Waiting(subject, place),
                other => other,
            };
        }
    }

    /// Sends what belongs on this connection and no other. If it has just ended, it is told that.
    fn send_on(&mut self, id: LaneId, pending: Pending, on_abandon: OnAbandon) {
        let Some(request) = self.request(&pending) else { return };
        let refused = match self.lanes.get_mut(id) {
            Some(lane) => lane.send(request, pending, on_abandon),
            None => Some(pending),
        };
        if let Some(pending) = refused {
            let error = Error::new(ErrorKind::Disconnected, "the connection was closed");
            self.wait_anew(id, pending, self.at_lane(id, error));
        }
    }
}
