//! A fleet of clients changes its list of shards in three steps, which `docs/guide/src/sharding.md` describes. In step
//! 1 all clients have the previous list, in step 2 both lists, and in step 3 the current list.
//!
//! The clients of one step are a *generation*. Clients of step 2 are *in the transition*. A key *moves* if the two
//! lists place it on different servers. A client in the transition holds such a key on both servers, the previous and
//! the current one. The lease on each of these two servers is a *half*.

mod dropped;
mod exclusion;
mod fences;
mod fleet;
mod halves;
mod handles;
mod rollout;
mod signals;
mod tickets;

use std::time::Duration;

/// A timeout that no test reaches.
const LONG: Duration = Duration::from_secs(120);
