//! How long no other server may be asked for what the one before may have granted. Pure: no clocks but the caller's.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::after;

/// How long no lease may outlive its last renewal, as far as is known here: the longest TTL in use, with a margin on top.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TakeoverDelay {
    /// Set by the user, whatever is seen.
    fixed: Option<Duration>,
    longest_ttl: Duration,
    last_contact: Instant,
}

/// The part of the longest TTL that is added to it: clocks do not run equally fast.
const GUARD_MARGIN_PART: u32 = 20;

impl TakeoverDelay {
    /// Before the client was there, others may have been: their leases are guarded from `now` on.
    pub(crate) fn new(fixed: Option<Duration>, longest_ttl: Duration, now: Instant) -> Self {
        Self {
            fixed,
            longest_ttl,
            last_contact: now,
        }
    }

    /// A lease of this TTL was granted. Whether none before was as long.
    pub(crate) fn note_ttl(&mut self, ttl: Duration) -> bool {
        let is_longer = ttl > self.longest_ttl;
        self.longest_ttl = self.longest_ttl.max(ttl);
        is_longer
    }

    /// The longest TTL in use.
    pub(crate) fn longest_ttl(&self) -> Duration {
        self.longest_ttl
    }

    /// The server that served was heard of no later than now.
    pub(crate) fn lost_contact(&mut self, now: Instant) {
        self.last_contact = now;
    }

    /// For how long, from the last contact on.
    pub(crate) fn delay(&self) -> Duration {
        let margin = self.longest_ttl / GUARD_MARGIN_PART;
        self.fixed.unwrap_or_else(|| self.longest_ttl.saturating_add(margin))
    }

    /// No other server may be asked before that.
    pub(crate) fn until(&self) -> Instant {
        after(self.last_contact, self.delay())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_covers_the_longest_lease_and_a_margin_unless_it_is_fixed() {
        let start = Instant::now();
        let secs = Duration::from_secs;
        let mut guard = TakeoverDelay::new(None, secs(40), start);
        assert!(!guard.note_ttl(secs(10)));
        assert_eq!(guard.until(), start + secs(42));
        assert!(guard.note_ttl(secs(100)));
        guard.lost_contact(start + secs(7));
        assert_eq!(guard.until(), start + secs(7) + secs(105));
        let mut fixed = TakeoverDelay::new(Some(secs(3)), secs(40), start);
        fixed.note_ttl(secs(100));
        assert_eq!(fixed.until(), start + secs(3));
    }
}
