//! The suspended time of the machine on Linux and Android. `CLOCK_BOOTTIME` advances during a suspend, and
//! `CLOCK_MONOTONIC`, the clock of `Instant`, does not. There is no other difference, so their difference grows only by
//! suspends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Whether the system reports suspends.
pub(crate) const IS_KNOWN: bool = true;

static SUSPENDS: Suspends = Suspends::new();

/// How often the clocks are read to get the first difference. A reading that is interrupted between the two clocks
/// gives too small a difference.
const FIRST_LOOKS: usize = 8;

/// The shortest time that counts as a suspend, in nanoseconds. The delay between reading the two clocks varies, so
/// smaller differences are not suspends. Every suspend takes longer than this.
const GRAIN: u64 = 1_000_000;

pub(super) fn suspended() -> Duration {
    let first = || (0..FIRST_LOOKS).map(|_| look()).max().unwrap_or_default();
    Duration::from_nanos(SUSPENDS.see(look(), first))
}

/// Returns the difference of the clocks in nanoseconds, or a little less, because the clock that is ahead is read
/// first. So the result is never too large.
fn look() -> u64 {
    let ahead = nanos(clock_gettime(ClockId::Boottime));
    ahead.saturating_sub(nanos(clock_gettime(ClockId::Monotonic)))
}

fn nanos(time: Timespec) -> u64 {
    let (secs, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    secs.unwrap_or_default()
        .saturating_mul(1_000_000_000)
        .saturating_add(nanos.unwrap_or_default())
}

/// The differences seen so far. Nothing here blocks, so it works in a signal handler and after a fork.
#[derive(Debug)]
struct Suspends {
    /// The first difference plus one; zero before it is known.
    first: AtomicU64,
    /// The largest growth since then.
    most: AtomicU64,
}

impl Suspends {
    const fn new() -> Self {
        Self {
            first: AtomicU64::new(0),
            most: AtomicU64::new(0),
        }
    }

    /// Notes the current difference. Returns the largest growth since the first difference, or zero until a growth
    /// reaches [`GRAIN`], so that the result is always the same without a suspend.
    fn see(&self, difference: u64, first_look: impl FnOnce() -> u64) -> u64 {
        let first = match self.first.load(Ordering::Acquire) {
            0 => self.set_first(first_look().max(difference)),
            known => known - 1,
        };
        let grown = difference.saturating_sub(first);
        if grown < GRAIN && self.most.load(Ordering::Acquire) == 0 {
            return 0;
        }
        self.most.fetch_max(grown, Ordering::AcqRel).max(grown)
    }

    /// Sets the first difference, unless another thread has set it meanwhile. Returns it.
    fn set_first(&self, difference: u64) -> u64 {
        let set = self
            .first
            .compare_exchange(0, difference.saturating_add(1), Ordering::AcqRel, Ordering::Acquire);
        set.map_or_else(|known| known - 1, |_| difference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_growth_of_the_difference_counts_and_never_shrinks() {
        let suspends = Suspends::new();
        let see = |difference| suspends.see(difference, || difference);
        // The machine was suspended before this process started.
        assert_eq!(see(5 * GRAIN), 0);
        assert_eq!(see(5 * GRAIN), 0);
        assert_eq!(see(12 * GRAIN), 7 * GRAIN);
        assert_eq!(see(7 * GRAIN), 7 * GRAIN, "an interrupted reading gives less");
        assert_eq!(see(4 * GRAIN), 7 * GRAIN);
        assert_eq!(see(45 * GRAIN), 40 * GRAIN);
        assert_eq!(
            see(45 * GRAIN + 700),
            40 * GRAIN + 700,
            "the reading before was interrupted and gave too little"
        );
    }

    #[test]
    fn a_growth_of_less_than_a_grain_is_no_suspend() {
        let suspends = Suspends::new();
        let see = |difference| suspends.see(difference, || difference);
        let first = 5 * GRAIN;
        for quicker in [0, 30, 700, GRAIN - 1] {
            assert_eq!(see(first + quicker), 0);
        }
        assert_eq!(see(first + 3 * GRAIN + 30), 3 * GRAIN + 30, "the whole suspend counts");
    }

    #[test]
    fn the_largest_of_the_first_readings_counts() {
        let suspends = Suspends::new();
        assert_eq!(suspends.see(100, || 5 * GRAIN), 0);
        assert_eq!(suspends.see(6 * GRAIN, || 0), GRAIN);
    }

    #[test]
    fn the_clocks_of_this_machine_can_be_compared() {
        let before = super::suspended();
        assert!(super::suspended() >= before);
        assert!(look() < u64::MAX / 2);
    }
}
