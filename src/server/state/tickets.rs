//! Two-phase acquires: a place in the queue now, the grant later.

use tokio::time::Instant;

use super::entry::{QueuedTicket, TwoPhase, Uncollected};
use super::report::About;
use super::{ConnectionId, Place, QualifiedKey, ServerAnswer, State, Taken, Wanted};
use crate::clock::after;
use crate::protocol::{Response, Status};
use crate::server::event::EventKind;
use crate::types::{Grant, WaitSecs};

impl State {
    pub(super) fn enqueue(&mut self, connection: ConnectionId, wanted: Wanted, now: Instant) -> Response {
        let client = self.clients.get(&connection);
        if client.is_some_and(|client| client.tickets.contains_key(&wanted.subject)) {
            return Response::Refused(Status::AlreadyEnqueued);
        }
        let (ticket, response) = match self.take_or_queue(connection, &wanted, true, now) {
            Err(status) => return Response::Refused(status),
            Ok(Taken::Granted(grant)) => {
                let at_once = true;
                (
                    TwoPhase::Granted(Uncollected { grant, at_once }),
                    Response::Acquired(grant),
                )
            }
            Ok(Taken::Queued(place)) => {
                let outlives_wait = false;
                (
                    TwoPhase::Queued(QueuedTicket { place, outlives_wait }),
                    Response::Queued,
                )
            }
            Ok(Taken::Resumed(place)) => {
                let outlives_wait = true;
                (
                    TwoPhase::Queued(QueuedTicket { place, outlives_wait }),
                    Response::Queued,
                )
            }
            Ok(Taken::Busy) => return Response::TimedOut,
        };
        if let Some(client) = self.clients.get_mut(&connection) {
            client.tickets.insert(wanted.subject, ticket);
        }
        response
    }

    pub(super) fn wait(
        &mut self,
        connection: ConnectionId,
        subject: QualifiedKey,
        wait: WaitSecs,
        now: Instant,
    ) -> ServerAnswer {
        let client = self.clients.get_mut(&connection);
        match client.and_then(|client| client.tickets.remove(&subject)) {
            None => ServerAnswer::Now(Response::Refused(Status::NotEnqueued)),
            Some(TwoPhase::Granted(uncollected)) => {
                ServerAnswer::Now(self.hand_out(connection, &subject, uncollected, now))
            }
            Some(TwoPhase::Queued(QueuedTicket { place, .. })) if self.draining => {
                self.leave(connection, &subject, place, now);
                ServerAnswer::Now(Response::Refused(Status::Error))
            }
            Some(TwoPhase::Queued(QueuedTicket { place, .. })) if wait == WaitSecs::TRY => {
                self.leave(connection, &subject, place, now);
                ServerAnswer::Now(Response::TimedOut)
            }
            Some(TwoPhase::Queued(QueuedTicket { place, .. })) => {
                self.block(connection, subject, (place, true), wait, now)
            }
        }
    }

    /// The answer to a `w` for what was granted before it.
    fn hand_out(
        &mut self,
        connection: ConnectionId,
        subject: &QualifiedKey,
        ticket: Uncollected,
        now: Instant,
    ) -> Response {
        let release = self.options.release;
        let grant = ticket.grant;
        if release.is_cluster_build() {
            self.expire_entry(subject, now);
            return match self.holder(subject, grant.token) {
                Some(_) => Response::Granted(grant),
                None => Response::Refused(Status::LeaseExpired),
            };
        }
        let holder = self
            .holder(subject, grant.token)
            .map(|holder| (holder.lease, holder.ends));
        let looks_at_lease = self.follows_lease(ticket);
        match holder {
            Some((lease, ends)) if ends <= now && looks_at_lease => {
                self.expire_lease(subject, lease, now);
                Response::Refused(Status::LeaseExpired)
            }
            Some(_) => {
                self.restart_lease(subject, grant, now);
                let about = About::Anew(grant.token);
                self.record(EventKind::Collected, subject, about, connection, now);
                Response::Granted(grant)
            }
            None if looks_at_lease || release.refuses_stale_grants() => Response::Refused(Status::LeaseExpired),
            None => Response::Granted(grant),
        }
    }

    /// Whether what becomes of the lease is looked at before the ticket is honoured. Then the ticket ends with the lease, too.
    pub(super) fn follows_lease(&self, ticket: Uncollected) -> bool {
        ticket.at_once || self.options.release.knows_grants_of_tickets()
    }

    /// A lease begins anew with the answer to its `w`.
    fn restart_lease(&mut self, subject: &QualifiedKey, Grant { token, ttl, .. }: Grant, now: Instant) {
        let Some(entry) = self.entries.get_mut(subject) else {
            return;
        };
        entry.last_used = now;
        let holder = entry.holders.iter_mut().find(|holder| holder.grant.token == token);
        let Some(holder) = holder else {
            return;
        };
        let (lease, ends) = (holder.lease, after(now, ttl.as_duration()));
        let before = std::mem::replace(&mut holder.ends, ends);
        self.ends.remove(&(before, lease, subject.clone()));
        self.ends.insert((ends, lease, subject.clone()));
    }

    /// What was granted at a place may be collected now, if the place is that of a ticket.
    pub(super) fn promote_ticket(
        &mut self,
        connection: ConnectionId,
        subject: &QualifiedKey,
        place: Place,
        ticket: Uncollected,
    ) {
        let client = self.clients.get_mut(&connection);
        let queued = client.and_then(|client| client.tickets.get_mut(subject));
        // Without one it is the place of a waiter that is absent now.
        if let Some(queued) = queued.filter(|queued| queued.is_for(place)) {
            *queued = TwoPhase::Granted(ticket);
        }
    }
}
