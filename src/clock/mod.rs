//! Moments that cannot overflow, and that know for how long the machine was suspended.
//!
//! The clock of this crate stops while the machine is suspended, that of a server does not. So whatever a lease's end depends on is a
//! [`Moment`], which also tells how long the machine had been suspended by then.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod suspend;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "suspend_absent.rs"]
mod suspend;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::suspend::IS_KNOWN as SUSPEND_IS_KNOWN;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Stands for "never": longer than the longest TTL that the wire can carry (292 years).
const FAR_AWAY: Duration = YEAR.saturating_mul(1000);

/// The same, where the system's clock cannot count that far.
const NEARER: Duration = YEAR.saturating_mul(30);

/// A moment after another, however far.
pub(crate) fn after(start: Instant, duration: Duration) -> Instant {
    start
        .checked_add(duration.min(FAR_AWAY))
        .or_else(|| start.checked_add(duration.min(NEARER)))
        .unwrap_or(start)
}

/// A moment, and for how long the machine had been suspended by then since this process first looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) suspended: Duration,
}

impl Moment {
    /// Returns this moment. A suspend while this runs counts as one after it.
    pub(crate) fn now() -> Self {
        let suspended = suspended();
        Self {
            at: Instant::now(),
            suspended,
        }
    }

    /// Returns the instant that is so far from an instant of now as this moment is from now, where the machine has been
    /// `suspended` for so long by now: earlier by what it was suspended since.
    pub(crate) fn seen_after(self, suspended: Duration) -> Instant {
        match suspended.checked_sub(self.suspended) {
            Some(since) => before(self.at, since),
            None => after(self.at, self.suspended - suspended),
        }
    }
}

/// A moment before another. Where the system's clock cannot count back so far there are no suspends to count.
pub(crate) fn before(end: Instant, duration: Duration) -> Instant {
    end.checked_sub(duration).unwrap_or(end)
}

/// Returns for how long the machine was suspended since this process first looked; zero where the system does not tell. It never
/// shrinks.
pub(crate) fn suspended() -> Duration {
    let suspended = suspend::suspended();
    #[cfg(test)]
    let suspended = suspended.saturating_add(testing::pretended());
    suspended
}

/// Suspends that tests of one thread pretend.
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

    /// The machine of this thread was suspended for so long.
    pub(crate) fn suspend_for(duration: Duration) {
        PRETENDED.set(PRETENDED.get() + duration);
    }
}

/// Where nothing is suspended.
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
    fn the_longest_wait_is_a_long_one() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_secs(5)), now + Duration::from_secs(5));
        assert!(after(now, Duration::MAX) > now + Duration::from_secs(1_000_000));
    }

    #[test]
    fn a_moment_before_a_suspend_is_longer_ago() {
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
            "seen by somebody who has not heard of it yet"
        );
    }

    #[test]
    fn suspends_are_counted_from_the_first_look_on() {
        let before = Moment::now();
        testing::suspend_for(Duration::from_secs(3));
        let after = Moment::now();
        assert!(after.suspended - before.suspended >= Duration::from_secs(3));
        assert!(after.at >= before.at);
    }
}
