//! The state of one key, and of one connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::session_claim::SessionClaim;
use super::{ConnectionId, GrantId, KeyId, Place, QualifiedKey};
use crate::protocol::{Response, StableRef};
use crate::types::{Grant, Token, Ttl};

/// A key that is in use, or was in use recently.
pub(super) struct KeyEntry {
    key: QualifiedKey,
    pub(super) limit: u64,
    pub(super) holders: Vec<Holding>,
    /// In queue order.
    pub(super) waiters: BTreeMap<Place, Waiter>,
    pub(super) last_used: Instant,
    /// The queue positions of waiters that have presented a ref.
    by_ref: HashMap<StableRef, BTreeSet<Place>>,
}

pub(super) struct Holding {
    pub(super) lease: GrantId,
    pub(super) grant: Grant,
    pub(super) connection: ConnectionId,
    pub(super) claim: SessionClaim,
    pub(super) ends: Instant,
}

pub(super) struct Waiter {
    pub(super) connection: ConnectionId,
    pub(super) claim: SessionClaim,
    pub(super) ttl: Ttl,
    /// The channels to the requests that block at this queue position, each with the member that received the request.
    /// Empty if no request blocks: then the grant is kept for a later `w`. Contains several if a session has reclaimed
    /// its position at another member while its first request still waits.
    pub(super) replies: Vec<(usize, oneshot::Sender<Response>)>,
}

/// A request that blocks at a queue position.
#[derive(Clone)]
pub(super) struct Blocked {
    pub(super) subject: KeyId,
    pub(super) place: Place,
    pub(super) until: Instant,
    /// Whether the end of the request gives the queue position up. In a cluster, the end of a request that has
    /// reclaimed the position does not.
    pub(super) gives_up: bool,
}

/// The leases, queue positions and tickets of a connection.
#[derive(Default)]
pub(super) struct Peer {
    /// The member at the other end. A server that stands alone is member 0.
    pub(super) member: usize,
    /// The leases that the connection owns, in the order of the grants.
    pub(super) holds: BTreeMap<GrantId, KeyId>,
    /// The queue positions of the connection, in the order in which they were taken.
    pub(super) places: BTreeMap<Place, KeyId>,
    /// The tickets of the connection's `e` requests. The server may have forgotten some of their keys.
    pub(super) tickets: HashMap<QualifiedKey, TwoPhase>,
    /// The blocking request that the connection waits in.
    pub(super) waits: Option<Blocked>,
    /// The claim that the connection attaches to its leases and queue positions.
    pub(super) claim: SessionClaim,
    /// Ends the task of the connection.
    pub(super) end: Option<CancellationToken>,
}

impl Peer {
    pub(super) fn ticket(&self, key: &QualifiedKey) -> Option<TwoPhase> {
        // Most connections have no ticket: then the key is not hashed.
        match self.tickets.is_empty() {
            true => None,
            false => self.tickets.get(key).copied(),
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum TwoPhase {
    Queued(QueuedTicket),
    Granted(Uncollected),
}

/// A queue position that no `w` has ended yet.
#[derive(Clone, Copy)]
pub(super) struct QueuedTicket {
    pub(super) place: Place,
    /// Whether the next `w` leaves the queue position in place when it times out: the `e` has reclaimed the position.
    pub(super) outlives_wait: bool,
}

/// A grant that no `w` has collected yet.
#[derive(Clone, Copy)]
pub(super) struct Uncollected {
    pub(super) grant: Grant,
    /// Whether the answer to the `e` was the grant. Otherwise the grant came later, in the queue.
    pub(super) at_once: bool,
}

impl TwoPhase {
    pub(super) fn is_for(self, place: Place) -> bool {
        matches!(self, Self::Queued(queued) if queued.place == place)
    }
}

impl KeyEntry {
    pub(super) fn new(key: QualifiedKey, limit: u64, now: Instant) -> Self {
        Self {
            key,
            limit,
            holders: Vec::new(),
            waiters: BTreeMap::new(),
            last_used: now,
            by_ref: HashMap::new(),
        }
    }

    pub(super) fn key(&self) -> &QualifiedKey {
        &self.key
    }

    pub(super) fn holder_mut(&mut self, token: Token) -> Option<&mut Holding> {
        self.holders.iter_mut().find(|holder| holder.grant.token == token)
    }

    pub(super) fn add_waiter(&mut self, place: Place, waiter: Waiter) {
        if let Some(reference) = &waiter.claim.reference {
            self.by_ref.entry(reference.clone()).or_default().insert(place);
        }
        self.waiters.insert(place, waiter);
    }

    pub(super) fn remove_waiter(&mut self, place: Place) -> Option<Waiter> {
        let waiter = self.waiters.remove(&place)?;
        if let Some(reference) = &waiter.claim.reference {
            if let Some(places) = self.by_ref.get_mut(reference) {
                places.remove(&place);
                if places.is_empty() {
                    self.by_ref.remove(reference);
                }
            }
        }
        Some(waiter)
    }

    /// Removes the first waiter and returns it.
    pub(super) fn pop_waiter(&mut self) -> Option<(Place, Waiter)> {
        let place = *self.waiters.keys().next()?;
        Some((place, self.remove_waiter(place)?))
    }

    /// Returns the queue positions of a ref, in order.
    pub(super) fn places_of(&self, reference: &StableRef) -> impl Iterator<Item = (Place, &Waiter)> {
        let places = self.by_ref.get(reference).into_iter().flatten();
        places.filter_map(|place| Some((*place, self.waiters.get(place)?)))
    }

    pub(super) fn has_room(&self) -> bool {
        (self.holders.len() as u64) < self.limit
    }

    pub(super) fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }
}
