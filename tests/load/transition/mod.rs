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

/// The timeout of callers in tests that do not depend on it.
const LONG: Duration = Duration::from_secs(120);
