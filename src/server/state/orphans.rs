//! Sessions: what a connection leaves behind is kept for the next one that presents the same ref.
//!
//! A client that is gone stays among the clients of the state, absent, until its time is over. So its places move up and
//! are granted in their turn, and its leases run on, as if it were there. Who comes back under the same ref and asks for
//! the key again takes over the holder, else the place. That they are taken from an absent client is not asked for: one
//! ref is one session, so whoever had them before is no more, even if the server has not noticed.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use super::entry::{Absence, TwoPhase};
use super::report::About;
use super::{ConnectionId, GrantId, Peer, Place, QualifiedKey, State, Taken, Wanted};
use crate::clock::after;
use crate::protocol::{Response, StableRef, Status};
use crate::server::event::EventKind;
use crate::types::{Grant, Ttl};

/// All sessions that have a name.
#[derive(Default)]
pub(super) struct Sessions {
    /// The clients of each, absent ones included.
    by_ref: HashMap<StableRef, BTreeSet<ConnectionId>>,
    /// The absent ones, and when they are given up.
    until: BTreeSet<(Instant, ConnectionId)>,
}

impl Sessions {
    /// How many clients are absent.
    pub(super) fn absent(&self) -> usize {
        self.until.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_ref.is_empty() && self.until.is_empty()
    }

    /// From now on the client is one of the session.
    fn join(&mut self, session: StableRef, client: ConnectionId) {
        self.by_ref.entry(session).or_default().insert(client);
    }

    fn leave(&mut self, session: &StableRef, client: ConnectionId) {
        if let Some(clients) = self.by_ref.get_mut(session) {
            clients.remove(&client);
            if clients.is_empty() {
                self.by_ref.remove(session);
            }
        }
    }

    /// Everybody who is absent gets so much time from now.
    pub(super) fn restart(&mut self, until: Instant) {
        let absent = std::mem::take(&mut self.until);
        self.until = absent.into_iter().map(|(_, client)| (until, client)).collect();
    }

    /// Nobody is waited for any more. Those who were absent.
    pub(super) fn forget(&mut self) -> Vec<ConnectionId> {
        let absent = std::mem::take(&mut self.until);
        absent.into_iter().map(|(_, client)| client).collect()
    }
}

impl State {
    /// A connection says which session it carries on.
    pub(super) fn stable_ref(&mut self, connection: ConnectionId, reference: StableRef) -> Response {
        let refused = Response::Refused(Status::Error);
        if !self.options.release.is_cluster_build() {
            return refused;
        }
        match self.clients.get_mut(&connection) {
            Some(client) if client.session.is_none() && !client.has_asked => {
                client.session = Some(reference.clone());
                self.sessions.join(reference, connection);
                Response::Done
            }
            _ => refused,
        }
    }

    /// Keeps what a client has, if there is somebody to keep it for. From now on it is absent.
    pub(super) fn orphan(&mut self, client: ConnectionId, absence: Absence, now: Instant) -> bool {
        let ttl = self.options.orphan_ttl;
        if ttl.is_zero() {
            return false;
        }
        let Some(gone) = self.clients.get_mut(&client).filter(|gone| gone.session.is_some()) else {
            return false;
        };
        gone.absent = Some(absence);
        let places = gone.places();
        let leases: Vec<(QualifiedKey, GrantId)> = gone.holds.iter().cloned().collect();
        if places.is_empty() && leases.is_empty() {
            return false;
        }
        self.sessions.until.insert((after(now, ttl), client));
        for (subject, lease) in leases {
            if let Some(grant) = self.grant_of(&subject, lease) {
                self.record(EventKind::Orphaned, &subject, About::Lease(grant.token), client, now);
            }
        }
        for (subject, place) in places {
            self.record(EventKind::Orphaned, &subject, About::Place(place), client, now);
        }
        true
    }

    /// Gives up all that nobody came for in time.
    pub(super) fn give_up_orphans(&mut self, now: Instant) {
        while let Some(&(until, client)) = self.sessions.until.first() {
            if until > now {
                return;
            }
            self.sessions.until.pop_first();
            self.give_up_all(client, now);
        }
    }

    /// What this connection's session has of a key: its oldest lease, else, unless this is a try, its first place in the
    /// queue.
    pub(super) fn take_back(
        &mut self,
        connection: ConnectionId,
        wanted: &Wanted,
        queue: bool,
        now: Instant,
    ) -> Option<Taken> {
        let Wanted { subject, limit, ttl } = wanted;
        if self.options.orphan_ttl.is_zero() {
            return None;
        }
        self.give_up_orphans(now);
        let session = self.clients.get(&connection)?.session.as_ref()?;
        if self.entries.get(subject)?.limit != *limit {
            return None;
        }
        let clients = self.sessions.by_ref.get(session)?;
        let others = clients.iter().copied().filter(|client| *client != connection);
        let others: Vec<ConnectionId> = others.collect();
        let leases = others.iter().filter_map(|client| self.first_lease(*client, subject));
        if let Some((lease, former)) = leases.min() {
            let grant = self.move_lease(subject, lease, connection)?;
            // A `w` that is to come finds nothing there.
            if let Some(former) = self.clients.get_mut(&former) {
                former.tickets.remove(subject);
            }
            let about = About::Lease(grant.token);
            self.record(EventKind::Reclaimed, subject, about, connection, now);
            return Some(Taken::Granted(grant));
        }
        if !queue {
            return None;
        }
        let places = others.iter().filter_map(|client| self.first_place(*client, subject));
        let (place, former) = places.min()?;
        self.move_place(subject, place, former, connection, *ttl);
        self.record(EventKind::Reclaimed, subject, About::Place(place), connection, now);
        Some(Taken::Queued(place))
    }

    /// Makes a client the owner of a lease, whoever was it before.
    pub(super) fn move_lease(&mut self, subject: &QualifiedKey, lease: GrantId, to: ConnectionId) -> Option<Grant> {
        let entry = self.entries.get_mut(subject)?;
        let holder = entry.holders.iter_mut().find(|holder| holder.lease == lease)?;
        let from = std::mem::replace(&mut holder.connection, to);
        let (grant, held) = (holder.grant, (subject.clone(), lease));
        if let Some(client) = self.clients.get_mut(&from) {
            client.holds.remove(&held);
        }
        if let Some(client) = self.clients.get_mut(&to) {
            client.holds.insert(held);
        }
        Some(grant)
    }

    /// Puts a client at another's place in a queue.
    fn move_place(&mut self, subject: &QualifiedKey, place: Place, from: ConnectionId, to: ConnectionId, ttl: Ttl) {
        if let Some(former) = self.clients.get_mut(&from) {
            if former.tickets.get(subject).is_some_and(|ticket| ticket.is_for(place)) {
                former.tickets.remove(subject);
            }
            former.waits.take_if(|(_, waits)| *waits == place);
        }
        let entry = self.entries.get_mut(subject);
        if let Some(waiter) = entry.and_then(|entry| entry.waiters.get_mut(&place)) {
            waiter.connection = to;
            waiter.ttl = ttl;
            waiter.told = None;
        }
    }

    /// Removes a client and nothing else.
    pub(super) fn remove_client(&mut self, client: ConnectionId) -> Option<Peer> {
        let removed = self.clients.remove(&client)?;
        if let Some(session) = &removed.session {
            self.sessions.leave(session, client);
        }
        Some(removed)
    }

    /// Adds what a connection had in an earlier term.
    pub(super) fn insert_former(&mut self, name: ConnectionId, former: Peer) {
        if let Some(session) = &former.session {
            self.sessions.join(session.clone(), name);
        }
        self.clients.insert(name, former);
    }

    fn first_lease(&self, client: ConnectionId, subject: &QualifiedKey) -> Option<(GrantId, ConnectionId)> {
        let holds = &self.clients.get(&client)?.holds;
        let (first, last) = ((subject.clone(), GrantId::MIN), (subject.clone(), GrantId::MAX));
        let (_, lease) = holds.range(first..=last).next()?;
        Some((*lease, client))
    }

    fn first_place(&self, client: ConnectionId, subject: &QualifiedKey) -> Option<(Place, ConnectionId)> {
        let entry = self.entries.get(subject)?;
        let client_here = self.clients.get(&client)?;
        let ticket = client_here.tickets.get(subject).and_then(|ticket| match ticket {
            TwoPhase::Queued(place) => Some(*place),
            TwoPhase::Granted(_) => None,
        });
        let waits = client_here.waits.as_ref().filter(|(waits, _)| waits == subject);
        let places = ticket.into_iter().chain(waits.map(|(_, place)| *place));
        // One that was granted while nobody waited at it is none any more.
        let place = places.filter(|place| entry.waiters.contains_key(place)).min()?;
        Some((place, client))
    }

    fn grant_of(&self, subject: &QualifiedKey, lease: GrantId) -> Option<Grant> {
        let holders = &self.entries.get(subject)?.holders;
        holders
            .iter()
            .find(|holder| holder.lease == lease)
            .map(|holder| holder.grant)
    }
}

#[cfg(test)]
mod tests;
