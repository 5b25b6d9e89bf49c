//! Durations as people read them.

use std::fmt;
use std::time::Duration;

/// Returns a duration for a message: rounded to three significant digits, and to whole seconds from 100 s on.
///
/// What was measured or is left over is told so: `999.997106ms` is `1s`.
pub(crate) fn human(duration: Duration) -> Human {
    Human(duration)
}

/// A duration that is shown rounded.
#[derive(Clone, Copy)]
pub(crate) struct Human(Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&rounded(self.0), f)
    }
}

fn rounded(duration: Duration) -> Duration {
    const SECOND: u64 = 1_000_000_000;
    let Ok(nanos) = u64::try_from(duration.as_nanos()) else {
        return Duration::from_secs(duration.as_secs());
    };
    // The worth of the last digit that is shown.
    let mut step = 1;
    while step < SECOND && nanos / step >= 1_000 {
        step *= 10;
    }
    Duration::from_nanos(nanos.saturating_add(step / 2) / step * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_told_and_whole_seconds_are_kept() {
        for (nanos, said) in [
            (0, "0ns"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (1_234_567, "1.23ms"),
            (299_999_148, "300ms"),
            (999_499_999, "999ms"),
            (999_997_106, "1s"),
            (2_500_000_000, "2.5s"),
            (22_940_000_000, "22.9s"),
            (22_950_000_000, "23s"),
            (119_600_000_000, "120s"),
            (1_234_567_890_123, "1235s"),
            (864_000_000_000_000, "864000s"),
        ] {
            assert_eq!(human(Duration::from_nanos(nanos)).to_string(), said, "{nanos}");
        }
        assert_eq!(human(Duration::MAX).to_string(), format!("{}s", u64::MAX));
        assert!(human(Duration::from_nanos(u64::MAX)).to_string().ends_with('s'));
    }
}
