//! A fleet changes its list of shards: clients of the previous list, of both, and of the current one.

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

/// How long callers wait in these tests, as far as it does not matter.
const LONG: Duration = Duration::from_secs(120);
