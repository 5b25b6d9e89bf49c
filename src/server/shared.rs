//! The data that the tasks of a server share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::options::ServerOptions;
use super::state::State;

/// The data that the tasks of a server share.
pub(super) struct Shared {
    pub(super) options: ServerOptions,
    /// The state of one server, or the state that all members of a cluster share.
    pub(super) state: Arc<Mutex<State>>,
    /// The number of this member; 0 for a server that stands alone.
    pub(super) member: usize,
    /// Cancelled when the server accepts no new connections any more.
    pub(super) draining: CancellationToken,
    /// Cancelled when the server stops: all tasks and connections end.
    pub(super) stopped: CancellationToken,
}

impl Shared {
    /// Locks the state. The guard must not be held across an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
