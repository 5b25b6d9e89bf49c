//! Where each shard is: written by the router, read by every caller.
//!
//! A request goes from its caller's task straight into the mailbox of its shard's actor. The router is not on that
//! way: it keeps this table true, which costs a caller a read lock that is taken for writing only when an actor has died.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::shard::Run;
use crate::error::{Error, ErrorKind, Result};
use crate::net::health::ShardHealth;
use crate::shard::input::{Input, Mailbox};
use crate::sharding::CheckedStrategy;
use crate::types::Key;

/// What a request that was lost waits for the cause.
const A_MOMENT: Duration = Duration::from_secs(1);

/// All shards, and the rule which key belongs to which.
pub(crate) struct Topology {
    pub(crate) strategy: CheckedStrategy,
    pub(crate) shards: Vec<ShardPlace>,
}

/// What callers need to know of a shard. All but the actor outlives the actor's death.
pub(crate) struct ShardPlace {
    pub(crate) index: usize,
    actor: RwLock<(ActorRef<Run>, Mailbox)>,
    pub(crate) health: watch::Receiver<ShardHealth>,
    /// Room for requests that do not wait on the server.
    pub(crate) room: Arc<Semaphore>,
    /// Room for those that do.
    pub(crate) waiting_room: Arc<Semaphore>,
    /// Room for waits at places that are taken already. The connections bound those, so it is never full: a grant that is there must
    /// not wait for room behind callers that wait for that grant.
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

    /// The server that serves it, or is tried.
    pub(crate) fn endpoint(&self) -> Arc<str> {
        Arc::clone(&self.health.borrow().endpoint)
    }

    /// Tells the shard.
    pub(crate) fn tell(&self, input: Input) -> Result<()> {
        let actor = self.actor.read().unwrap_or_else(PoisonError::into_inner);
        if actor.1.send(input) { Ok(()) } else { Err(self.gone()) }
    }

    /// The shard is closed, or its actor died with a request in its hands.
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

    /// As [`gone`](Self::gone), for a request that the shard had in its hands: what ended it may be about to say so.
    pub(crate) async fn lost(&self) -> Error {
        let mut health = self.health.clone();
        let told = health.wait_for(|health| health.closed_because().or(health.death()).is_some());
        // Without an answer there is an older one, or none: it is not worth more of the caller's time.
        drop(timeout(A_MOMENT, told).await);
        self.gone()
    }

    pub(crate) fn is_actor(&self, id: ractor::ActorId) -> bool {
        self.actor.read().unwrap_or_else(PoisonError::into_inner).0.get_id() == id
    }

    /// Puts a new actor into the place of one that died.
    pub(crate) fn replace(&self, actor: (ActorRef<Run>, Mailbox)) {
        *self.actor.write().unwrap_or_else(PoisonError::into_inner) = actor;
    }
}

impl Topology {
    /// The shard of that index.
    pub(crate) fn shard(&self, index: usize) -> Result<&ShardPlace> {
        self.shards.get(index).ok_or_else(|| {
            let remedy = format!("this client has {} shards, counted from 0", self.shards.len());
            Error::invalid("shard index", index, &remedy)
        })
    }

    /// The shard that serves a key.
    pub(crate) fn route(&self, key: &Key) -> Result<&ShardPlace> {
        self.shard(self.strategy.shard(key.as_str(), self.shards.len())?)
    }
}
