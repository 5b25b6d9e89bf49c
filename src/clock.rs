//! Moments that cannot overflow.

use std::time::Duration;

use tokio::time::Instant;

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
