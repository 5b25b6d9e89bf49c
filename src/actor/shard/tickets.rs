//! Places in the servers' queues that callers hold, each on the connection that took it.

use std::collections::HashMap;

use tokio::time::Instant;

use super::Shard;
use crate::actor::lanes::Work;
use crate::actor::message::{Acquire, Acquired, Ask, Pending, Ticket};
use crate::error::{Error, ErrorKind};
use crate::lease::registry::{LaneId, RenewPolicy};
use crate::net::lane::OnAbandon;
use crate::protocol::Response;
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
struct QueuePlace {
    lane: LaneId,
    target: Target,
    key: Key,
    ttl: Option<Ttl>,
    policy: RenewPolicy,
    /// When its `e` was sent: the grant, and with it the lease, may be as old as that.
    enqueued_at: Instant,
}

impl Tickets {
    /// The connection of a place is gone, and with it the place.
    pub(super) fn forget(&mut self, id: TicketId) {
        self.places.remove(&id);
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
        self.tickets.last += 1;
        let id = self.tickets.last;
        let Some(lane) = self.lanes.get_mut(from) else {
            let error = Error::new(ErrorKind::Disconnected, "the connection was closed");
            return acquire.ask.tell(Err(error.at(self.endpoint.as_text())));
        };
        if let Work::Waiting(subject, place) = std::mem::replace(&mut lane.work, Work::Ending) {
            lane.work = Work::Ticket(subject, place, id);
        }
        let place = QueuePlace {
            lane: from,
            target: acquire.target,
            key: acquire.key.clone(),
            ttl: acquire.ttl,
            policy: acquire.policy,
            enqueued_at,
        };
        self.tickets.places.insert(id, place);
        let ticket = Ticket::new(id, acquire.target.kind(), acquire.key.clone(), self.myself.clone());
        acquire.ask.tell(Ok(Acquired::Queued(ticket)));
    }

    /// Waits at the place of a ticket.
    pub(super) fn collect(&mut self, id: TicketId, until: Instant, ask: Ask<Acquired>) {
        let Some(place) = self.tickets.places.remove(&id) else {
            let error = if self.is_closing() {
                Error::new(ErrorKind::Shutdown, "the client is shut down")
            } else {
                Error::new(
                    ErrorKind::Disconnected,
                    "the place in the queue was lost with its connection: enqueue again",
                )
            };
            return ask.tell(Err(error.at(self.endpoint.as_text())));
        };
        let acquire = Acquire {
            target: place.target,
            key: place.key,
            ttl: place.ttl,
            policy: place.policy,
            ask,
        };
        let collect = Pending::Collect {
            acquire,
            until,
            enqueued_at: place.enqueued_at,
        };
        let on_abandon = self.on_abandon(place.lane);
        self.leave_ticket(place.lane);
        self.send_on(place.lane, collect, on_abandon);
    }

    /// A ticket was dropped.
    pub(super) fn give_up(&mut self, id: TicketId) {
        if let Some(place) = self.tickets.places.remove(&id) {
            self.leave_ticket(place.lane);
            let give_up = Pending::GiveUp(place.target.kind(), place.key);
            self.send_on(place.lane, give_up, OnAbandon::Finish);
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
            self.refuse(pending, error.at(self.endpoint.as_text()));
        }
    }
}
