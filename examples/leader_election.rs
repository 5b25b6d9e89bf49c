//! Recipe: leader election. One of three nodes leads. When it steps down or is cut off, another node leads.
//!
//!     cargo run --example leader_election
//!
//! Each node is a task in this example, and a process in production. A node campaigns without a timeout, and works only
//! while it leads. In this example, each node leads once, for three writes. In production, a node then campaigns again.
//!
//! Each write of a leader has the leader's term, so that the store can refuse late writes of an earlier leader. The
//! term is the fence of the leader's lock, so this example needs servers of release 2.1 or later. With earlier servers,
//! `connect` fails at once.

mod common;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::Story;
use dflockd_client::{Election, Error, Fence, Fencing};

/// The store to which the leaders write. It refuses writes of an earlier term.
#[derive(Default)]
struct Store {
    newest: Option<Fence>,
    writes: u32,
}

impl Store {
    fn write(&mut self, term: Fence) -> bool {
        let fresh = self.newest.is_none_or(|newest| term >= newest);
        if fresh {
            self.newest = Some(term);
            self.writes += 1;
        }
        fresh
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let story = Story::begin();
    let (client, _server) = common::connect(Fencing::Required, 1).await?;
    let store = Arc::new(Mutex::new(Store::default()));

    let mut nodes = tokio::task::JoinSet::new();
    for name in ["anna", "boris", "chloe"] {
        let election = Election::new(client.lock("recipes/leader")?.acquire_timeout(Duration::from_secs(60)));
        let store = Arc::clone(&store);
        nodes.spawn(async move {
            let leadership = election.campaign().await?;
            // This does not fail, because the client requires fences.
            let term = leadership.require_fence()?;
            story.tell(format!("{name} leads, term {term}"));
            // `run` stops the work if the leadership is lost.
            let led = leadership.run(lead(&store, term)).await;
            match led {
                Ok(()) => {
                    story.tell(format!("{name} steps down"));
                    leadership.resign().await
                }
                Err(lost) => {
                    story.tell(format!("{name} leads no more: {lost}"));
                    // In production, the node would campaign again.
                    Ok(())
                }
            }
        });
    }
    for outcome in nodes.join_all().await {
        outcome?;
    }

    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    story.tell(format!("{} writes, the last of term {:?}", store.writes, store.newest));
    let stale = store.write(Fence(0));
    story.tell(format!("a write of an old term is accepted: {stale}"));
    Ok(())
}

/// The work of a leader: three writes, 50 ms apart.
async fn lead(store: &Mutex<Store>, term: Fence) {
    for _ in 0..3 {
        store.lock().unwrap_or_else(PoisonError::into_inner).write(term);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
