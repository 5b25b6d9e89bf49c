//! Leases on their way back to the server.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use super::request::PendingRelease;
use crate::types::Token;

/// The releases of a shard that are not answered yet.
pub(super) struct Releases {
    /// Those that wait for a connection.
    pending: Vec<Box<PendingRelease>>,
    /// How many wait, or were sent.
    under_way: usize,
    /// Their tokens, and of how many each is. In clusters only: elsewhere no server gives a token twice.
    tokens: Option<HashMap<Token, u32>>,
}

impl Releases {
    /// Creates an empty collection. `in_cluster`: whether it remembers tokens.
    pub(super) fn new(in_cluster: bool) -> Self {
        Self {
            pending: Vec::new(),
            under_way: 0,
            tokens: in_cluster.then(HashMap::new),
        }
    }

    /// One more is under way.
    pub(super) fn begin(&mut self, token: &Token) {
        self.under_way += 1;
        if let Some(tokens) = &mut self.tokens {
            *tokens.entry(*token).or_default() += 1;
        }
    }

    /// One that is under way has no connection: it waits for the next.
    pub(super) fn keep(&mut self, release: Box<PendingRelease>) {
        self.pending.push(release);
    }

    /// One is over, one way or the other.
    pub(super) fn end(&mut self, token: &Token) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(tokens) = &mut self.tokens else { return };
        match tokens.entry(*token) {
            Entry::Occupied(mut count) if *count.get() > 1 => *count.get_mut() -= 1,
            Entry::Occupied(last) => drop(last.remove()),
            Entry::Vacant(_) => {}
        }
    }

    /// Whether the lease of this token is on its way back. In clusters only.
    pub(super) fn is_under_way(&self, token: &Token) -> bool {
        self.tokens.as_ref().is_some_and(|tokens| tokens.contains_key(token))
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
        self.under_way
    }

    /// Whether all are answered.
    pub(super) fn is_done(&self) -> bool {
        self.under_way == 0
    }
}
