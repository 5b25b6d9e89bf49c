//! Counts and times the operations of the load.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use dflockd_client::Error;
use hdrhistogram::Histogram;

pub(crate) struct Meter {
    counts: Mutex<Counts>,
    /// The latencies since the last sample, in microseconds.
    pairs: Mutex<Histogram<u64>>,
    waits: Mutex<Histogram<u64>>,
}

/// The longest latency that a histogram can store, in microseconds: ten minutes. No operation takes so long.
pub(crate) const LONGEST: u64 = 600_000_000;

#[derive(Default)]
struct Counts {
    done: BTreeMap<&'static str, u64>,
    failed: BTreeMap<String, u64>,
}

/// The median (`p50`) and the 99th percentile, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

/// The kinds of operations whose latency is measured.
#[derive(Clone, Copy)]
pub(crate) enum Timed {
    /// An acquire of a free key, and its release.
    Pair,
    /// An acquire of a key for which other tasks compete.
    Wait,
}

impl Meter {
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        let empty = Histogram::new_with_bounds(1, LONGEST, 3)?;
        Ok(Self {
            counts: Mutex::default(),
            pairs: Mutex::new(empty.clone()),
            waits: Mutex::new(empty),
        })
    }

    /// Counts an operation, by its outcome.
    pub(crate) fn count<T>(&self, what: &'static str, outcome: &Result<T, Error>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(_) => *counts.done.entry(what).or_default() += 1,
            Err(error) => *counts.failed.entry(format!("{what} {:?}", error.kind())).or_default() += 1,
        }
    }

    /// Counts an operation that has succeeded.
    pub(crate) fn did(&self, what: &'static str) {
        self.count(what, &Ok(()));
    }

    /// Runs an operation and counts it. If it succeeds, its latency is recorded.
    pub(crate) async fn time<T>(
        &self,
        which: Timed,
        what: &'static str,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let outcome = operation.await;
        self.count(what, &outcome);
        if outcome.is_ok() {
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let mut histogram = self.histogram(which).lock().unwrap_or_else(PoisonError::into_inner);
            histogram.saturating_record(micros);
        }
        outcome
    }

    /// Returns the latencies since the last call.
    pub(crate) fn take(&self, which: Timed) -> Latency {
        let mut histogram = self.histogram(which).lock().unwrap_or_else(PoisonError::into_inner);
        let latency = Latency::of(&histogram);
        histogram.reset();
        latency
    }

    fn histogram(&self, which: Timed) -> &Mutex<Histogram<u64>> {
        match which {
            Timed::Pair => &self.pairs,
            Timed::Wait => &self.waits,
        }
    }

    /// Returns how many operations succeeded, and how many failed.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        (counts.done.values().sum(), counts.failed.values().sum())
    }

    /// Describes how many operations of each kind succeeded and failed.
    pub(crate) fn operations(&self) -> String {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = |counts: Vec<String>| counts.join(", ");
        let done = counts.done.iter().map(|(what, count)| format!("{what} {count}"));
        let failed = counts.failed.iter().map(|(what, count)| format!("{what} {count}"));
        format!(
            "operations: {}\nfailed: {}",
            listed(done.collect()),
            listed(failed.collect())
        )
    }
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
        }
    }
}
