//! Computes how long no other server may be asked, because the previous one may have granted leases. Pure: the caller
//! provides the time.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::after;

/// The time after the last contact with a server at which all its leases must be over, as far as is known: the longest
/// TTL in use, plus a margin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TakeoverDelay {
    /// The duration that the user has set. It applies regardless of the TTLs in use.
    fixed: Option<Duration>,
    longest_ttl: Duration,
    last_contact: Instant,
}

/// The longest TTL is extended by its value divided by this number, because clocks do not run equally fast.
const MARGIN_PART: u32 = 20;

impl TakeoverDelay {
    /// Starts the delay at `now`, because other clients may already hold leases.
    pub(crate) fn new(fixed: Option<Duration>, longest_ttl: Duration, now: Instant) -> Self {
        Self {
            fixed,
            longest_ttl,
            last_contact: now,
        }
    }

    /// Notes that a server may grant, or has granted, a lease with this TTL. Returns whether the TTL is longer than all
    /// earlier ones.
    pub(crate) fn note_ttl(&mut self, ttl: Duration) -> bool {
        let is_longer = ttl > self.longest_ttl;
        self.longest_ttl = self.longest_ttl.max(ttl);
        is_longer
    }

    /// Returns the longest TTL in use.
    pub(crate) fn longest_ttl(&self) -> Duration {
        self.longest_ttl
    }

    /// Notes that the serving server was last heard at `now`.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.last_contact = now;
    }

    /// Returns the length of the delay, counted from the last contact.
    pub(crate) fn delay(&self) -> Duration {
        let margin = self.longest_ttl / MARGIN_PART;
        self.fixed.unwrap_or_else(|| self.longest_ttl.saturating_add(margin))
    }

    /// Returns the instant before which no other server may be asked.
    pub(crate) fn until(&self) -> Instant {
        after(self.last_contact, self.delay())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_takeover_delay_covers_the_longest_lease_and_a_margin_unless_it_is_fixed() {
        let start = Instant::now();
        let secs = Duration::from_secs;
        let mut delay = TakeoverDelay::new(None, secs(40), start);
        assert!(!delay.note_ttl(secs(10)));
        assert_eq!(delay.until(), start + secs(42));
        assert!(delay.note_ttl(secs(100)));
        delay.heard(start + secs(7));
        assert_eq!(delay.until(), start + secs(7) + secs(105));
        let mut fixed = TakeoverDelay::new(Some(secs(3)), secs(40), start);
        fixed.note_ttl(secs(100));
        assert_eq!(fixed.until(), start + secs(3));
    }
}
