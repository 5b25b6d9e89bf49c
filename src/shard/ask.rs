//! A caller that waits for an answer.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::Result;

/// A caller that waits for an answer, and the room that the request takes up in the shard.
///
/// The room is given back when the answer was consumed, not when the caller goes away: that is what bounds memory.
#[derive(Debug)]
pub(crate) struct Ask<T> {
    pub(crate) told: oneshot::Sender<Result<T>>,
    pub(crate) _room: OwnedSemaphorePermit,
}

impl<T> Ask<T> {
    /// Answers. If the caller is gone the answer is dropped, and with it what it holds: a lease that is dropped is given back.
    pub(crate) fn tell(self, answer: Result<T>) {
        drop(self.told.send(answer));
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.told.is_closed()
    }
}
