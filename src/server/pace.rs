//! A connection whose requests take time, one after the other: for benchmarks.

use std::time::{Duration, Instant};

use super::pause::PreciseTimer;

/// How far requests may catch up with answers that were told late.
const MOST_CAUGHT_UP: Duration = Duration::from_millis(1);

/// Lets each request of a connection take so much time.
///
/// Timers of a few microseconds are late by as many or more, and each costs more than a request. So the time of a request begins when
/// that of the one before ended, not when its answer was told; and if the client has asked again by then, as it would have had the
/// answer been in time, that lateness does not count against it. Over many requests each takes its time, no more and no less, while
/// several are answered at once where the timer was late.
pub(super) struct RequestPace {
    each: Duration,
    /// When all requests so far are done.
    done: Instant,
    /// When the last answer was told.
    told: Instant,
    timer: PreciseTimer,
}

impl RequestPace {
    /// `None` if requests take no time.
    pub(super) fn new(each: Duration) -> Option<Self> {
        let now = Instant::now();
        (!each.is_zero()).then(|| Self {
            each,
            done: now,
            told: now,
            timer: PreciseTimer::default(),
        })
    }

    /// A request was worked on.
    pub(super) fn take_time(&mut self) {
        self.done += self.each;
    }

    /// Whether all requests so far are done, and one more would be, too.
    pub(super) fn has_time_left(&self) -> bool {
        self.done + self.each <= Instant::now()
    }

    /// Waits until all requests so far are done.
    pub(super) async fn wait(&mut self) {
        let left = self.done.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            self.timer.wait(left).await;
        }
    }

    /// All answers so far are told.
    pub(super) fn answers_told(&mut self) {
        self.told = Instant::now();
    }

    /// Goes on with the next request. The time since the last answer was that of the client, or of a wait.
    pub(super) fn resume(&mut self) {
        let now = Instant::now();
        let idle = now.saturating_duration_since(self.told);
        let earliest = now.checked_sub(MOST_CAUGHT_UP).unwrap_or(now);
        self.done = (self.done + idle).max(earliest);
        self.told = now;
    }
}
