//! Sessions: the leases and queue positions of a connection move to the next connection that presents the same ref.
//!
//! Leases and queue positions carry the [`SessionClaim`] of the connection that owns them. A connection with the same
//! ref can reclaim one in two cases: the leader has seen the former connection end, or the former connection was to
//! another process, that is, to another member or to this member before a restart. If a connection to the same process
//! ends and the leader does not notice it, nothing can be reclaimed from that connection.

use tokio::time::Instant;

use super::report::About;
use super::session_claim::SessionClaim;
use super::{ConnectionId, GrantId, KeyId, Place, State, Taken};
use crate::clock::after;
use crate::protocol::{Response, StableRef, Status};
use crate::server::event::EventKind;
use crate::types::{Grant, Ttl};

impl State {
    /// Sets the session of a connection.
    pub(super) fn stable_ref(&mut self, connection: ConnectionId, reference: StableRef) -> Response {
        let client = self.clients.get_mut(&connection);
        match client.filter(|client| client.claim.reference.is_none()) {
            Some(client) if self.options.release.is_cluster_build() => {
                client.claim.reference = Some(reference);
                Response::Done
            }
            _ => Response::Refused(Status::Error),
        }
    }

    /// Returns whether sessions reclaim leases and queue positions. Earlier cluster builds need an orphan TTL for that.
    pub(super) fn reclaims(&self) -> bool {
        self.membership.is_some() && !(self.options.earlier_builds && self.options.orphan_ttl.is_zero())
    }

    /// Returns whether a connection with the claim `to` may reclaim a lease or queue position with the claim `owner`,
    /// given that both claims have the same ref. In earlier cluster builds the ref alone decides.
    pub(super) fn is_open(&self, owner: &SessionClaim, to: &SessionClaim) -> bool {
        self.options.earlier_builds || owner.is_open_to(to)
    }

    /// Reclaims the oldest lease that the connection's session has on a key; the lease starts again. Without a lease,
    /// reclaims the session's first queue position.
    pub(super) fn reclaim(
        &mut self,
        connection: ConnectionId,
        subject: KeyId,
        ttl: Ttl,
        now: Instant,
    ) -> Option<Taken> {
        if !self.reclaims() {
            return None;
        }
        let claim = &self.clients.get(&connection)?.claim;
        let reference = claim.reference.as_ref()?;
        let is_open = |other: &SessionClaim| self.is_open(other, claim);
        let entry = self.entries.get(subject)?;
        let own = entry.holders.iter().filter(|holder| {
            let of_session = holder.claim.reference.as_ref() == Some(reference);
            of_session && is_open(&holder.claim)
        });
        if let Some(lease) = own.map(|holder| holder.lease).min() {
            self.move_lease(subject, lease, connection)?;
            let grant = self.restart_for(subject, lease, ttl, now)?;
            let about = About::Anew(grant.token);
            self.record(EventKind::Reclaimed, subject, about, connection, now);
            return Some(Taken::Granted(grant));
        }
        let place = {
            let mut places = entry.places_of(reference).filter(|(_, waiter)| is_open(&waiter.claim));
            places.next().map(|(place, _)| place)?
        };
        self.move_place(subject, place, connection, Some(ttl), now);
        Some(Taken::Resumed(subject, place))
    }

    /// Makes a connection the owner of a lease.
    pub(super) fn move_lease(&mut self, subject: KeyId, lease: GrantId, to: ConnectionId) -> Option<Grant> {
        let claim = self.clients.get(&to)?.claim.clone();
        let entry = self.entries.get_mut(subject)?;
        let holder = entry.holders.iter_mut().find(|holder| holder.lease == lease)?;
        holder.claim = claim;
        let from = std::mem::replace(&mut holder.connection, to);
        let grant = holder.grant;
        if from != to && self.membership.is_some() {
            self.drop_ticket_of(from, subject, grant.token);
        }
        if let Some(client) = self.clients.get_mut(&from) {
            client.holds.remove(&lease);
        }
        if let Some(client) = self.clients.get_mut(&to) {
            client.holds.insert(lease, subject);
        }
        Some(grant)
    }

    /// Restarts a lease with this TTL.
    fn restart_for(&mut self, subject: KeyId, lease: GrantId, ttl: Ttl, now: Instant) -> Option<Grant> {
        let entry = self.entries.get_mut(subject)?;
        let holder = entry.holders.iter_mut().find(|holder| holder.lease == lease)?;
        let ends = after(now, ttl.as_duration());
        holder.grant.ttl = ttl;
        let before = std::mem::replace(&mut holder.ends, ends);
        let grant = holder.grant;
        self.ends.remove(&(before, lease));
        self.ends.insert((ends, lease), subject);
        Some(grant)
    }

    /// Moves a queue position to another connection. A request that blocks there is still answered when the position is
    /// granted.
    pub(super) fn move_place(
        &mut self,
        subject: KeyId,
        place: Place,
        to: ConnectionId,
        ttl: Option<Ttl>,
        now: Instant,
    ) {
        let Some(client) = self.clients.get(&to) else { return };
        let Some(entry) = self.entries.get_mut(subject) else {
            return;
        };
        let Some(waiter) = entry.waiters.get_mut(&place) else {
            return;
        };
        let from = std::mem::replace(&mut waiter.connection, to);
        waiter.claim = client.claim.clone();
        waiter.ttl = ttl.unwrap_or(waiter.ttl);
        if let Some(former) = self.clients.get_mut(&from).filter(|_| from != to) {
            former.places.remove(&place);
            if former.ticket(entry.key()).is_some_and(|ticket| ticket.is_for(place)) {
                former.tickets.remove(entry.key());
            }
        }
        if let Some(client) = self.clients.get_mut(&to) {
            client.places.insert(place, subject);
        }
        self.record(EventKind::Reclaimed, subject, About::Place(place), to, now);
    }
}
