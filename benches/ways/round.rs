//! The results of one round of one way.

use std::error::Error;
use std::time::{Duration, Instant};

use crate::way::Workers;

/// The duration of each pair. This is a list, because histograms for thousands of workers would take more memory.
pub(crate) type Latencies = Vec<Duration>;

pub(crate) struct Round {
    /// Sorted, the shortest first.
    latencies: Latencies,
    took: Duration,
    /// The processor time that this process used in the round, in seconds.
    processor: f64,
}

impl Round {
    /// Lets each of `at_once` workers make `each` pairs.
    pub(crate) async fn of(workers: &Workers, at_once: usize, each: usize) -> Result<Self, Box<dyn Error>> {
        let (began, used) = (Instant::now(), processor_seconds());
        let mut latencies = workers.pairs(at_once, each).await?;
        let (took, processor) = (began.elapsed(), processor_seconds() - used);
        latencies.sort_unstable();
        Ok(Self {
            latencies,
            took,
            processor,
        })
    }

    /// Returns the rate in pairs a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn micros(&self, quantile: f64) -> f64 {
        let index = (self.latencies.len() as f64 * quantile) as usize;
        self.latencies[index.min(self.latencies.len() - 1)].as_secs_f64() * 1e6
    }

    /// Returns the processor time of a pair, in microseconds.
    pub(crate) fn processor_micros(&self) -> f64 {
        self.processor * 1e6 / self.latencies.len() as f64
    }
}

/// Returns the processor time of this process since its start, in seconds. Returns zero on systems without `/proc`.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15 are the user time and the system time, in hundredths of a second. Field 2 is the name of the
    // program in brackets. The name may contain spaces and brackets, so the fields are counted from the last bracket.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks = behind.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
