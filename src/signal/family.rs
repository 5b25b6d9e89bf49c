//! The signal connections of a client: they run on its runtime, follow its shards, and are closed with it.

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

/// The state that the signal connections of a client share.
pub(crate) struct Family {
    pub(super) runtime: Handle,
    /// The health of each shard.
    pub(super) shards: Vec<HealthWatch>,
    ending: Ending,
    open: Mutex<Vec<OpenLink>>,
}

/// A link that is open.
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

    /// Returns an error if no more links can be opened.
    pub(super) fn check(&self) -> Result<()> {
        self.ending.cause().map_or(Ok(()), |cause| Err(cause.clone()))
    }

    /// Adds an open link. If the client has ended meanwhile, the link is refused, and must be closed.
    pub(super) fn add(&self, member: OpenLink) -> Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Checked under the lock: the end of the client is recorded before `close` takes the open links. So either this
        // check fails, or `close` finds the new link.
        self.check()?;
        open.retain(|member| !is_closed(&member.health));
        open.push(member);
        Ok(())
    }

    /// Tells all links to close. The future completes once they are closed. Dropping it does not stop the closing.
    pub(crate) fn close(&self, why: &Error) -> impl Future<Output = ()> + use<> {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for member in &open {
            // A link whose actor is gone is closed.
            drop(member.actor.send_message(LinkMessage::Close(why.clone())));
        }
        async move {
            join_all(open.into_iter().map(|member| until_closed(member.health))).await;
        }
    }
}

/// Waits until a link is closed or gone.
pub(super) async fn until_closed(mut health: HealthWatch) {
    drop(health.wait_for(|health| health.closed_because().is_some()).await);
}

pub(super) fn is_closed(health: &HealthWatch) -> bool {
    // If the sender is gone, the actor is gone.
    health.borrow().closed_because().is_some() || health.has_changed().is_err()
}
