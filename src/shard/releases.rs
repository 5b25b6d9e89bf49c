//! Leases on their way back to the server.

use tokio::time::Instant;

use super::request::PendingRelease;

/// The releases of a shard that are not answered yet.
#[derive(Default)]
pub(super) struct Releases {
    /// Those that wait for a connection.
    pending: Vec<PendingRelease>,
    /// Those that wait, and those that were sent.
    under_way: usize,
}

impl Releases {
    /// One more is under way.
    pub(super) fn begin(&mut self) {
        self.under_way += 1;
    }

    /// One that is under way has no connection: it waits for the next.
    pub(super) fn keep(&mut self, release: PendingRelease) {
        self.pending.push(release);
    }

    /// One is over, one way or the other.
    pub(super) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Takes those that wait for a connection.
    pub(super) fn take_pending(&mut self) -> Vec<PendingRelease> {
        std::mem::take(&mut self.pending)
    }

    /// Takes those that wait for a connection and whose lease the server has ended by itself.
    pub(super) fn take_over(&mut self, now: Instant) -> Vec<PendingRelease> {
        let (over, pending) = self
            .take_pending()
            .into_iter()
            .partition(|release| release.until <= now);
        self.pending = pending;
        over
    }

    /// How many wait for a connection.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// How many are not answered.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether all are answered.
    pub(super) fn is_done(&self) -> bool {
        self.under_way == 0
    }
}
