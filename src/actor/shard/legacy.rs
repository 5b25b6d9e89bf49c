//! What an actor leaves to the one that takes its place when it dies: other clients live on, and what they may hold must be guarded
//! as long as before.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Shard;

/// Where it is left.
pub(crate) type Will = watch::Sender<Legacy>;

/// What is left. Where the shard was, and how often it moved, is in its health.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Legacy {
    /// The longest lease that was seen.
    pub(super) longest_ttl: Duration,
    /// No server is asked for anything before that.
    pub(super) hold_back: Option<Instant>,
}

impl Shard {
    /// Leaves what is known by now.
    pub(super) fn bequeath(&self) {
        self.will.send_replace(Legacy {
            longest_ttl: self.guard.longest_ttl(),
            hold_back: Some(self.hold_back),
        });
    }
}
