//! The table of the shards: the router writes it, and every caller reads it.
//!
//! A request goes from its caller's task directly into the mailbox of its shard's actor. The router is not on that
//! path. It keeps this table up to date. A caller takes a read lock on the table entry; the router takes the write lock
//! only after an actor has died.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::shard::Run;
use crate::error::{Error, ErrorKind, Result};
use crate::net::health::ShardHealth;
use crate::shard::input::{Input, Mailbox};
use crate::sharding::Placement;
use crate::types::Key;

/// The maximum time for which a caller whose request was lost waits for the cause from the shard.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(1);

/// All shards, and the rule that assigns keys to them.
pub(crate) struct Topology {
    pub(crate) placement: Placement,
    pub(crate) shards: Vec<ShardPlace>,
}

/// The shards of a key.
pub(crate) struct Route<'a> {
    /// The shard that serves the key.
    pub(crate) place: &'a ShardPlace,
    /// The shard that served the key before, if the key moves. It is acquired there first.
    pub(crate) previous: Option<&'a ShardPlace>,
}

/// What callers need to know of a shard. Everything except the actor outlives the actor's death.
pub(crate) struct ShardPlace {
    pub(crate) index: usize,
    actor: RwLock<(ActorRef<Run>, Mailbox)>,
    pub(crate) health: watch::Receiver<ShardHealth>,
    /// The room for requests that do not wait on the server.
    pub(crate) room: Arc<Semaphore>,
    /// The room for requests that wait on the server.
    pub(crate) waiting_room: Arc<Semaphore>,
    /// The room for waits at existing queue positions. This room has no limit of its own, because the number of
    /// connections limits the positions. If it had one, an available grant might wait for room behind callers that wait
    /// for that same grant.
    pub(crate) ticket_room: Arc<Semaphore>,
}

impl ShardPlace {
    pub(crate) fn new(
        index: usize,
        actor: (ActorRef<Run>, Mailbox),
        health: watch::Receiver<ShardHealth>,
        max_in_flight: usize,
        max_waiters: usize,
    ) -> Self {
        Self {
            index,
            actor: RwLock::new(actor),
            health,
            room: Arc::new(Semaphore::new(max_in_flight)),
            waiting_room: Arc::new(Semaphore::new(max_waiters)),
            ticket_room: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    /// Returns the server that serves the shard, or that the shard tries to reach.
    pub(crate) fn endpoint(&self) -> Arc<str> {
        Arc::clone(&self.health.borrow().endpoint)
    }

    /// Sends an input to the shard.
    pub(crate) fn tell(&self, input: Input) -> Result<()> {
        let actor = self.actor.read().unwrap_or_else(PoisonError::into_inner);
        if actor.1.send(input) { Ok(()) } else { Err(self.gone()) }
    }

    /// Returns the error of a shard that is closed, or whose actor died with a request.
    pub(crate) fn gone(&self) -> Error {
        let health = self.health.borrow();
        if let Some(cause) = health.closed_because().or(health.death()) {
            return cause.clone();
        }
        Error::new(
            ErrorKind::ShardGone,
            format!("the actor of shard {} died; another takes its place", self.index),
        )
        .at(&health.endpoint)
    }

    /// Returns the same error as [`gone`](Self::gone), for a request that the shard had taken. First waits for the
    /// cause, which may be about to be published.
    pub(crate) async fn lost(&self) -> Error {
        let mut health = self.health.clone();
        let told = health.wait_for(|health| health.closed_because().or(health.death()).is_some());
        // After this time, the error names an older cause or no cause.
        drop(timeout(CAUSE_TIMEOUT, told).await);
        self.gone()
    }

    pub(crate) fn is_actor(&self, id: ractor::ActorId) -> bool {
        self.actor.read().unwrap_or_else(PoisonError::into_inner).0.get_id() == id
    }

    /// Replaces an actor that died.
    pub(crate) fn replace(&self, actor: (ActorRef<Run>, Mailbox)) {
        *self.actor.write().unwrap_or_else(PoisonError::into_inner) = actor;
    }
}

impl Topology {
    /// Returns the shard with this index.
    pub(crate) fn shard(&self, index: usize) -> Result<&ShardPlace> {
        self.shards.get(index).ok_or_else(|| {
            let remedy = format!("this client has {} shards, counted from 0", self.shards.len());
            Error::invalid("shard index", index, &remedy)
        })
    }

    /// Returns the shards of a key.
    #[inline]
    pub(crate) fn route(&self, key: &Key) -> Result<Route<'_>> {
        let placed = self.placement.place(key.as_str())?;
        Ok(Route {
            place: self.shard(placed.shard)?,
            previous: match placed.previous {
                None => None,
                Some(shard) => Some(self.shard(shard)?),
            },
        })
    }
}
