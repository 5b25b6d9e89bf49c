//! What is known of one key, and of one connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Connection, Place, Subject};
use crate::protocol::Response;
use crate::types::{Fence, Grant, Ttl};

/// A key that is used, or was lately.
pub(super) struct Entry {
    pub(super) limit: u32,
    pub(super) holders: Vec<Holder>,
    /// In order.
    pub(super) waiters: BTreeMap<Place, Waiter>,
    pub(super) last_used: Instant,
}

pub(super) struct Holder {
    pub(super) grant: Grant,
    pub(super) connection: Connection,
    pub(super) ends: Instant,
}

pub(super) struct Waiter {
    pub(super) connection: Connection,
    pub(super) ttl: Ttl,
    /// Where the grant is told, once somebody waits for it. Without, it is kept for a later `w`.
    pub(super) told: Option<oneshot::Sender<Response>>,
}

/// What a connection has to do with which keys.
#[derive(Default)]
pub(super) struct Client {
    /// What it acquired and did not release.
    pub(super) holds: BTreeSet<(Subject, Fence)>,
    /// What it enqueued for.
    pub(super) tickets: HashMap<Subject, Ticket>,
    /// Where it waits inside a blocking request.
    pub(super) waits: Option<(Subject, Place)>,
}

#[derive(Clone, Copy)]
pub(super) enum Ticket {
    Queued(Place),
    Granted(Grant),
}

impl Entry {
    pub(super) fn has_room(&self) -> bool {
        self.holders.len() < self.limit as usize
    }

    pub(super) fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }
}
