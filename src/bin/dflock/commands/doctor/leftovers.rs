//! What a check holds at a server, so that it is given back however the check ends.

use std::sync::{Mutex, MutexGuard, PoisonError};

use dflockd_client::protocol::functions::release;
use dflockd_client::{Key, Token};
use tokio::task::JoinSet;

use super::way::Way;
/// The throw-away leases that are held.
#[derive(Default)]
pub(super) struct Leftovers(Mutex<Vec<Leftover>>);

struct Leftover {
    way: Way,
    key: Key,
    /// Unknown while the answer to an acquire is under way. The end of that connection releases the lease then, or its TTL does.
    token: Option<Token>,
}

impl Leftovers {
    /// Notes that a key is about to be asked for.
    pub(super) fn asks(&self, way: &Way, key: &Key) {
        let mut all = self.lock();
        if !all.iter().any(|leftover| leftover.key == *key) {
            all.push(Leftover {
                way: way.clone(),
                key: key.clone(),
                token: None,
            });
        }
    }

    /// Notes that it was granted.
    pub(super) fn holds(&self, key: &Key, token: Token) {
        let mut all = self.lock();
        let of_key = all.iter_mut().filter(|leftover| leftover.key == *key);
        of_key.for_each(|leftover| leftover.token = Some(token));
    }

    /// Notes that it was given back.
    pub(super) fn gave_back(&self, key: &Key) {
        self.lock().retain(|leftover| leftover.key != *key);
    }

    /// Gives back what is held, over new connections: those over which it was acquired may be blocked in another request. A lease whose
    /// server cannot be reached ends with its TTL.
    pub(super) async fn give_back(&self) {
        let held = std::mem::take(&mut *self.lock());
        let mut releases = JoinSet::new();
        for Leftover { way, key, token } in held {
            let Some(token) = token else { continue };
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
