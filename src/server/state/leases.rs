//! The life of leases: grants, renewals, releases, expiries, and the grants to waiters that follow.

use tokio::time::Instant;

use super::entry::{Holding, TwoPhase, Uncollected};
use super::report::About;
use super::session_claim::SessionClaim;
use super::{ConnectionId, GrantId, KeyId, NamedKey, Place, State};
use crate::clock::after;
use crate::protocol::{Response, Status};
use crate::server::event::EventKind;
use crate::types::{Fence, Grant, Token, Ttl};

impl State {
    pub(super) fn release(&mut self, key: NamedKey<'_>, token: Token, now: Instant) -> Response {
        let Some(subject) = key.known else {
            return Response::Refused(Status::Error);
        };
        // Releases up to 2.1 accept the release of an expired lease until the sweep.
        if self.options.release.is_cluster_build() {
            self.expire_entry(subject, now);
        }
        let Some(holder) = self.holder(subject, token) else {
            return Response::Refused(Status::Error);
        };
        let lease = holder.lease;
        self.drop_ticket(subject, lease);
        self.end_lease(subject, lease, EventKind::Released, now);
        Response::Done
    }

    pub(super) fn renew(
        &mut self,
        connection: ConnectionId,
        key: NamedKey<'_>,
        token: Token,
        ttl: Option<Ttl>,
        now: Instant,
    ) -> Response {
        let release = self.options.release;
        let ttl = ttl.unwrap_or(self.options.default_lease_ttl);
        let ends = after(now, ttl.as_duration());
        let known = key
            .known
            .and_then(|subject| Some((subject, self.entries.get_mut(subject)?)));
        let holder = known.and_then(|(subject, entry)| Some((subject, entry.holder_mut(token)?)));
        let Some((subject, holder)) = holder else {
            self.record_refused(connection, key, token, now);
            return Response::Refused(Status::Error);
        };
        let lease = holder.lease;
        if holder.ends <= now {
            self.expire_lease(subject, lease, now);
            self.record_refused(connection, key, token, now);
            return Response::Refused(match release.is_cluster_build() {
                true => Status::LeaseExpired,
                false => Status::Error,
            });
        }
        let mut owner = holder.connection;
        holder.grant.ttl = ttl;
        let before = std::mem::replace(&mut holder.ends, ends);
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.last_used = now;
        }
        self.ends.remove(&(before, lease));
        self.ends.insert((ends, lease), subject);
        if release.is_cluster_build() && !self.options.earlier_builds {
            self.move_lease(subject, lease, connection);
            owner = connection;
        }
        self.record(EventKind::Renewed, subject, About::Anew(token), owner, now);
        Response::Renewed(Some(ttl.as_secs()))
    }

    /// Records a refused renewal, but not a client's probe, which uses a token of zeros.
    fn record_refused(&mut self, connection: ConnectionId, key: NamedKey<'_>, token: Token, now: Instant) {
        if token != Token::NEVER_ISSUED {
            let about = About::Lease(token);
            self.record_of(EventKind::RenewalRefused, key, about, connection, now);
        }
    }

    /// Expires all leases whose time is over. Without a leader nothing happens: the next leader does it.
    pub(in crate::server) fn expire(&mut self, now: Instant) {
        if !self.is_led() {
            return;
        }
        self.time_out_ghosts(now);
        self.give_up_orphans(now);
        while let Some((&(ends, lease), &subject)) = self.ends.first_key_value() {
            if ends > now {
                return;
            }
            self.expire_lease(subject, lease, now);
        }
    }

    /// Ends a lease whose time is over, and the ticket of its grant if that ticket ends with the lease.
    pub(super) fn expire_lease(&mut self, subject: KeyId, lease: GrantId, now: Instant) {
        // On a single server of a cluster build, the ticket stays and tells its `w` that the lease has expired. In a
        // cluster, `end_lease` drops it.
        if !self.options.release.is_cluster_build() {
            self.drop_ticket(subject, lease);
        }
        self.end_lease(subject, lease, EventKind::Expired, now);
    }

    /// Drops the ticket of an uncollected grant, if the ticket ends with its lease.
    pub(super) fn drop_ticket(&mut self, subject: KeyId, lease: GrantId) {
        let Some(entry) = self.entries.get(subject) else {
            return;
        };
        let Some(holder) = entry.holders.iter().find(|holder| holder.lease == lease) else {
            return;
        };
        let (owner, token) = (holder.connection, holder.grant.token);
        let client = self.clients.get(&owner);
        let Some(TwoPhase::Granted(ticket)) = client.and_then(|client| client.ticket(entry.key())) else {
            return;
        };
        if ticket.grant.token == token && self.follows_lease(ticket) {
            if let Some(client) = self.clients.get_mut(&owner) {
                client.tickets.remove(entry.key());
            }
        }
    }

    pub(super) fn holder(&self, subject: KeyId, token: Token) -> Option<&Holding> {
        self.entries
            .get(subject)?
            .holders
            .iter()
            .find(|holder| holder.grant.token == token)
    }

    /// Grants a key to a connection, which may have waited at a queue position. The key must have a free slot.
    pub(super) fn grant(
        &mut self,
        (connection, claim): (ConnectionId, SessionClaim),
        subject: KeyId,
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
            entry.holders.push(Holding {
                lease,
                grant,
                connection,
                claim,
                ends,
            });
        }
        self.ends.insert((ends, lease), subject);
        if let Some(client) = self.clients.get_mut(&connection) {
            client.holds.insert(lease, subject);
        }
        let about = About::Grant(grant.token, place);
        self.record(EventKind::Granted, subject, about, connection, now);
        grant
    }

    /// Makes a token for a new lease. In releases with fences, the fence is derived from the number of the lease.
    fn token(&mut self, lease: GrantId) -> Token {
        let first = match self.options.release.makes_fences() {
            true => self.last_fence_before.wrapping_add(lease),
            false => self.random.next(),
        };
        Token::compose(Fence(first), self.random.next())
    }

    /// Ends a lease and grants the free slot to waiters.
    pub(super) fn end_lease(&mut self, subject: KeyId, lease: GrantId, why: EventKind, now: Instant) {
        let Some(entry) = self.entries.get_mut(subject) else {
            return;
        };
        let Some(index) = entry.holders.iter().position(|holder| holder.lease == lease) else {
            return;
        };
        let holder = entry.holders.swap_remove(index);
        entry.last_used = now;
        if let Some(client) = self.clients.get_mut(&holder.connection) {
            client.holds.remove(&lease);
        }
        if self.membership.is_some() {
            self.drop_ticket_of(holder.connection, subject, holder.grant.token);
        }
        self.ends.remove(&(holder.ends, lease));
        let about = About::Lease(holder.grant.token);
        self.record(why, subject, about, holder.connection, now);
        self.serve_waiters(subject, now);
    }

    pub(super) fn serve_waiters(&mut self, subject: KeyId, now: Instant) {
        while let Some(entry) = self.entries.get_mut(subject).filter(|entry| entry.has_room()) {
            let Some((place, waiter)) = entry.pop_waiter() else {
                return;
            };
            let connection = waiter.connection;
            let owner = (connection, waiter.claim.promoted());
            let grant = self.grant(owner, subject, Some(place), waiter.ttl, now);
            let at_once = false;
            self.promote_ticket(connection, subject, place, Uncollected { grant, at_once });
            if let Some(client) = self.clients.get_mut(&connection) {
                client.places.remove(&place);
                client.waits.take_if(|blocked| blocked.place == place);
            }
            for (member, reply) in waiter.replies {
                let granted = Response::Granted(grant);
                match &mut self.membership {
                    Some(members) => members.partition.tell(member, reply, granted),
                    // If the connection has just ended, it is about to release this grant.
                    None => drop(reply.send(granted)),
                }
            }
        }
    }

    /// Expires the leases of a key whose time is over. Every acquire and enqueue for the key calls this first, so that
    /// an expired lease does not stop a new holder even before the sweep. In clusters and cluster builds, waits and
    /// releases call it, too.
    pub(super) fn expire_entry(&mut self, subject: KeyId, now: Instant) {
        loop {
            let over = self
                .entries
                .get(subject)
                .and_then(|entry| entry.holders.iter().find(|holder| holder.ends <= now));
            let Some(lease) = over.map(|holder| holder.lease) else {
                return;
            };
            self.expire_lease(subject, lease, now);
        }
    }

    /// Drops a connection's ticket for a grant.
    pub(super) fn drop_ticket_of(&mut self, connection: ConnectionId, subject: KeyId, token: Token) {
        let (Some(client), Some(entry)) = (self.clients.get_mut(&connection), self.entries.get(subject)) else {
            return;
        };
        let ticket = client.ticket(entry.key());
        if matches!(ticket, Some(TwoPhase::Granted(uncollected)) if uncollected.grant.token == token) {
            client.tickets.remove(entry.key());
        }
    }
}
