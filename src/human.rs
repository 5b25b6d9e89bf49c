//! Durations as people read them.

use std::fmt;
use std::time::Duration;

/// Returns a duration for a message: in the unit that fits, rounded to three significant digits.
///
/// What was measured or is left over is told so: `999.997106ms` is `1 s`.
pub(crate) fn human(duration: Duration) -> Human {
    Human(duration)
}

/// A duration that is shown as a number and its unit.
#[derive(Clone, Copy)]
pub(crate) struct Human(Duration);

/// A unit: its name, its length in nanoseconds, and from how many of the unit before it on it is used.
const UNITS: [(&str, u128); 7] = [
    ("ns", 1),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS_PER_SEC),
    ("min", 60 * NANOS_PER_SEC),
    ("h", 3_600 * NANOS_PER_SEC),
    ("days", 86_400 * NANOS_PER_SEC),
];

const NANOS_PER_SEC: u128 = 1_000_000_000;

/// Up to this many seconds, minutes or hours no longer unit is used.
const ENOUGH: u128 = 120;

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = to_three_digits(self.0.as_nanos());
        let (unit, length) = unit_of(nanos);
        let (whole, part) = (nanos / length, nanos % length);
        // As a decimal fraction: nine digits are enough for every unit up to the second, and more than enough above.
        let digits = format!("{:09}", part * NANOS_PER_SEC / length);
        match digits.trim_end_matches('0') {
            "" => write!(f, "{whole} {unit}"),
            digits => write!(f, "{whole}.{digits} {unit}"),
        }
    }
}

impl fmt::Debug for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn unit_of(nanos: u128) -> (&'static str, u128) {
    let fits = |(index, (_, length)): &(usize, (&str, u128))| {
        let least = if *index <= 3 {
            *length
        } else {
            ENOUGH * UNITS[index - 1].1
        };
        nanos >= least
    };
    let found = UNITS.into_iter().enumerate().rfind(fits);
    // Nothing at all is so many seconds.
    found.map_or(UNITS[3], |(_, unit)| unit)
}

/// Rounds a number of nanoseconds, as it is shown in its unit.
fn to_three_digits(nanos: u128) -> u128 {
    let (_, length) = unit_of(nanos);
    // A count of 100 and more of the unit is shown in whole ones.
    let mut step = length;
    while step >= 10 && nanos / step < 100 {
        step /= 10;
    }
    (nanos + step / 2) / step * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_and_have_the_unit_that_fits() {
        for (nanos, said) in [
            (0, "0 s"),
            (7, "7 ns"),
            (1_500, "1.5 µs"),
            (999_997_106, "1 s"),
            (999_499_999, "999 ms"),
            (300_000_000, "300 ms"),
            (299_999_148, "300 ms"),
            (1_234_567, "1.23 ms"),
            (1_000_000_000, "1 s"),
            (2_500_000_000, "2.5 s"),
            (22_940_000_000, "22.9 s"),
            (119_600_000_000, "2 min"),
            (119_400_000_000, "119 s"),
            (300_000_000_000, "5 min"),
            (7_200_000_000_000, "2 h"),
            (864_000_000_000_000, "10 days"),
        ] {
            assert_eq!(human(Duration::from_nanos(nanos)).to_string(), said, "{nanos}");
        }
        let longest = human(Duration::MAX).to_string();
        assert!(longest.ends_with(" days"), "{longest}");
    }
}
