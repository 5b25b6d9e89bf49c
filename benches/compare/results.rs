//! The results of a run of the comparison.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The sides that use this crate.
const OWN_SIDES: [&str; 2] = ["tasks", "threads"];

/// The side with which [`Results::lead`] compares this crate.
const RIVAL: &str = "python-2-tasks";
/// The number of workers in the comparison that [`Results::lead`] makes.
pub(crate) const LEAD_WORKERS: usize = 100;

/// Which keys the workers use.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Keys {
    /// Each worker has a key of its own.
    Own,
    /// All workers have the same key.
    One,
}

impl fmt::Display for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Own => "own",
            Self::One => "one",
        })
    }
}

/// All results of a run: the contents of `results.json`.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Results {
    /// The day of the run, in UTC.
    pub(crate) date: String,
    /// The number of cores, the processor and the system of the machine.
    pub(crate) machine: String,
    pub(crate) rounds: usize,
    /// For how many seconds a round of a cell was measured if each worker had a key. With one key for all workers, it
    /// was measured for half as long.
    pub(crate) seconds: f64,
    pub(crate) workers: Vec<usize>,
    pub(crate) sides: Vec<Side>,
    pub(crate) left_out: Vec<LeftOut>,
    pub(crate) cells: Vec<Cell>,
}

/// A side that was measured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) label: String,
    /// Whether the server of the side is Redis or etcd, and not dflockd.
    pub(crate) is_another_system: bool,
    /// The version that the side's program reports. The version of the server follows if the server is Redis or etcd.
    pub(crate) version: String,
}

/// A side that was left out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct LeftOut {
    pub(crate) label: String,
    pub(crate) reason: String,
}

/// The results of one side with one number of workers and one choice of keys.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Cell {
    pub(crate) side: String,
    pub(crate) keys: Keys,
    pub(crate) workers: usize,
    /// Pairs a second in each round that did not fail.
    pub(crate) rates: Vec<f64>,
    /// The errors of the failed rounds.
    pub(crate) failures: Vec<String>,
}

/// The median rate, the lowest rate and the highest rate of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Cell {
    /// Returns the spread of the rates, or `None` if all rounds failed.
    pub(crate) fn spread(&self) -> Option<Spread> {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        let (least, most) = (*rates.first()?, *rates.last()?);
        let middle = rates.len() / 2;
        let median = match rates.len() % 2 {
            1 => rates[middle],
            _ => f64::midpoint(rates[middle - 1], rates[middle]),
        };
        Some(Spread { median, least, most })
    }
}

impl Results {
    /// Parses the text of `results.json`. The last digit of a parsed number may differ from the text, because
    /// serde_json does not round exactly without its feature `float_roundtrip`.
    pub(crate) fn from_json(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub(crate) fn cell(&self, side: &str, keys: Keys, workers: usize) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|cell| cell.side == side && cell.keys == keys && cell.workers == workers)
    }

    pub(crate) fn spread(&self, side: &str, keys: Keys, workers: usize) -> Option<Spread> {
        self.cell(side, keys, workers)?.spread()
    }

    /// Returns the numbers of workers that were measured with these keys.
    pub(crate) fn workers(&self, keys: Keys) -> Vec<usize> {
        let measured = |workers: &usize| {
            self.cells
                .iter()
                .any(|cell| cell.keys == keys && cell.workers == *workers)
        };
        self.workers.iter().copied().filter(measured).collect()
    }

    /// Returns the median rate of `side`, divided by the median rate of `other`.
    fn ratio(&self, side: &str, other: &str, keys: Keys, workers: usize) -> Option<f64> {
        Some(self.spread(side, keys, workers)?.median / self.spread(other, keys, workers)?.median)
    }

    /// Returns the median rate of this crate's tasks, divided by the median rate of the Python client's tasks.
    pub(crate) fn lead(&self) -> Option<f64> {
        self.ratio("tasks", RIVAL, Keys::Own, LEAD_WORKERS)
    }

    /// Returns how many rounds failed in the cells of this crate's sides.
    pub(crate) fn own_failures(&self) -> usize {
        self.cells
            .iter()
            .filter(|cell| OWN_SIDES.contains(&cell.side.as_str()))
            .map(|cell| cell.failures.len())
            .sum()
    }
}
