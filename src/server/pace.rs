//! A connection whose requests take time, one after the other: for benchmarks.

use std::time::{Duration, Instant};

use super::pause::PreciseTimer;

#[cfg(test)]
mod tests;

/// How far requests may catch up with answers that were told late.
const MOST_CAUGHT_UP: Duration = Duration::from_millis(1);

/// Lets each request of a connection take so much time.
///
/// Timers of a few microseconds are late by as many or more, and each costs more than a request. So the time of a request begins when
/// that of the one before ended, not when its answer was told; and if the client has asked again by then, as it would have had the
/// answer been in time, that lateness does not count against it. Over many requests each takes its time, no more and no less, while
/// several are answered at once where the timer was late, or where the connection got no turn: those of [`MOST_CAUGHT_UP`] at most.
pub(super) struct RequestPace<C = fn() -> Instant> {
    each: Duration,
    /// When all requests so far are done.
    done: Instant,
    /// When the last answer was told.
    told: Instant,
    timer: PreciseTimer,
    clock: C,
}

impl RequestPace {
    /// `None` if requests take no time.
    pub(super) fn new(each: Duration) -> Option<Self> {
        (!each.is_zero()).then(|| Self::with_clock(each, Instant::now))
    }
}

impl<C: Fn() -> Instant> RequestPace<C> {
    fn with_clock(each: Duration, clock: C) -> Self {
        let now = clock();
        Self {
            each,
            done: now,
            told: now,
            timer: PreciseTimer::default(),
            clock,
        }
    }

    /// A request was worked on.
    pub(super) fn take_time(&mut self) {
        let now = (self.clock)();
        let earliest = now.checked_sub(MOST_CAUGHT_UP).unwrap_or(now);
        self.done = self.done.max(earliest) + self.each;
    }

    /// Whether all requests so far are done, and one more would be, too.
    pub(super) fn has_time_left(&self) -> bool {
        self.done + self.each <= (self.clock)()
    }

    /// Waits until all requests so far are done.
    pub(super) async fn wait(&mut self) {
        let left = self.left();
        if !left.is_zero() {
            self.timer.wait(left).await;
        }
    }

    /// How long it is until all requests so far are done.
    fn left(&self) -> Duration {
        self.done.saturating_duration_since((self.clock)())
    }

    /// All answers so far are told.
    pub(super) fn answers_told(&mut self) {
        self.told = (self.clock)();
    }

    /// Goes on with the next request. The time since the last answer was that of the client, or of a wait.
    pub(super) fn resume(&mut self) {
        let now = (self.clock)();
        self.done += now.saturating_duration_since(self.told);
        self.told = now;
    }
}
