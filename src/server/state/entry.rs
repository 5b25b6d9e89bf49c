//! What is known of one key, and of one connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claim::Claim;
use super::{ConnectionId, GrantId, KeyId, Place, QualifiedKey};
use crate::protocol::{Response, StableRef};
use crate::types::{Grant, Token, Ttl};

/// A key that is used, or was lately.
pub(super) struct KeyEntry {
    key: QualifiedKey,
    pub(super) limit: u64,
    pub(super) holders: Vec<Holding>,
    /// In order.
    pub(super) waiters: BTreeMap<Place, Waiter>,
    pub(super) last_used: Instant,
    /// The places of those that have presented a ref.
    by_ref: HashMap<StableRef, BTreeSet<Place>>,
}

pub(super) struct Holding {
    pub(super) lease: GrantId,
    pub(super) grant: Grant,
    pub(super) connection: ConnectionId,
    pub(super) claim: Claim,
    pub(super) ends: Instant,
}

pub(super) struct Waiter {
    pub(super) connection: ConnectionId,
    pub(super) claim: Claim,
    pub(super) ttl: Ttl,
    /// Where the grant is told, and by which member. Empty if no request blocks: then it is kept for a later `w`. Several, if a
    /// session has taken its place back at another member while the first one waits on.
    pub(super) told: Vec<(usize, oneshot::Sender<Response>)>,
}

/// A request that blocks at a place.
#[derive(Clone)]
pub(super) struct Blocked {
    pub(super) subject: KeyId,
    pub(super) place: Place,
    pub(super) until: Instant,
    /// Its end gives the place up. In a cluster, that of a request which has taken the place back does not.
    pub(super) gives_up: bool,
}

/// What a connection has to do with which keys.
#[derive(Default)]
pub(super) struct Peer {
    /// The member that it is connected to. A server of its own is member 0.
    pub(super) member: usize,
    /// What it acquired and did not release, in the order of the grants.
    pub(super) holds: BTreeMap<GrantId, KeyId>,
    /// Its places in queues, in the order in which they were taken.
    pub(super) places: BTreeMap<Place, KeyId>,
    /// What it enqueued for. Some of it the server may have forgotten.
    pub(super) tickets: HashMap<QualifiedKey, TwoPhase>,
    /// Where it waits inside a blocking request.
    pub(super) waits: Option<Blocked>,
    /// What it says of itself to the keys that it asks for.
    pub(super) claim: Claim,
    /// Has its task end.
    pub(super) end: Option<CancellationToken>,
}

impl Peer {
    pub(super) fn ticket(&self, key: &QualifiedKey) -> Option<TwoPhase> {
        // Most connections have none: then the key is not hashed.
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

/// A place that no `w` has brought to an end yet.
#[derive(Clone, Copy)]
pub(super) struct QueuedTicket {
    pub(super) place: Place,
    /// The next `w` that runs out of time leaves the place where it is: an `e` has taken it back.
    pub(super) outlives_wait: bool,
}

/// A grant that no `w` has answered yet.
#[derive(Clone, Copy)]
pub(super) struct Uncollected {
    pub(super) grant: Grant,
    /// It was granted by the answer to its `e`, not in the queue.
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

    /// The first of those that wait.
    pub(super) fn pop_waiter(&mut self) -> Option<(Place, Waiter)> {
        let place = *self.waiters.keys().next()?;
        Some((place, self.remove_waiter(place)?))
    }

    /// The places of a ref, in order.
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
