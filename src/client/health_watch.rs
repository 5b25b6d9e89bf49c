//! The health of all shards, watched together.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio::sync::watch;

use crate::net::health::ShardHealth;

/// The health of all shards of a client. [`Client::watch_all_health`](crate::Client::watch_all_health) creates it.
#[derive(Clone)]
pub struct HealthWatch {
    shards: Vec<watch::Receiver<ShardHealth>>,
}

impl HealthWatch {
    pub(super) fn new(mut shards: Vec<watch::Receiver<ShardHealth>>) -> Self {
        for shard in &mut shards {
            // `current` returns the present value, so only later values count as changes.
            shard.mark_unchanged();
        }
        Self { shards }
    }

    /// Returns the current health of each shard, in the order of the shards, and marks it as seen.
    #[must_use]
    pub fn current(&mut self) -> Vec<ShardHealth> {
        self.shards
            .iter_mut()
            .map(|shard| shard.borrow_and_update().clone())
            .collect()
    }

    /// Waits until the health of a shard has changed since it was seen, and returns the index of the shard. Returns
    /// `None` when the client has ended. Of several changes of one shard, this reports only the last;
    /// [`Client::events`](crate::Client::events) reports all.
    ///
    /// # Cancel safety
    ///
    /// Safe: the next call still reports a change that this one missed.
    pub async fn changed(&mut self) -> Option<usize> {
        let mut waiting: Vec<Option<Pin<Box<dyn Future<Output = bool> + Send + '_>>>> = self
            .shards
            .iter_mut()
            .map(|shard| -> Option<Pin<Box<dyn Future<Output = bool> + Send + '_>>> {
                Some(Box::pin(async move { shard.changed().await.is_ok() }))
            })
            .collect();
        poll_fn(|cx| {
            for (index, slot) in waiting.iter_mut().enumerate() {
                let Some(change) = slot else { continue };
                match change.as_mut().poll(cx) {
                    Poll::Ready(true) => return Poll::Ready(Some(index)),
                    Poll::Ready(false) => *slot = None,
                    Poll::Pending => {}
                }
            }
            match waiting.iter().all(Option::is_none) {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    }
}

impl fmt::Debug for HealthWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shards = self.shards.iter().map(|shard| shard.borrow().clone());
        f.debug_list().entries(shards).finish()
    }
}
