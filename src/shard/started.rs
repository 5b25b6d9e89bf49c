//! The running shards of clients, for tests that make them check leases.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::input::{Input, Mailbox};
use crate::types::Token;

/// The shards of one or more clients. Each shard is added when it starts. Clones share the list.
#[derive(Clone, Default)]
pub(crate) struct StartedShards(Arc<Mutex<Vec<Mailbox>>>);

impl StartedShards {
    /// Adds a shard that has started, and removes those that are gone.
    pub(crate) fn add(&self, shard: &Mailbox) {
        let mut shards = self.shards();
        shards.retain(|shard| !shard.is_closed());
        shards.push(shard.clone());
    }

    /// Makes all shards check the lease with this token. The shard that has the lease asks its server whether the lease
    /// is still held.
    pub(crate) fn check(&self, token: Token) {
        self.shards().retain(|shard| shard.send(Input::CheckLease(token)));
    }

    fn shards(&self) -> MutexGuard<'_, Vec<Mailbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for StartedShards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StartedShards").field(&self.shards().len()).finish()
    }
}
