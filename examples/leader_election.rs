//! Recipe: leader election. One of three nodes leads; when it steps down or is cut off, another takes over.
//!
//!     cargo run --example leader_election
//!
//! Each node is a task here; in production it is a process. Nodes campaign without a timeout, and work only as long as
//! they lead. In production they then campaign again; here each leads once, for three writes. A leader's writes carry
//! its term, so that a store can refuse the writes of a stalled leader. Terms are fences: this needs servers from
//! release 2.1 on. With earlier ones `connect` fails at once, because without terms the store would have to accept late
//! writes.

mod common;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::Story;
use dflockd_client::{Election, Error, Fence, Fencing};

/// The store of the leaders. It refuses writes of an earlier term.
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
            // Every leader has a term, because the client requires fences.
            let term = leadership.require_fence()?;
            story.tell(format!("{name} leads, term {term}"));
            // The work is stopped if the leadership is lost.
            let led = leadership.run(lead(&store, term)).await;
            match led {
                Ok(()) => {
                    story.tell(format!("{name} steps down"));
                    leadership.resign().await
                }
                Err(lost) => {
                    story.tell(format!("{name} leads no more: {lost}"));
                    // In production: campaign again.
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

/// The work of a leader: three writes, a moment apart.
async fn lead(store: &Mutex<Store>, term: Fence) {
    for _ in 0..3 {
        store.lock().unwrap_or_else(PoisonError::into_inner).write(term);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
