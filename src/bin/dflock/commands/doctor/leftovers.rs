//! What checks hold at servers, so that it is released however the checks end.

use std::future::pending;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dflockd_client::protocol::functions::release;
use dflockd_client::tokio::sync::watch;
use dflockd_client::{Key, Token};
use tokio::task::JoinSet;

use super::way::Way;

/// The throw-away leases that are held.
#[derive(Default)]
pub(super) struct Leftovers {
    held: Mutex<Vec<Leftover>>,
    asks: watch::Sender<Asks>,
}

/// Acquires without an answer: they may hold what is not known here.
#[derive(Default)]
struct Asks {
    count: usize,
    /// Whether no more may begin.
    are_over: bool,
}

struct Leftover {
    way: Way,
    key: Key,
    token: Token,
}

/// An acquire without an answer. It ends when this is dropped.
pub(super) struct Asking<'a>(&'a Leftovers);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0
            .asks
            .send_modify(|asks| asks.count = asks.count.saturating_sub(1));
    }
}

impl Leftovers {
    /// Notes that a lease is asked for, until the result is dropped. Never resolves after [`end`](Self::end).
    pub(super) async fn asks(&self) -> Asking<'_> {
        let begins = self.asks.send_if_modified(|asks| {
            asks.count += usize::from(!asks.are_over);
            !asks.are_over
        });
        match begins {
            true => Asking(self),
            false => pending().await,
        }
    }

    /// Notes that a key was granted, in place of an earlier lease of it that is over.
    pub(super) fn holds(&self, way: &Way, key: &Key, token: Token) {
        self.gave_back(key);
        self.lock().push(Leftover {
            way: way.clone(),
            key: key.clone(),
            token,
        });
    }

    /// Notes that a key was released.
    pub(super) fn gave_back(&self, key: &Key) {
        self.lock().retain(|leftover| leftover.key != *key);
    }

    /// Lets no more acquires begin, waits for the answers of those that have, and releases what is held: over new connections, since those
    /// over which it was acquired may be blocked in another request. A lease whose server cannot be reached ends with its TTL.
    pub(super) async fn end(&self) {
        self.asks.send_modify(|asks| asks.are_over = true);
        // It fails without a sender only, which is a part of this.
        drop(self.asks.subscribe().wait_for(|asks| asks.count == 0).await);
        let held = std::mem::take(&mut *self.lock());
        let mut releases = JoinSet::new();
        for Leftover { way, key, token } in held {
            releases.spawn(async move {
                if let Ok(mut connection) = way.open().await {
                    // One that has expired meanwhile is refused.
                    drop(release(&mut connection, &key, &token).await);
                }
            });
        }
        releases.join_all().await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Leftover>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_acquires_without_an_answer_and_lets_no_more_begin() {
        let leftovers = Leftovers::default();
        let asking = leftovers.asks().await;
        let soon = Duration::from_secs(1);
        assert!(timeout(soon, leftovers.end()).await.is_err(), "it is not answered");
        assert!(timeout(soon, leftovers.asks()).await.is_err(), "no more may begin");
        drop(asking);
        timeout(soon, leftovers.end()).await.unwrap();
    }
}
