//! Moments that cannot overflow.

use std::time::Duration;

use tokio::time::Instant;

/// Stands for "never" where a duration is longer than an `Instant` can hold.
const FAR_AWAY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A moment after another, however far.
pub(crate) fn after(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration.min(FAR_AWAY)).unwrap_or(start)
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
}
