//! The signal connections of a client: on its runtime, where its shards are, and closed with it.

use std::sync::{Mutex, PoisonError};

use ractor::ActorRef;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::message::LinkMessage;
use crate::ending::Ending;
use crate::error::{Error, Result};
use crate::join::join_all;
use crate::net::health::ShardHealth;

/// The health of a shard, or of a link.
pub(super) type HealthWatch = watch::Receiver<ShardHealth>;

/// What the signal connections of a client have in common.
pub(crate) struct Family {
    pub(super) runtime: Handle,
    /// Of each shard.
    pub(super) shards: Vec<HealthWatch>,
    ending: Ending,
    open: Mutex<Vec<OpenLink>>,
}

/// A link, as long as it is open.
pub(super) struct OpenLink {
    pub(super) actor: ActorRef<LinkMessage>,
    pub(super) health: HealthWatch,
}

impl Family {
    pub(crate) fn new(runtime: Handle, shards: Vec<HealthWatch>, ending: Ending) -> Self {
        Self {
            runtime,
            shards,
            ending,
            open: Mutex::default(),
        }
    }

    /// Whether more can be opened.
    pub(super) fn check(&self) -> Result<()> {
        self.ending.cause().map_or(Ok(()), |cause| Err(cause.clone()))
    }

    /// One more is open. If the client has come to its end meanwhile it is refused, and is to be closed.
    pub(super) fn add(&self, member: OpenLink) -> Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: whoever ends the client looks at those that are open after its end has begun.
        self.check()?;
        open.retain(|member| !is_closed(&member.health));
        open.push(member);
        Ok(())
    }

    /// Has all of them close. The future resolves once they have; dropping it makes no difference.
    pub(crate) fn close(&self, why: &Error) -> impl Future<Output = ()> + use<> {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for member in &open {
            // One that is gone is closed.
            drop(member.actor.send_message(LinkMessage::Close(why.clone())));
        }
        async move {
            join_all(open.into_iter().map(|member| until_closed(member.health))).await;
        }
    }
}

/// Resolves once a link is closed, or gone.
pub(super) async fn until_closed(mut health: HealthWatch) {
    drop(health.wait_for(|health| health.closed_because().is_some()).await);
}

pub(super) fn is_closed(health: &HealthWatch) -> bool {
    // Without its sender the actor is gone.
    health.borrow().closed_because().is_some() || health.has_changed().is_err()
}
