//! Instants in half the space, because a registry stores several for each lease.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{after, before};

/// The origin of stamps. Any instant is suitable, because stamps reach 292 years back and ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch(pub(super) Instant);

/// An instant, to the nanosecond. Stamps of one epoch have the order of their instants. Instants that are more than 292
/// years away from the epoch are stored as 292 years away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(NonZeroU64);

/// The stamp of the epoch itself.
const MIDDLE: u64 = 1 << 63;

impl Epoch {
    pub(super) fn stamp(self, instant: Instant) -> Stamp {
        match instant.checked_duration_since(self.0) {
            Some(ahead) => Stamp::of(MIDDLE.saturating_add(nanos(ahead))),
            None => Stamp::of(MIDDLE.saturating_sub(nanos(self.0.saturating_duration_since(instant)))),
        }
    }

    pub(super) fn instant(self, stamp: Stamp) -> Instant {
        let stamp = stamp.0.get();
        match stamp.checked_sub(MIDDLE) {
            Some(ahead) => after(self.0, Duration::from_nanos(ahead)),
            None => before(self.0, Duration::from_nanos(MIDDLE - stamp)),
        }
    }
}

impl Stamp {
    fn of(number: u64) -> Self {
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// Returns the stamp that is earlier by `duration`.
    pub(super) fn earlier_by(self, duration: Duration) -> Self {
        Self::of(self.0.get().saturating_sub(nanos(duration)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_its_instant_before_and_after_the_epoch() {
        let epoch = Epoch(Instant::now() + Duration::from_secs(100));
        let times = [0, 1, 99_999_999_999, 100_000_000_000, 100_000_000_001, u64::MAX / 4];
        let instants = times.map(|nanos| Instant::now() + Duration::from_nanos(nanos));
        let stamps = instants.map(|instant| epoch.stamp(instant));
        assert_eq!(stamps.map(|stamp| epoch.instant(stamp)), instants);
        assert!(stamps.is_sorted());
        assert_eq!(size_of::<Option<Stamp>>(), 8);
        let earlier = stamps[3].earlier_by(Duration::from_secs(7));
        assert_eq!(epoch.instant(earlier), instants[3] - Duration::from_secs(7));
    }

    #[test]
    fn an_instant_beyond_the_range_becomes_the_limit_of_the_range() {
        let epoch = Epoch(Instant::now());
        let far = epoch.stamp(after(epoch.0, Duration::MAX));
        assert!(far > epoch.stamp(epoch.0 + Duration::from_secs(9_000_000_000)));
        assert!(epoch.instant(far) > epoch.0 + Duration::from_secs(9_000_000_000));
    }
}
