//! The shards that have been started, in the hands of a test.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::input::{Input, Mailbox};
use crate::types::Token;

/// The shards of some clients, each from its start on. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct StartedShards(Arc<Mutex<Vec<Mailbox>>>);

impl StartedShards {
    /// A shard has started. Those that are gone are forgotten.
    pub(crate) fn add(&self, shard: &Mailbox) {
        let mut shards = self.shards();
        shards.retain(|shard| !shard.is_closed());
        shards.push(shard.clone());
    }

    /// Has each of them ask its server now whether it holds the lease of a token, if it keeps that.
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
