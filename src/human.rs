//! Durations as people read and write them.

use std::fmt;
use std::time::Duration;

/// Returns a duration for a message: rounded to three significant digits, and to whole seconds from 100 s on.
///
/// For measured or remaining times: `999.997106ms` is shown as `1s`.
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
    // The value of the last digit that is not rounded away, in nanoseconds.
    let mut step = 1;
    while step < SECOND && nanos / step >= 1_000 {
        step *= 10;
    }
    Duration::from_nanos(nanos.saturating_add(step / 2) / step * step)
}

/// The form of a duration, for messages about an invalid one.
pub(crate) const DURATION_FORM: &str = "a duration with its unit, such as 500ms, 10s or 1m30s";

/// The units: their names, and their lengths in nanoseconds.
const UNITS: [(&[&str], u128); 7] = [
    (&["ns", "nsec", "nanos"], 1),
    (&["us", "µs", "usec", "micros"], 1_000),
    (&["ms", "msec", "millis"], 1_000_000),
    (&["s", "sec", "secs", "second", "seconds"], 1_000_000_000),
    (&["m", "min", "mins", "minute", "minutes"], 60_000_000_000),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600_000_000_000),
    (&["d", "day", "days"], 86_400_000_000_000),
];

/// Parses a duration: one or several numbers, with or without fractions, each with its unit, such as `1.5s` or `1h
/// 30m`. Zero needs no unit: `0`.
///
/// The result is exact. Returns `None` for a fraction of a nanosecond, and for more than a `Duration` can hold.
pub(crate) fn read_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_alphabetic()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(end);
        let (_, unit) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
        nanos = nanos.checked_add(read_number(number, *unit)?)?;
        rest = next.trim_start();
    }
    const SECOND: u128 = 1_000_000_000;
    let secs = u64::try_from(nanos / SECOND).ok()?;
    let subsec = u32::try_from(nanos % SECOND).ok()?;
    (!text.trim().is_empty()).then(|| Duration::new(secs, subsec))
}

/// Parses a number, with or without a fraction, and multiplies it by `unit` nanoseconds.
fn read_number(text: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (text, ""),
    };
    let mut nanos = whole.parse::<u128>().ok()?.checked_mul(unit)?;
    let mut worth = unit;
    for digit in fraction.chars() {
        let digit = u128::from(digit.to_digit(10)?);
        let is_exact = worth != 0 && worth % 10 == 0;
        worth /= 10;
        match is_exact {
            true => nanos = nanos.checked_add(digit.checked_mul(worth)?)?,
            false if digit == 0 => {}
            false => return None,
        }
    }
    Some(nanos)
}

/// Writes a duration so that [`read_duration`] returns the same one.
pub(crate) fn write_duration(duration: Duration) -> String {
    format!("{duration:?}").replace('µ', "u")
}

/// Serializes a duration as the text of [`write_duration`].
pub(crate) mod as_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{DURATION_FORM, read_duration, write_duration};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&write_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        read(&String::deserialize(from)?)
    }

    pub(super) fn read<E: serde::de::Error>(text: &str) -> Result<Duration, E> {
        read_duration(text).ok_or_else(|| E::custom(format!("{text:?} is not acceptable: write {DURATION_FORM}")))
    }
}

/// Serializes an optional duration in the same way.
pub(crate) mod optional_as_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::as_text;

    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => as_text::serialize(duration, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| as_text::read(&text)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_written_duration_is_read_back_unchanged(secs: u64, nanos in 0_u32..1_000_000_000, is_short: bool) {
            let duration = Duration::new(if is_short { secs % 100 } else { secs }, nanos);
            prop_assert_eq!(read_duration(&write_duration(duration)), Some(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9.µa-z ]{0,40}|.{0,40}") {
            read_duration(&text);
        }
    }

    #[test]
    fn units_fractions_and_sums_are_read() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("7ns", 7),
            ("1.5us", 1_500),
            ("1.5µs", 1_500),
            ("250ms", 250_000_000),
            (" 2.50 s ", 2_500_000_000),
            ("1m30s", 90_000_000_000),
            ("1h 30min", 5_400_000_000_000),
            ("1day 1 hour", 90_000_000_000_000),
            ("0.5m", 30_000_000_000),
            ("1.0000000010s", 1_000_000_001),
        ] {
            assert_eq!(read_duration(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for bad in [
            "",
            " ",
            "3",
            "s",
            "-1s",
            "+1s",
            "1.s",
            ".5s",
            "1..5s",
            "1.5.5s",
            "0.5ns",
            "1.0000000001s",
            "1.00000000001s",
            "1 2s",
            "1s2",
            "1x",
            "1ss",
            "1e3s",
            "99999999999999999999s",
            "999999999999999999999999999999999999999999s",
            "18446744073709551615s1000ms",
        ] {
            assert_eq!(read_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_have_three_digits_and_keep_whole_seconds() {
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
