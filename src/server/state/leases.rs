//! The life of leases: granted, renewed, released, expired, and passed on to whoever is next.

use tokio::time::Instant;

use super::entry::{Holder, Ticket};
use super::report::About;
use super::{Connection, LeaseId, Place, State, Subject};
use crate::clock::after;
use crate::protocol::{Response, Status};
use crate::server::event::EventKind;
use crate::types::{Fence, Grant, Token, Ttl};

impl State {
    pub(super) fn release(&mut self, subject: &Subject, token: Token, now: Instant) -> Response {
        self.expire_entry(subject, now);
        let Some(holder) = self.holder(subject, token) else {
            return Response::Refused(Status::Error);
        };
        let (lease, connection) = (holder.lease, holder.connection);
        if let Some(client) = self.clients.get_mut(&connection) {
            client.holds.remove(&(subject.clone(), lease));
            // A grant that was never collected by a `w` needs none any more.
            if matches!(client.tickets.get(subject), Some(Ticket::Granted(grant)) if grant.token == token) {
                client.tickets.remove(subject);
            }
        }
        self.end_lease(subject, lease, EventKind::Released, now);
        Response::Done
    }

    pub(super) fn renew(
        &mut self,
        connection: Connection,
        subject: &Subject,
        token: Token,
        ttl: Option<Ttl>,
        now: Instant,
    ) -> Response {
        self.expire_entry(subject, now);
        let ttl = ttl.unwrap_or(self.options.default_lease_ttl);
        let ends = after(now, ttl.as_duration());
        let Some(entry) = self.entries.get_mut(subject) else {
            return Response::Refused(Status::Error);
        };
        let Some(holder) = entry.holders.iter_mut().find(|holder| holder.grant.token == token) else {
            return Response::Refused(Status::Error);
        };
        entry.last_used = now;
        let lease = holder.lease;
        let mut owner = holder.connection;
        holder.grant.ttl = ttl;
        let before = std::mem::replace(&mut holder.ends, ends);
        self.ends.remove(&(before, lease, subject.clone()));
        self.ends.insert((ends, lease, subject.clone()));
        if self.options.release.is_cluster_build() {
            self.move_lease(subject, lease, connection);
            owner = connection;
        }
        self.record(EventKind::Renewed, subject, About::Lease(token), owner, now);
        Response::Renewed(Some(ttl.as_secs()))
    }

    /// Lets all leases expire whose time is over. Without a leader nothing happens: that is the next one's to do.
    pub(in crate::server) fn expire(&mut self, now: Instant) {
        if !self.is_led() {
            return;
        }
        self.give_up_orphans(now);
        while let Some((ends, lease, subject)) = self.ends.first().cloned() {
            if ends > now {
                return;
            }
            self.disown(&subject, lease);
            self.end_lease(&subject, lease, EventKind::Expired, now);
        }
    }

    pub(super) fn holder(&self, subject: &Subject, token: Token) -> Option<&Holder> {
        self.entries
            .get(subject)?
            .holders
            .iter()
            .find(|holder| holder.grant.token == token)
    }

    /// Makes somebody a holder, who may have waited at a place. There must be room.
    pub(super) fn grant(
        &mut self,
        connection: Connection,
        subject: &Subject,
        place: Option<Place>,
        ttl: Ttl,
        now: Instant,
    ) -> Grant {
        self.last_lease += 1;
        let lease = self.last_lease;
        let grant = Grant::new(self.token(lease), ttl);
        let ends = after(now, ttl.as_duration());
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.last_used = now;
            entry.holders.push(Holder {
                lease,
                grant,
                connection,
                ends,
            });
        }
        self.ends.insert((ends, lease, subject.clone()));
        if let Some(client) = self.clients.get_mut(&connection) {
            client.holds.insert((subject.clone(), lease));
        }
        let about = About::Grant(grant.token, place);
        self.record(EventKind::Granted, subject, about, connection, now);
        grant
    }

    /// A token for a new lease. Its number is the fence, in releases that make fences.
    fn token(&mut self, lease: LeaseId) -> Token {
        let first = match self.options.release.makes_fences() {
            true => lease,
            false => self.random.next(),
        };
        Token::compose(Fence(first), self.random.next())
    }

    /// Ends a lease and gives what became free to those who wait.
    pub(super) fn end_lease(&mut self, subject: &Subject, lease: LeaseId, why: EventKind, now: Instant) {
        let Some(entry) = self.entries.get_mut(subject) else {
            return;
        };
        let Some(index) = entry.holders.iter().position(|holder| holder.lease == lease) else {
            return;
        };
        let holder = entry.holders.swap_remove(index);
        entry.last_used = now;
        self.ends.remove(&(holder.ends, lease, subject.clone()));
        let about = About::Lease(holder.grant.token);
        self.record(why, subject, about, holder.connection, now);
        self.serve_waiters(subject, now);
    }

    pub(super) fn serve_waiters(&mut self, subject: &Subject, now: Instant) {
        while let Some(entry) = self.entries.get_mut(subject).filter(|entry| entry.has_room()) {
            let Some((place, waiter)) = entry.waiters.pop_first() else {
                return;
            };
            let connection = waiter.connection;
            let grant = self.grant(connection, subject, Some(place), waiter.ttl, now);
            let Some(client) = self.clients.get_mut(&connection) else {
                continue;
            };
            match waiter.told {
                Some(told) => {
                    client.waits = None;
                    // A connection that has just ended is about to give this back.
                    drop(told.send(Response::Granted(grant)));
                }
                None => {
                    let queued = client.tickets.get_mut(subject);
                    // Without one it is the place of somebody who waited, and is absent now.
                    if let Some(ticket @ Ticket::Queued(_)) = queued {
                        debug_assert!(
                            ticket.is_for(place),
                            "a connection waits behind what it has enqueued for"
                        );
                        *ticket = Ticket::Granted(grant);
                    }
                }
            }
        }
    }

    /// A lease that has run out counts no more when somebody asks for its key, swept or not.
    pub(super) fn expire_entry(&mut self, subject: &Subject, now: Instant) {
        loop {
            let over = self
                .entries
                .get(subject)
                .and_then(|entry| entry.holders.iter().find(|holder| holder.ends <= now));
            let Some(lease) = over.map(|holder| holder.lease) else {
                return;
            };
            self.disown(subject, lease);
            self.end_lease(subject, lease, EventKind::Expired, now);
        }
    }

    pub(super) fn disown(&mut self, subject: &Subject, lease: LeaseId) {
        let holder = self
            .entries
            .get(subject)
            .and_then(|entry| entry.holders.iter().find(|holder| holder.lease == lease));
        if let Some(client) = holder.and_then(|holder| self.clients.get_mut(&holder.connection)) {
            client.holds.remove(&(subject.clone(), lease));
        }
    }
}
