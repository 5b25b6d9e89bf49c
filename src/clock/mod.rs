//! Time arithmetic that cannot overflow and takes suspends of the machine into account.
//!
//! The clock of this crate stops while the machine is suspended, but a server's clock does not. So this crate stores
//! the times that determine the end of a lease as [`Moment`]s, which also contain the total suspended time of the
//! machine.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod suspend;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "suspend_absent.rs"]
mod suspend;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::suspend::IS_KNOWN as SUSPEND_IS_KNOWN;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Stands for "never": longer than the longest TTL on the wire (292 years).
const FAR_AWAY: Duration = YEAR.saturating_mul(1000);

/// Stands for "never" on a system whose clock cannot represent [`FAR_AWAY`].
const NEARER: Duration = YEAR.saturating_mul(30);

/// Adds a duration to an instant. The result is far in the future if the clock cannot represent it.
pub(crate) fn after(start: Instant, duration: Duration) -> Instant {
    start
        .checked_add(duration.min(FAR_AWAY))
        .or_else(|| start.checked_add(duration.min(NEARER)))
        .unwrap_or(start)
}

/// An instant, and the total time for which the machine was suspended between the process's first call of [`suspended`]
/// and that instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) suspended: Duration,
}

impl Moment {
    /// Returns the current moment. A suspend during this call counts as if it came after the moment.
    pub(crate) fn now() -> Self {
        let suspended = suspended();
        Self {
            at: Instant::now(),
            suspended,
        }
    }

    /// Returns the instant of this moment, earlier by the time of all suspends since then. `suspended` is the machine's
    /// total suspended time by now.
    pub(crate) fn seen_after(self, suspended: Duration) -> Instant {
        match suspended.checked_sub(self.suspended) {
            Some(since) => before(self.at, since),
            None => after(self.at, self.suspended - suspended),
        }
    }
}

/// Subtracts a duration from an instant. Returns the instant itself if the system's clock cannot represent the result;
/// this does not happen on the systems that report suspends.
pub(crate) fn before(end: Instant, duration: Duration) -> Instant {
    end.checked_sub(duration).unwrap_or(end)
}

/// Returns for how long the machine was suspended since the process's first call of this function, or zero if the
/// system does not report suspends. The result never decreases.
pub(crate) fn suspended() -> Duration {
    let suspended = suspend::suspended();
    #[cfg(test)]
    let suspended = suspended.saturating_add(testing::pretended());
    suspended
}

/// Simulated suspends, for tests on one thread.
#[cfg(test)]
pub(crate) mod testing {
    use std::cell::Cell;
    use std::time::Duration;

    thread_local! {
        static PRETENDED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    pub(super) fn pretended() -> Duration {
        PRETENDED.get()
    }

    /// Simulates a suspend for this thread.
    pub(crate) fn suspend_for(duration: Duration) {
        PRETENDED.set(PRETENDED.get() + duration);
    }
}

/// Converts an instant, as if there had been no suspends.
#[cfg(test)]
impl From<Instant> for Moment {
    fn from(at: Instant) -> Self {
        Self {
            at,
            suspended: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_that_the_clock_cannot_represent_ends_in_the_far_future() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_secs(5)), now + Duration::from_secs(5));
        assert!(after(now, Duration::MAX) > now + Duration::from_secs(1_000_000));
    }

    #[test]
    fn a_suspend_makes_earlier_moments_older() {
        let secs = Duration::from_secs;
        let at = Instant::now() + secs(100);
        let moment = Moment {
            at,
            suspended: secs(20),
        };
        assert_eq!(moment.seen_after(secs(20)), at);
        assert_eq!(moment.seen_after(secs(27)), at - secs(7));
        assert_eq!(
            moment.seen_after(secs(15)),
            at + secs(5),
            "a reader that knows of fewer suspends"
        );
    }

    #[test]
    fn a_suspend_increases_the_suspended_time_of_later_moments() {
        let before = Moment::now();
        testing::suspend_for(Duration::from_secs(3));
        let after = Moment::now();
        assert!(after.suspended - before.suspended >= Duration::from_secs(3));
        assert!(after.at >= before.at);
    }
}
