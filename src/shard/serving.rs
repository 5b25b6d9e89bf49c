//! Which server serves the shard: the reconnecting of its pipelined connections, and the delay before another server may.

use std::time::Duration;

use tokio::time::Instant;

use super::effect::Handover;
use crate::net::backoff::OF_USE_AFTER;
use crate::net::failover::Failover;
use crate::net::reconnect::Reconnect;
use crate::net::takeover::TakeoverDelay;

/// Who serves.
pub(super) struct Serving {
    pub(super) reconnect: Reconnect,
    takeover: TakeoverDelay,
    /// No pipelined connection is opened before that.
    hold_back: Instant,
}

impl Serving {
    pub(super) fn new(reconnect: Reconnect, takeover: TakeoverDelay, hold_back: Instant) -> Self {
        Self {
            reconnect,
            takeover,
            hold_back,
        }
    }

    pub(super) fn failover(&self) -> &Failover {
        self.reconnect.failover()
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.failover().is_cluster()
    }

    pub(super) fn is_standby(&self) -> bool {
        self.failover().is_standby()
    }

    /// Which of the endpoints serves, or is tried.
    pub(super) fn at(&self) -> usize {
        self.failover().at()
    }

    /// A lease of this TTL may be granted. Returns what to hand over if none before was as long.
    pub(super) fn note_ttl(&mut self, ttl: Duration) -> Option<Handover> {
        self.takeover.note_ttl(ttl).then(|| self.handover())
    }

    /// The server that serves was heard of no later than now.
    pub(super) fn heard(&mut self, now: Instant) {
        self.takeover.lost_contact(now);
    }

    /// No other server may be asked before that.
    pub(super) fn guarded_until(&self) -> Instant {
        self.takeover.until()
    }

    /// When an attempt that begins then is given up, whatever the connect timeout: because another server may be asked.
    pub(super) fn give_up_at(&self, begins: Instant) -> Option<Instant> {
        self.failover().give_up_at(begins, self.takeover.until())
    }

    /// Nothing is asked of the first server until all leases of the one that serves must be over. Returns for how long.
    pub(super) fn hold_back(&mut self, now: Instant) -> Duration {
        self.takeover.lost_contact(now);
        self.hold_back = self.takeover.until();
        self.takeover.delay()
    }

    /// How much is left of the time for which nothing is asked.
    pub(super) fn held_back_for(&self, now: Instant) -> Duration {
        self.hold_back.saturating_duration_since(now)
    }

    /// What another shard must know to take this one's place.
    pub(super) fn handover(&self) -> Handover {
        Handover {
            longest_ttl: self.takeover.longest_ttl(),
            hold_back: Some(self.hold_back),
        }
    }
}

/// Whether a pipelined connection was of use.
pub(super) fn was_of_use(up_since: Option<Instant>, was_silent: bool, now: Instant) -> bool {
    let stood = up_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    !was_silent && stood >= OF_USE_AFTER
}
