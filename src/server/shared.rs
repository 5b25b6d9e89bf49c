//! What the tasks of a server share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::options::ServerOptions;
use super::state::State;

/// What the tasks of a server share.
pub(super) struct Shared {
    pub(super) options: ServerOptions,
    /// Of one server, or of all members of a cluster.
    pub(super) state: Arc<Mutex<State>>,
    /// Which of the members this is; 0 for a server of its own.
    pub(super) member: usize,
    /// No new connections.
    pub(super) draining: CancellationToken,
    /// Everything ends.
    pub(super) stopped: CancellationToken,
}

impl Shared {
    /// The state, for a moment: never kept across an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
