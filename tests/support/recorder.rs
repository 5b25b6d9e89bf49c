//! A metrics recorder whose values a test can read at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// All series that were registered. Clones share the series.
#[derive(Clone, Default)]
pub struct Recorded {
    series: Arc<Mutex<BTreeMap<Named, Arc<Series>>>>,
    described: Arc<Mutex<BTreeMap<String, Description>>>,
}

type Labels = Vec<(String, String)>;

/// The name of a metric and the labels of one of its series.
type Named = (String, Labels);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub kind: &'static str,
    pub unit: Option<Unit>,
    pub help: String,
}

/// A series of a counter, a gauge or a histogram.
#[derive(Default)]
struct Series {
    /// Whether the value was ever above zero, or a histogram ever got a sample.
    touched: AtomicBool,
    value: Mutex<f64>,
    samples: Mutex<Vec<f64>>,
}

impl Series {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut value = self.value.lock().unwrap();
        *value = change(*value);
        if *value > 0.0 {
            self.touched.store(true, Ordering::Relaxed);
        }
    }
}

impl CounterFn for Series {
    fn increment(&self, by: u64) {
        self.change(|value| value + by as f64);
    }
    fn absolute(&self, to: u64) {
        self.change(|_| to as f64);
    }
}

impl GaugeFn for Series {
    fn increment(&self, by: f64) {
        self.change(|value| value + by);
    }
    fn decrement(&self, by: f64) {
        self.change(|value| value - by);
    }
    fn set(&self, to: f64) {
        self.change(|_| to);
    }
}

impl HistogramFn for Series {
    fn record(&self, sample: f64) {
        self.touched.store(true, Ordering::Relaxed);
        self.samples.lock().unwrap().push(sample);
    }
}

impl Recorded {
    fn series(&self, key: &Key) -> Arc<Series> {
        let mut labels: Labels = key
            .labels()
            .map(|label| (label.key().to_owned(), label.value().to_owned()))
            .collect();
        labels.sort();
        let mut all = self.series.lock().unwrap();
        Arc::clone(all.entry((key.name().to_owned(), labels)).or_default())
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> Vec<Arc<Series>> {
        let all = self.series.lock().unwrap();
        let matches = |series: &&Named| {
            series.0 == name
                && labels
                    .iter()
                    .all(|(label, value)| series.1.iter().any(|(l, v)| l == label && v == value))
        };
        all.keys().filter(matches).map(|key| Arc::clone(&all[key])).collect()
    }

    /// Returns the sum of all counters or gauges with this name and these labels. The name is without the crate's
    /// prefix `dflockd_client_`.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let all = self.matching(&format!("dflockd_client_{name}"), labels);
        all.iter().map(|series| *series.value.lock().unwrap()).sum()
    }

    /// Returns the samples of all histograms with this name and these labels. The name is without the prefix, too.
    pub fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let all = self.matching(&format!("dflockd_client_{name}"), labels);
        all.iter()
            .flat_map(|series| series.samples.lock().unwrap().clone())
            .collect()
    }

    /// Returns each metric that was ever above zero or got a sample, with the names of its labels.
    pub fn touched(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut touched: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for ((name, labels), series) in &*self.series.lock().unwrap() {
            if series.touched.load(Ordering::Relaxed) {
                let known = touched.entry(name.clone()).or_default();
                known.extend(labels.iter().map(|(label, _)| label.clone()));
            }
        }
        touched
    }

    /// Returns the values of all labels.
    pub fn label_values(&self) -> BTreeSet<String> {
        let all = self.series.lock().unwrap();
        all.keys()
            .flat_map(|(_, labels)| labels.iter().map(|(_, value)| value.clone()))
            .collect()
    }

    pub fn descriptions(&self) -> BTreeMap<String, Description> {
        self.described.lock().unwrap().clone()
    }

    fn describe(&self, kind: &'static str, name: &KeyName, unit: Option<Unit>, help: &SharedString) {
        let description = Description {
            kind,
            unit,
            help: help.to_string(),
        };
        self.described
            .lock()
            .unwrap()
            .insert(name.as_str().to_owned(), description);
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe("counter", &name, unit, &help);
    }
    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe("gauge", &name, unit, &help);
    }
    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe("histogram", &name, unit, &help);
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.series(key))
    }
}
