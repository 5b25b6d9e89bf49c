//! Leases on their way back to the server.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use super::request::PendingRelease;
use crate::types::Token;

/// The releases of a shard that are not answered yet.
#[derive(Default)]
pub(super) struct Releases {
    /// Those that wait for a connection.
    pending: Vec<Box<PendingRelease>>,
    /// The tokens of those that wait, and of those that were sent, and of how many.
    under_way: HashMap<Token, u32>,
}

impl Releases {
    /// One more is under way.
    pub(super) fn begin(&mut self, token: &Token) {
        *self.under_way.entry(*token).or_default() += 1;
    }

    /// One that is under way has no connection: it waits for the next.
    pub(super) fn keep(&mut self, release: Box<PendingRelease>) {
        self.pending.push(release);
    }

    /// One is over, one way or the other.
    pub(super) fn end(&mut self, token: &Token) {
        match self.under_way.entry(*token) {
            Entry::Occupied(mut count) if *count.get() > 1 => *count.get_mut() -= 1,
            Entry::Occupied(last) => drop(last.remove()),
            Entry::Vacant(_) => {}
        }
    }

    /// Whether the lease of this token is on its way back.
    pub(super) fn is_under_way(&self, token: &Token) -> bool {
        self.under_way.contains_key(token)
    }

    /// Takes those that wait for a connection.
    pub(super) fn take_pending(&mut self) -> Vec<Box<PendingRelease>> {
        std::mem::take(&mut self.pending)
    }

    /// Takes those that wait for a connection and whose lease the server has ended by itself.
    pub(super) fn take_over(&mut self, now: Instant) -> Vec<Box<PendingRelease>> {
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
        self.under_way.values().map(|count| *count as usize).sum()
    }

    /// Whether all are answered.
    pub(super) fn is_done(&self) -> bool {
        self.under_way.is_empty()
    }
}
