//! Removes callers that are gone, or all waits, and finds the server waits that no caller has wanted for a while.

use std::time::Duration;

use tokio::time::Instant;

use super::queue::KeyQueue;
use super::{CLEAN_AT_LEAST, Waiter, Waits, queue};
use crate::shard::ids::WaitKey;
use crate::types::Target;

/// How long a server wait without a caller is kept.
pub(crate) const KEPT_UNCLAIMED: Duration = Duration::from_secs(1);

impl<W: Waiter> Waits<W> {
    /// Removes all callers that are gone.
    pub(crate) fn clean(&mut self, now: Instant) {
        let keys: Vec<WaitKey> = self.keys.keys().cloned().collect();
        for key in keys {
            self.change_if_there(&key, now, KeyQueue::prune_all);
        }
        if self.keys.capacity() > 1024 && self.keys.capacity() / 4 > self.keys.len() {
            self.keys.shrink_to_fit();
        }
        self.clean_at = (2 * self.len()).max(CLEAN_AT_LEAST);
    }

    /// Returns, for each key, the number of server waits that no caller has wanted for [`KEPT_UNCLAIMED`], in the order
    /// of the keys. The time then starts again for the server waits that remain.
    pub(crate) fn take_unclaimed(&mut self, now: Instant) -> Vec<(WaitKey, usize)> {
        let Some(since) = now.checked_sub(KEPT_UNCLAIMED) else {
            return Vec::new();
        };
        let all = self.keys.iter_mut();
        let mut unclaimed: Vec<_> = all
            .map(|(key, queue)| (key, queue.take_unclaimed(since, now)))
            .filter(|(_, count)| *count > 0)
            .map(|(key, count)| (key.clone(), count))
            .collect();
        // Sorted, so that the same inputs produce the same effects.
        let limit = |target| match target {
            Target::Lock => 0,
            Target::Semaphore(limit) => limit.get(),
        };
        unclaimed.sort_by(|(a, _), (b, _)| a.1.cmp(&b.1).then_with(|| limit(a.0).cmp(&limit(b.0))));
        unclaimed
    }

    /// Removes all entries without a queue position on the server, and all bound entries. Returns them in order of
    /// arrival.
    pub(crate) fn drain(&mut self, now: Instant) -> Vec<W> {
        self.drain_with(now, |queue| queue.drain().collect())
    }

    /// Removes all callers and all bound entries. Returns them in order of arrival.
    pub(crate) fn drain_all(&mut self, now: Instant) -> Vec<W> {
        self.drain_with(now, |queue| {
            let uncovered: Vec<_> = queue.drain().collect();
            queue.drain_covered().into_iter().chain(uncovered).collect()
        })
    }

    fn drain_with(&mut self, now: Instant, take: impl Fn(&mut KeyQueue<W>) -> Vec<queue::WaitEntry<W>>) -> Vec<W> {
        let keys: Vec<WaitKey> = self.keys.keys().cloned().collect();
        let mut drained = Vec::new();
        for key in keys {
            self.change_if_there(&key, now, |queue| drained.extend(take(queue)));
        }
        drained.sort_by_key(|entry| entry.arrival);
        drained.into_iter().map(|entry| entry.wait).collect()
    }

    /// Removes callers that are gone, if the number of waits has doubled since the last cleaning. So each new wait
    /// costs a constant amount of cleaning, and callers that are gone do not accumulate.
    pub(super) fn clean_if_many(&mut self, now: Instant) {
        if self.len() >= self.clean_at {
            self.clean(now);
        }
    }
}
