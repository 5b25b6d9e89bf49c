//! The leases that checks hold at servers, so that they are released however the checks end.

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

/// The acquires that have no answer yet: the server may have granted leases that are not known here.
#[derive(Default)]
struct Asks {
    count: usize,
    /// Whether no more acquires may begin.
    are_over: bool,
}

struct Leftover {
    way: Way,
    key: Key,
    token: Token,
}

/// An acquire that is under way. It counts until this is dropped.
pub(super) struct Asking<'a>(&'a Leftovers);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0
            .asks
            .send_modify(|asks| asks.count = asks.count.saturating_sub(1));
    }
}

impl Leftovers {
    /// Counts an acquire as under way until the returned value is dropped. Never resolves after [`end`](Self::end).
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

    /// Notes that a lease was granted. It replaces an earlier lease of the key, which is over.
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

    /// Lets no more acquires begin, waits for the answers to those that have begun, and releases all leases. It uses
    /// new connections, because another request may block the old ones. A lease whose server cannot be reached ends
    /// with its TTL.
    pub(super) async fn end(&self) {
        self.asks.send_modify(|asks| asks.are_over = true);
        // This fails only if there is no sender, and `self` has the sender.
        drop(self.asks.subscribe().wait_for(|asks| asks.count == 0).await);
        let held = std::mem::take(&mut *self.lock());
        let mut releases = JoinSet::new();
        for Leftover { way, key, token } in held {
            releases.spawn(async move {
                if let Ok(mut connection) = way.open().await {
                    // The server refuses the release of a lease that has expired meanwhile.
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
        assert!(
            timeout(soon, leftovers.end()).await.is_err(),
            "the end waits for the answer"
        );
        assert!(timeout(soon, leftovers.asks()).await.is_err(), "no more may begin");
        drop(asking);
        timeout(soon, leftovers.end()).await.unwrap();
    }
}
