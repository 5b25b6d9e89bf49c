//! What a test has a server do wrong, whether it stands alone or is all members of a cluster.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ConnectionId, KeyId, State};
use crate::protocol::{RawRequest, Status};
use crate::server::event::EventKind;
use crate::types::{Key, Kind, Token};

/// Which requests a planned refusal is for.
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

/// What a test has told a server to do wrong.
#[derive(Default)]
pub(super) struct Faults {
    /// This connection and all before it were cut.
    cut: ConnectionId,
    /// In the order in which they were asked for.
    refusals: Vec<(RefusedRequest, Status)>,
    /// So many connections are told that they presented no secret, or a wrong one.
    refused_secrets: usize,
}

impl Faults {
    pub(super) fn has_cut(&self, connection: ConnectionId) -> bool {
        connection <= self.cut
    }
}

impl State {
    /// As [`connect`](Self::connect), with what has the task of the connection end.
    pub(in crate::server) fn connect_until(&mut self, member: usize, end: CancellationToken) -> Option<ConnectionId> {
        let connection = self.connect(member)?;
        if let Some(client) = self.clients.get_mut(&connection) {
            client.end = Some(end);
        }
        Some(connection)
    }

    /// Ends all connections that there are. Their leases and places go the way of those of any connection that ends.
    pub(in crate::server) fn cut(&mut self, now: Instant) {
        self.faults.cut = self.last_connection;
        let connections: Vec<ConnectionId> = self.clients.keys().copied().collect();
        for client in self.clients.values() {
            client.end.iter().for_each(CancellationToken::cancel);
        }
        // No connection is granted what another leaves, only to leave it, too.
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

    /// Takes leases of a key away: that of a token, or all. Those that wait are granted what became free. Returns the tokens of what was taken
    /// away.
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

    /// What a key names here: as a lock, as a semaphore.
    pub(super) fn known_as(&self, key: &Key) -> Vec<KeyId> {
        let mut known: Vec<KeyId> = [Kind::Lock, Kind::Semaphore]
            .into_iter()
            .filter_map(|kind| self.named(kind, key.as_str().as_bytes()).known)
            .collect();
        // Where they share a namespace it is the same.
        known.dedup();
        known
    }

    /// Has the next request of this kind refused.
    pub(in crate::server) fn plan_refusal(&mut self, of: RefusedRequest, status: Status) {
        self.faults.refusals.push((of, status));
    }

    /// Has the next connection refused, as one that presents a wrong secret.
    pub(in crate::server) fn plan_refused_secret(&mut self) {
        self.faults.refused_secrets += 1;
    }

    /// How a request is refused, if a test wants that. It is wanted once.
    pub(in crate::server) fn planned_refusal(&mut self, request: &RawRequest<'_>) -> Option<Status> {
        let refusals = &mut self.faults.refusals;
        let planned = refusals.iter().position(|(of, _)| of.is(request))?;
        Some(refusals.remove(planned).1)
    }

    /// Whether a new connection is refused, if a test wants that. It is wanted once.
    pub(in crate::server) fn refuses_secret(&mut self) -> bool {
        let refused = self.faults.refused_secrets > 0;
        self.faults.refused_secrets = self.faults.refused_secrets.saturating_sub(1);
        refused
    }
}
