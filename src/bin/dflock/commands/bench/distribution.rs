//! Distributions of measured times.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;

/// The longest time that is recorded, in nanoseconds: one hour. Longer times count as one hour.
const LONGEST: u64 = 3_600_000_000_000;

/// The number of significant digits that are kept.
const DIGITS: u8 = 3;

/// Times, in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Distribution(Histogram<u64>);

/// The summary of a distribution in reports, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) max_us: f64,
}

impl Distribution {
    pub(super) fn new() -> Result<Self, Failure> {
        let refused = |error: hdrhistogram::CreationError| Failure::new(Exit::SOFTWARE, error.to_string());
        Histogram::new_with_max(LONGEST, DIGITS).map(Self).map_err(refused)
    }

    pub(super) fn record(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanoseconds.max(1));
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn summary(&self) -> Summary {
        let at = |quantile| micros(self.0.value_at_quantile(quantile));
        Summary {
            count: self.count(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(self.0.max()),
        }
    }

    /// Returns the points of a curve up to the longest time. A point (n, t) says that one time in n is longer than t
    /// microseconds.
    pub(super) fn curve(&self) -> Vec<(f64, f64)> {
        let count = self.count().max(1) as f64;
        let points = self.0.iter_quantiles(8).map(|step| {
            let slower = (1.0 - step.quantile_iterated_to()).max(1.0 / count);
            (1.0 / slower, micros(step.value_iterated_to()))
        });
        points.collect()
    }
}

fn micros(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 100.0).round() / 10.0
}

/// A distribution to which many tasks record. It has several parts, so that tasks seldom wait for each other.
#[derive(Debug)]
pub(super) struct Recorder(Vec<Mutex<Distribution>>);

impl Recorder {
    const PARTS: usize = 16;

    pub(super) fn new() -> Result<Self, Failure> {
        let parts = (0..Self::PARTS).map(|_| Distribution::new().map(Mutex::new));
        parts.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn record(&self, task: usize, time: Duration) {
        let part = self.0.get(task % self.0.len().max(1));
        if let Some(part) = part {
            part.lock().unwrap_or_else(PoisonError::into_inner).record(time);
        }
    }

    /// Returns the sum of all parts.
    pub(super) fn sum(&self) -> Result<Distribution, Failure> {
        let mut sum = Distribution::new()?;
        for part in &self.0 {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let added = sum.0.add(&part.0);
            added.map_err(|error| Failure::new(Exit::SOFTWARE, error.to_string()))?;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_tasks_are_summed_up() {
        let recorder = Recorder::new().unwrap();
        for task in 0..1_000 {
            recorder.record(task, Duration::from_micros(task as u64 + 1));
        }
        let sum = recorder.sum().unwrap();
        let summary = sum.summary();
        assert_eq!(summary.count, 1_000);
        for (told, exact) in [
            (summary.p50_us, 500.0),
            (summary.p90_us, 900.0),
            (summary.p99_us, 990.0),
            (summary.p999_us, 999.0),
            (summary.max_us, 1_000.0),
        ] {
            assert!((told - exact).abs() <= exact / 500.0, "{told} for {exact}");
        }
    }

    #[test]
    fn a_curve_ends_at_the_longest_time_and_at_all_samples() {
        let mut times = Distribution::new().unwrap();
        for micros in 1..=10_000 {
            times.record(Duration::from_micros(micros));
        }
        let curve = times.curve();
        assert!(curve.len() > 20, "{curve:?}");
        assert!(
            curve.is_sorted_by(|one, next| one.0 <= next.0 && one.1 <= next.1),
            "{curve:?}"
        );
        let (one_in, longest) = curve.last().copied().unwrap();
        assert_eq!(one_in.round(), 10_000.0);
        assert_eq!(longest, times.summary().max_us);
    }

    #[test]
    fn a_summary_of_no_times_has_a_count_of_zero() {
        let summary = Distribution::new().unwrap().summary();
        assert_eq!((summary.count, summary.max_us), (0, 0.0));
    }
}
