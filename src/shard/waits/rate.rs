//! Limits on the load that a shard puts on its server: per second, and at once. Pure: the caller provides the time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

/// Limits events to a burst, and to a number per second in the long run.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    /// The time between two events at an even pace.
    every: Duration,
    /// How far a burst may be ahead of that pace.
    tolerance: Duration,
    /// When all events so far would be over at an even pace.
    paid_until: Option<Instant>,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub(crate) fn new(burst: u32, per_second: u32) -> Self {
        let every = Duration::from_secs(1) / per_second.max(1);
        Self {
            every,
            tolerance: every * burst.max(1).saturating_sub(1),
            paid_until: None,
        }
    }

    /// Counts another event, if it is permitted now. Returns whether it is.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if self.ready_at(now) > now {
            return false;
        }
        let from = self.paid_until.map_or(now, |until| until.max(now));
        self.paid_until = Some(from + self.every);
        true
    }

    /// Returns when the next event is permitted: now or later.
    pub(crate) fn ready_at(&self, now: Instant) -> Instant {
        let ahead = self.paid_until.map(|until| until.saturating_duration_since(now));
        now + ahead.unwrap_or_default().saturating_sub(self.tolerance)
    }
}

/// Waits whose connections this client closed. A server that does not notice the close counts each wait until its time
/// is over.
#[derive(Debug, Default)]
pub(crate) struct Lingering(BinaryHeap<Reverse<Instant>>);

impl Lingering {
    /// Adds a wait that the server ends by itself at `until`.
    pub(crate) fn add(&mut self, until: Instant) {
        self.0.push(Reverse(until));
    }

    /// Returns how many of these waits the server may still count.
    pub(crate) fn count(&mut self, now: Instant) -> usize {
        while self.0.peek().is_some_and(|Reverse(until)| *until <= now) {
            self.0.pop();
        }
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_sees_more_than_the_burst_and_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(40, 150);
        let mut passed = Vec::new();
        for milli in 0..5_000 {
            let now = start + Duration::from_millis(milli);
            while bucket.take(now) {
                passed.push(milli);
            }
        }
        assert_eq!(passed.iter().filter(|at| **at == 0).count(), 40);
        for from in 0..4_000 {
            let second = passed.iter().filter(|at| (from..from + 1_000).contains(*at)).count();
            assert!(second <= 190, "{second} from {from} ms on");
        }
        assert!((740..=790).contains(&passed.len()), "{}", passed.len());
    }

    #[test]
    fn a_bucket_says_when_the_next_event_is_permitted_and_fills_up_again() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(2, 10);
        assert!(bucket.take(start) && bucket.take(start) && !bucket.take(start));
        let next = bucket.ready_at(start);
        assert_eq!(next, start + Duration::from_millis(100));
        assert!(bucket.take(next) && !bucket.take(next));
        let later = start + Duration::from_secs(60);
        assert!(bucket.take(later) && bucket.take(later) && !bucket.take(later));
    }

    #[test]
    fn a_wait_lingers_until_its_time_is_over() {
        let start = Instant::now();
        let mut lingering = Lingering::default();
        for seconds in [3, 1, 2] {
            lingering.add(start + Duration::from_secs(seconds));
        }
        let counts = [0, 1, 2, 3].map(|seconds| lingering.count(start + Duration::from_secs(seconds)));
        assert_eq!(counts, [3, 2, 1, 0]);
    }
}
