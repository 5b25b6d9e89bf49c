//! A caller that waits for an answer.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::Result;

/// A caller that waits for an answer, and the permit for the room that its request takes in the shard.
///
/// The permit is returned when the answer is consumed, not when the caller goes away. That bounds memory.
#[derive(Debug)]
pub(crate) struct Ask<T> {
    pub(crate) reply: oneshot::Sender<Result<T>>,
    pub(crate) _room: OwnedSemaphorePermit,
}

impl<T> Ask<T> {
    /// Sends the answer. If the caller is gone, the answer is dropped together with what it holds; dropping a lease
    /// releases it.
    pub(crate) fn tell(self, answer: Result<T>) {
        drop(self.reply.send(answer));
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }
}
