//! The pace of a connection whose requests take time, one after the other: for benchmarks.

use std::time::{Duration, Instant};

use super::pause::PreciseTimer;

#[cfg(test)]
mod tests;

/// How much time requests can catch up after late answers.
const MOST_CAUGHT_UP: Duration = Duration::from_millis(1);

/// Makes each request of a connection take a given time.
///
/// Requests take a few microseconds, and timers are late by about as much. If each request started after the previous
/// answer, these delays would add up. So requests follow a schedule: each starts at the scheduled end of the previous
/// one, and takes exactly its time on average. Answers that are late are sent together: they catch up by at most
/// [`MOST_CAUGHT_UP`]. The time between an answer and the client's next request does not count: it moves the schedule.
pub(super) struct RequestPace<C = fn() -> Instant> {
    each: Duration,
    /// The scheduled end of all requests so far.
    done: Instant,
    /// When the last answers were sent.
    answered_at: Instant,
    timer: PreciseTimer,
    clock: C,
}

impl RequestPace {
    /// Returns `None` if requests take no time.
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
            answered_at: now,
            timer: PreciseTimer::default(),
            clock,
        }
    }

    /// Adds the time of a request.
    pub(super) fn take_time(&mut self) {
        let now = (self.clock)();
        let earliest = now.checked_sub(MOST_CAUGHT_UP).unwrap_or(now);
        self.done = self.done.max(earliest) + self.each;
    }

    /// Returns whether one more request would be done by now.
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

    /// Returns the time until all requests so far are done.
    fn left(&self) -> Duration {
        self.done.saturating_duration_since((self.clock)())
    }

    /// Notes that all answers so far are sent.
    pub(super) fn note_answers_sent(&mut self) {
        self.answered_at = (self.clock)();
    }

    /// Continues with the next request. The time since the last answer was spent by the client, or in a wait, and does
    /// not count.
    pub(super) fn resume(&mut self) {
        let now = (self.clock)();
        self.done += now.saturating_duration_since(self.answered_at);
        self.answered_at = now;
    }
}
