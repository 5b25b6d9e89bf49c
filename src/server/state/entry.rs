//! What is known of one key, and of one connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{ConnectionId, GrantId, Place, QualifiedKey};
use crate::protocol::{Response, StableRef};
use crate::types::{Grant, Ttl};

/// A key that is used, or was lately.
pub(super) struct KeyEntry {
    pub(super) limit: u64,
    pub(super) holders: Vec<Holding>,
    /// In order.
    pub(super) waiters: BTreeMap<Place, Waiter>,
    pub(super) last_used: Instant,
}

pub(super) struct Holding {
    pub(super) lease: GrantId,
    pub(super) grant: Grant,
    pub(super) connection: ConnectionId,
    pub(super) ends: Instant,
}

pub(super) struct Waiter {
    pub(super) connection: ConnectionId,
    pub(super) ttl: Ttl,
    /// Where the grant is told, once somebody waits for it. Without, it is kept for a later `w`.
    pub(super) told: Option<oneshot::Sender<Response>>,
}

/// What a connection has to do with which keys.
#[derive(Default)]
pub(super) struct Peer {
    /// The member that it is connected to. A server of its own is member 0.
    pub(super) member: usize,
    /// What it acquired and did not release.
    pub(super) holds: BTreeSet<(QualifiedKey, GrantId)>,
    /// What it enqueued for.
    pub(super) tickets: HashMap<QualifiedKey, TwoPhase>,
    /// Where it waits inside a blocking request.
    pub(super) waits: Option<(QualifiedKey, Place)>,
    /// The session that it carries on, if it has said so.
    pub(super) session: Option<StableRef>,
    /// It has asked for a lock or slot: too late to say so.
    pub(super) has_asked: bool,
    /// Set once it is not connected any more, and remembered for those who come after it.
    pub(super) absent: Option<Absence>,
}

/// Why a client is absent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// Its connection has ended. When it is given up, its leases end.
    Ended,
    /// Another member leads now. When it is given up, its leases run on: their tokens are good with any leader.
    LeftBehind,
}

#[derive(Clone, Copy)]
pub(super) enum TwoPhase {
    Queued(Place),
    Granted(Uncollected),
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
        matches!(self, Self::Queued(queued) if queued == place)
    }
}

impl Peer {
    /// Its places in queues, in the order in which it took them. Some may be granted meanwhile.
    pub(super) fn places(&self) -> Vec<(QualifiedKey, Place)> {
        let queued = self.tickets.iter().filter_map(|(subject, ticket)| match ticket {
            TwoPhase::Queued(place) => Some((subject.clone(), *place)),
            TwoPhase::Granted(_) => None,
        });
        let mut places: Vec<(QualifiedKey, Place)> = queued.chain(self.waits.clone()).collect();
        places.sort_unstable_by_key(|(_, place)| *place);
        places
    }
}

impl KeyEntry {
    pub(super) fn has_room(&self) -> bool {
        (self.holders.len() as u64) < self.limit
    }

    pub(super) fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }
}
