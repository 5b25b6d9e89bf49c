//! The faults that a test has requested, for a server that stands alone or for all members of a cluster.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ConnectionId, KeyId, State};
use crate::protocol::{RawRequest, Status};
use crate::server::event::EventKind;
use crate::types::{Key, Kind, Token};

/// The requests that a planned refusal applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum RefusedRequest {
    /// An acquire or an enqueue.
    Acquire,
    Renew,
    Release,
}

impl RefusedRequest {
    fn is(self, request: &RawRequest<'_>) -> bool {
        match self {
            Self::Acquire => matches!(request, RawRequest::Acquire { .. } | RawRequest::Enqueue { .. }),
            Self::Renew => matches!(request, RawRequest::Renew { .. }),
            Self::Release => matches!(request, RawRequest::Release { .. }),
        }
    }
}

/// The faults that a test has requested.
#[derive(Default)]
pub(super) struct Faults {
    /// The last connection that was cut. All earlier connections have been cut, too.
    cut: ConnectionId,
    /// The planned refusals. Of several for the same kind of request, the first applies first.
    refusals: Vec<(RefusedRequest, Status)>,
    /// How many further connections are refused as if they had presented no secret, or a wrong one.
    refused_secrets: usize,
}

impl Faults {
    pub(super) fn has_cut(&self, connection: ConnectionId) -> bool {
        connection <= self.cut
    }
}

impl State {
    /// Does the same as [`connect`](Self::connect), and keeps a token that ends the task of the connection.
    pub(in crate::server) fn connect_until(&mut self, member: usize, end: CancellationToken) -> Option<ConnectionId> {
        let connection = self.connect(member)?;
        if let Some(client) = self.clients.get_mut(&connection) {
            client.end = Some(end);
        }
        Some(connection)
    }

    /// Ends all open connections. Their leases and queue positions are treated like those of any connection that ends.
    pub(in crate::server) fn cut(&mut self, now: Instant) {
        self.faults.cut = self.last_connection;
        let connections: Vec<ConnectionId> = self.clients.keys().copied().collect();
        for client in self.clients.values() {
            client.end.iter().for_each(CancellationToken::cancel);
        }
        // All queue positions are given up first, so that no lease of an ending connection is granted to another
        // connection that is about to end.
        if self.membership.is_none() {
            for connection in &connections {
                self.leave_all(*connection, now);
            }
        }
        for connection in connections {
            self.disconnect(connection, now);
        }
    }

    fn leave_all(&mut self, connection: ConnectionId, now: Instant) {
        let always = self.options.auto_release_on_disconnect || self.options.release.always_gives_up_places();
        let places = self.clients.get(&connection).filter(|_| always);
        let places: Vec<_> = places.map_or_else(Vec::new, |client| client.places.clone().into_iter().collect());
        for (place, subject) in places {
            self.leave(connection, subject, place, now);
        }
    }

    /// Ends leases of a key: the lease of a token, or all. Waiters are granted the free slots. Returns the tokens of
    /// the ended leases.
    pub(in crate::server) fn revoke(&mut self, key: &Key, token: Option<&Token>, now: Instant) -> Vec<Token> {
        let mut revoked = Vec::new();
        for subject in self.known_as(key) {
            let holders = self.entries.get(subject).map(|entry| &entry.holders);
            let leases = holders.into_iter().flatten().map(|held| (held.lease, held.grant.token));
            let wanted = leases.filter(|(_, held)| token.is_none_or(|token| token == held));
            for (lease, token) in wanted.collect::<Vec<_>>() {
                self.drop_ticket(subject, lease);
                self.end_lease(subject, lease, EventKind::Revoked, now);
                revoked.push(token);
            }
        }
        revoked
    }

    /// Returns the entries that have this name: the lock and the semaphore, as far as the server knows them.
    pub(super) fn known_as(&self, key: &Key) -> Vec<KeyId> {
        let mut known: Vec<KeyId> = [Kind::Lock, Kind::Semaphore]
            .into_iter()
            .filter_map(|kind| self.named(kind, key.as_str().as_bytes()).known)
            .collect();
        // If locks and semaphores share a namespace, both are the same entry.
        known.dedup();
        known
    }

    /// Refuses the next request of this kind.
    pub(in crate::server) fn plan_refusal(&mut self, of: RefusedRequest, status: Status) {
        self.faults.refusals.push((of, status));
    }

    /// Refuses the next connection as if it had presented a wrong secret.
    pub(in crate::server) fn plan_refused_secret(&mut self) {
        self.faults.refused_secrets += 1;
    }

    /// Takes the refusal that a test has planned for this request, if there is one. It applies only once.
    pub(in crate::server) fn planned_refusal(&mut self, request: &RawRequest<'_>) -> Option<Status> {
        let refusals = &mut self.faults.refusals;
        let planned = refusals.iter().position(|(of, _)| of.is(request))?;
        Some(refusals.remove(planned).1)
    }

    /// Returns whether a test has planned to refuse a new connection. The plan applies only once.
    pub(in crate::server) fn refuses_secret(&mut self) -> bool {
        let refused = self.faults.refused_secrets > 0;
        self.faults.refused_secrets = self.faults.refused_secrets.saturating_sub(1);
        refused
    }
}
