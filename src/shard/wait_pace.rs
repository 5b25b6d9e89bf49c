//! How fast connections for waits are opened, and closed to give waits up. Servers are not stormed by a client with many waits.

use tokio::time::Instant;

use super::waits::{Lingering, TokenBucket};
use crate::clock::after;
use crate::net::backoff::Attempts;

/// The most exclusive connections that are opened at once, and in a second: together less than two hundred in any second.
const CONNECTS_AT_ONCE: u32 = 40;
const CONNECTS_PER_SECOND: u32 = 150;

/// The same for those that take back what was lost with a connection in a session: the server keeps it for a while only.
const RESUMES_AT_ONCE: u32 = 100;
const RESUMES_PER_SECOND: u32 = 400;

/// The most waits that are given up at once, and in a second, by closing their connections.
const CLOSES_AT_ONCE: u32 = 40;
const CLOSES_PER_SECOND: u32 = 100;

/// What was opened and closed of late.
pub(super) struct WaitPace {
    connects: TokenBucket,
    resumes: TokenBucket,
    closes: TokenBucket,
    /// The waits that were given up, and that the server may still count.
    lingering: Lingering,
    /// Pauses between attempts that fail.
    attempts: Attempts,
    /// No attempt is made before that.
    not_before: Instant,
}

impl WaitPace {
    pub(super) fn new(attempts: Attempts, now: Instant) -> Self {
        Self {
            connects: TokenBucket::new(CONNECTS_AT_ONCE, CONNECTS_PER_SECOND),
            resumes: TokenBucket::new(RESUMES_AT_ONCE, RESUMES_PER_SECOND),
            closes: TokenBucket::new(CLOSES_AT_ONCE, CLOSES_PER_SECOND),
            lingering: Lingering::default(),
            attempts,
            not_before: now,
        }
    }

    /// No connection is opened before that.
    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    /// Whether the last attempt failed: then the next are made one at a time.
    pub(super) fn has_failed(&self) -> bool {
        self.attempts.made() > 0
    }

    /// An attempt failed, or its connection was of no use: the next is made after a pause. Those that began together fail together:
    /// that is one failure.
    pub(super) fn failed(&mut self, now: Instant) {
        if now >= self.not_before {
            self.not_before = after(now, self.attempts.failed());
        }
    }

    /// An attempt succeeded: the next pauses are those of `attempts`.
    pub(super) fn succeeded(&mut self, attempts: Attempts) {
        self.attempts = attempts;
    }

    /// Another server serves: what failed before says nothing.
    pub(super) fn restart(&mut self, attempts: Attempts, now: Instant) {
        self.attempts = attempts;
        self.not_before = now;
    }

    /// When the rate allows another connection.
    pub(super) fn connects_at(&self, now: Instant) -> Instant {
        self.connects.ready_at(now)
    }

    /// Counts another connection. Returns whether the rate allows it.
    pub(super) fn take_connect(&mut self, now: Instant) -> bool {
        self.connects.take(now)
    }

    /// When the rate allows another connection that takes back what was lost.
    pub(super) fn resumes_at(&self, now: Instant) -> Instant {
        self.resumes.ready_at(now)
    }

    /// Counts another connection that takes back what was lost. Returns whether the rate allows it.
    pub(super) fn take_resume(&mut self, now: Instant) -> bool {
        self.resumes.take(now)
    }

    /// Counts another wait that is given up by closing its connection. Returns whether the rate allows it, and no more than `most` linger.
    pub(super) fn take_close(&mut self, now: Instant, most: usize) -> bool {
        self.lingering.count(now) < most && self.closes.take(now)
    }

    /// The server may count a wait that was given up until then.
    pub(super) fn lingers(&mut self, until: Instant) {
        self.lingering.add(until);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::backoff::ReconnectPolicy;

    #[test]
    fn attempts_that_fail_together_cost_one_pause_and_a_success_ends_it() {
        let start = Instant::now();
        let policy = ReconnectPolicy::default();
        let mut pace = WaitPace::new(policy.start(), start);
        assert!(!pace.has_failed() && pace.not_before() == start);
        pace.failed(start);
        let paused = pace.not_before();
        pace.failed(start);
        assert!(pace.has_failed() && paused > start);
        assert_eq!(pace.not_before(), paused, "that is one failure");
        pace.failed(paused);
        assert!(pace.not_before() > paused);
        pace.succeeded(policy.start());
        assert!(!pace.has_failed());
        pace.restart(policy.start(), start);
        assert_eq!(pace.not_before(), start);
    }

    #[test]
    fn only_so_many_waits_linger() {
        let start = Instant::now();
        let mut pace = WaitPace::new(ReconnectPolicy::default().start(), start);
        for _ in 0..3 {
            assert!(pace.take_close(start, 3));
            pace.lingers(start + Duration::from_secs(9));
        }
        assert!(!pace.take_close(start, 3));
        assert!(pace.take_close(start + Duration::from_secs(9), 3));
    }
}
