//! Limits how fast connections for waits are opened, and closed to give waits up, so that a client with many waits does
//! not overload a server.

use tokio::time::Instant;

use super::waits::{Lingering, TokenBucket};
use crate::clock::after;
use crate::net::backoff::Attempts;

/// The maximum number of exclusive connections that are opened at once, and per second: together fewer than 200 in any
/// second.
const CONNECTS_AT_ONCE: u32 = 40;
const CONNECTS_PER_SECOND: u32 = 150;

/// The same limits for connections that reclaim the queue positions of lost connections in their sessions. They are
/// higher, because the server keeps these positions only for a while.
const RESUMES_AT_ONCE: u32 = 100;
const RESUMES_PER_SECOND: u32 = 400;

/// The maximum number of waits that are given up by closing their connections, at once and per second.
const CLOSES_AT_ONCE: u32 = 40;
const CLOSES_PER_SECOND: u32 = 100;

/// The recent openings and closings.
pub(super) struct WaitPace {
    connects: TokenBucket,
    resumes: TokenBucket,
    closes: TokenBucket,
    /// The given-up waits that the server may still count.
    lingering: Lingering,
    /// The pauses between failing attempts.
    attempts: Attempts,
    /// No attempt is made before this instant.
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

    /// Returns the instant before which no connection is opened.
    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    /// Whether the last attempt failed. If so, the next ones are made one at a time.
    pub(super) fn has_failed(&self) -> bool {
        self.attempts.made() > 0
    }

    /// Notes that an attempt failed, or that its connection was not useful. The next attempt is made after a pause. A
    /// failure during that pause belongs to an attempt that began before it, and does not count again.
    pub(super) fn failed(&mut self, now: Instant) {
        if now >= self.not_before {
            self.not_before = after(now, self.attempts.failed());
        }
    }

    /// Notes a success. The next pauses come from `attempts`.
    pub(super) fn succeeded(&mut self, attempts: Attempts) {
        self.attempts = attempts;
    }

    /// Restarts after a change of the server. Earlier failures do not concern the new server.
    pub(super) fn restart(&mut self, attempts: Attempts, now: Instant) {
        self.attempts = attempts;
        self.not_before = now;
    }

    /// Returns when the rate allows another connection.
    pub(super) fn connects_at(&self, now: Instant) -> Instant {
        self.connects.ready_at(now)
    }

    /// Counts another connection. Returns whether the rate allows it.
    pub(super) fn take_connect(&mut self, now: Instant) -> bool {
        self.connects.take(now)
    }

    /// Returns when the rate allows another connection that reclaims a queue position.
    pub(super) fn resumes_at(&self, now: Instant) -> Instant {
        self.resumes.ready_at(now)
    }

    /// Counts another connection that reclaims a queue position. Returns whether the rate allows it.
    pub(super) fn take_resume(&mut self, now: Instant) -> bool {
        self.resumes.take(now)
    }

    /// Counts another wait that is given up by closing its connection. Returns whether the rate allows it and fewer
    /// than `most` waits linger.
    pub(super) fn take_close(&mut self, now: Instant, most: usize) -> bool {
        self.lingering.count(now) < most && self.closes.take(now)
    }

    /// Notes that the server may count a given-up wait until this instant.
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
    fn simultaneous_failures_cost_one_pause_and_a_success_resets_it() {
        let start = Instant::now();
        let policy = ReconnectPolicy::default();
        let mut pace = WaitPace::new(policy.start(), start);
        assert!(!pace.has_failed() && pace.not_before() == start);
        pace.failed(start);
        let paused = pace.not_before();
        pace.failed(start);
        assert!(pace.has_failed() && paused > start);
        assert_eq!(pace.not_before(), paused, "both failures count as one");
        pace.failed(paused);
        assert!(pace.not_before() > paused);
        pace.succeeded(policy.start());
        assert!(!pace.has_failed());
        pace.restart(policy.start(), start);
        assert_eq!(pace.not_before(), start);
    }

    #[test]
    fn the_number_of_lingering_waits_is_limited() {
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
