//! Two-phase acquires: `e` takes a queue position, and a later `w` waits for the grant.

use tokio::time::Instant;

use super::entry::{QueuedTicket, TwoPhase, Uncollected};
use super::report::About;
use super::{ConnectionId, KeyId, NamedKey, Place, ServerAnswer, State, Taken, Wanted};
use crate::clock::after;
use crate::protocol::{Response, Status};
use crate::server::event::EventKind;
use crate::types::{Grant, WaitSecs};

impl State {
    pub(super) fn enqueue(&mut self, connection: ConnectionId, wanted: Wanted<'_>, now: Instant) -> Response {
        let key = wanted.key.qualified();
        let client = self.clients.get(&connection);
        if client.is_some_and(|client| client.ticket(&key).is_some()) {
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
            Ok(Taken::Queued(_, place)) => {
                let outlives_wait = false;
                (
                    TwoPhase::Queued(QueuedTicket { place, outlives_wait }),
                    Response::Queued,
                )
            }
            Ok(Taken::Resumed(_, place)) => {
                let outlives_wait = true;
                (
                    TwoPhase::Queued(QueuedTicket { place, outlives_wait }),
                    Response::Queued,
                )
            }
            Ok(Taken::Busy) => return Response::TimedOut,
        };
        if let Some(client) = self.clients.get_mut(&connection) {
            client.tickets.insert(key, ticket);
        }
        response
    }

    pub(super) fn wait(
        &mut self,
        connection: ConnectionId,
        key: NamedKey<'_>,
        wait: WaitSecs,
        now: Instant,
    ) -> ServerAnswer {
        let client = self.clients.get_mut(&connection);
        let place = match client.and_then(|client| client.tickets.remove(&key.qualified())) {
            None => return ServerAnswer::Now(Response::Refused(Status::NotEnqueued)),
            Some(TwoPhase::Granted(uncollected)) => {
                return ServerAnswer::Now(self.hand_out(connection, key, uncollected, now));
            }
            Some(TwoPhase::Queued(QueuedTicket { place, .. })) => place,
        };
        match key.known {
            Some(subject) if self.draining || wait == WaitSecs::TRY => {
                self.leave(connection, subject, place, now);
                ServerAnswer::Now(match self.draining {
                    true => Response::Refused(Status::Error),
                    false => Response::TimedOut,
                })
            }
            Some(subject) => self.block(connection, subject, (place, true), wait, now),
            // The server knows every key that has a queue.
            None => ServerAnswer::Now(Response::Refused(Status::NotEnqueued)),
        }
    }

    /// Answers a `w` for an earlier grant.
    fn hand_out(&mut self, connection: ConnectionId, key: NamedKey<'_>, ticket: Uncollected, now: Instant) -> Response {
        let release = self.options.release;
        let grant = ticket.grant;
        if release.is_cluster_build() {
            if let Some(subject) = key.known {
                self.expire_entry(subject, now);
            }
            return match key.known.and_then(|subject| self.holder(subject, grant.token)) {
                Some(_) => Response::Granted(grant),
                None => Response::Refused(Status::LeaseExpired),
            };
        }
        let holder = key.known.and_then(|subject| {
            let holder = self.holder(subject, grant.token)?;
            Some((subject, holder.lease, holder.ends))
        });
        let looks_at_lease = self.follows_lease(ticket);
        match holder {
            Some((subject, lease, ends)) if ends <= now && looks_at_lease => {
                self.expire_lease(subject, lease, now);
                Response::Refused(Status::LeaseExpired)
            }
            Some((subject, ..)) => {
                self.restart_lease(subject, grant, now);
                let about = About::Anew(grant.token);
                self.record(EventKind::Collected, subject, about, connection, now);
                Response::Granted(grant)
            }
            None if looks_at_lease || release.refuses_swept_grants() => Response::Refused(Status::LeaseExpired),
            None => Response::Granted(grant),
        }
    }

    /// Returns whether the server checks the lease before it honours the ticket. If so, the ticket ends with the lease.
    pub(super) fn follows_lease(&self, ticket: Uncollected) -> bool {
        ticket.at_once || self.options.release.checks_leases_of_queued_grants()
    }

    /// Restarts a lease with the answer to its `w`.
    fn restart_lease(&mut self, subject: KeyId, Grant { token, ttl, .. }: Grant, now: Instant) {
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
        self.ends.remove(&(before, lease));
        self.ends.insert((ends, lease), subject);
    }

    /// Turns a queued ticket into a granted one, if the granted queue position belongs to a ticket.
    pub(super) fn promote_ticket(
        &mut self,
        connection: ConnectionId,
        subject: KeyId,
        place: Place,
        ticket: Uncollected,
    ) {
        let (Some(client), Some(entry)) = (self.clients.get_mut(&connection), self.entries.get(subject)) else {
            return;
        };
        let queued = client.tickets.get_mut(entry.key());
        // Without a ticket, the queue position belongs to a blocking acquire, or to a waiter whose connection has
        // ended.
        if let Some(queued) = queued.filter(|queued| queued.is_for(place)) {
            *queued = TwoPhase::Granted(ticket);
        }
    }
}
