//! Finds the caller that gets a grant, and the caller whose server wait has ended.

use tokio::time::Instant;

use super::{Waiter, Waits};
use crate::shard::ids::WaitKey;

impl<W: Waiter> Waits<W> {
    /// Returns the caller for which the key's last server wait was started.
    pub(crate) fn last_covered(&self, key: &WaitKey) -> Option<&W> {
        self.keys.get(key)?.last_covered()
    }

    /// Removes and returns the caller that gets a grant of this key.
    pub(crate) fn claim(&mut self, key: &WaitKey, now: Instant) -> Option<W> {
        self.sync(key, now);
        let claimed = self.keys.get_mut(key)?.claim();
        self.sync(key, now);
        claimed.map(|entry| entry.wait)
    }

    /// Returns the caller that would get a grant of this key.
    pub(crate) fn first(&mut self, key: &WaitKey, now: Instant) -> Option<&W> {
        self.sync(key, now);
        self.keys.get(key)?.first()
    }

    /// Returns the first caller without a server wait. After a server wait has ended, this is the caller that lost it.
    pub(crate) fn uncovered(&mut self, key: &WaitKey, now: Instant) -> Option<&mut W> {
        self.sync(key, now);
        self.keys.get_mut(key)?.uncovered()
    }

    /// Removes and returns the first caller without a server wait. After a server wait has ended without a grant, this
    /// is the caller that lost it.
    pub(crate) fn take_uncovered(&mut self, key: &WaitKey, now: Instant) -> Option<W> {
        self.sync(key, now);
        let taken = self.keys.get_mut(key)?.take_uncovered();
        self.sync(key, now);
        taken.map(|entry| entry.wait)
    }

    /// Notes a server's answer that a key is held. It matters only while the key has a caller or a server wait.
    pub(crate) fn refused(&mut self, key: &WaitKey, at: Instant) {
        if let Some(queue) = self.keys.get_mut(key) {
            queue.refused(at);
        }
    }

    /// Returns when a server said that a key is held, if the key has a caller or a server wait, and the answer also
    /// counts for other callers: see [`KeyQueue::refused_at`](super::queue::KeyQueue::refused_at).
    pub(crate) fn refused_at(&mut self, key: &WaitKey, now: Instant) -> Option<Instant> {
        self.sync(key, now);
        self.keys.get(key)?.refused_at(now)
    }
}
