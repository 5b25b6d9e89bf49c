//! A metrics recorder that panics on demand.

use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// The message of the panics.
pub const PANIC_TEXT: &str = "the recorder has a bug";

/// Stores no values. Clones share their faults.
#[derive(Clone, Default)]
pub struct Faulty(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    panics: usize,
    registered: usize,
}

/// Says which calls to the recorder panic. A call changes or describes a metric.
#[derive(Clone, Copy)]
pub struct Fault {
    /// The name of the metric, or a part of the name. `"describe"` stands for all calls that describe metrics.
    metric: &'static str,
    /// If set, only calls with this value of the label `shard` panic.
    shard: Option<&'static str>,
    /// The number of calls that succeed before the first panic.
    spared: usize,
    /// The number of calls that still have to panic.
    left: usize,
}

impl Fault {
    /// Makes the next call with this metric panic.
    pub fn once(metric: &'static str) -> Self {
        Self {
            metric,
            shard: None,
            spared: 0,
            left: 1,
        }
    }

    /// Makes each call with this metric panic from now on.
    pub fn always(metric: &'static str) -> Self {
        Self {
            left: usize::MAX,
            ..Self::once(metric)
        }
    }

    /// Restricts the fault to this shard.
    pub fn of_shard(self, shard: &'static str) -> Self {
        Self {
            shard: Some(shard),
            ..self
        }
    }

    /// Lets this many calls succeed first.
    pub fn after(self, spared: usize) -> Self {
        Self { spared, ..self }
    }

    fn is_about(&self, key: &Key) -> bool {
        let of_shard = |shard| {
            key.labels()
                .any(|label| label.key() == "shard" && label.value() == shard)
        };
        key.name().contains(self.metric) && self.shard.is_none_or(of_shard)
    }
}

impl Faulty {
    /// Adds a fault.
    pub fn add(&self, fault: Fault) {
        self.0.lock().unwrap().faults.push(fault);
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.0.lock().unwrap().faults.clear();
    }

    /// Returns the number of calls that have panicked.
    pub fn panics(&self) -> usize {
        self.0.lock().unwrap().panics
    }

    /// Returns the number of series that were registered.
    pub fn registered(&self) -> usize {
        self.0.lock().unwrap().registered
    }

    fn record(&self, key: &Key) {
        let mut state = self.0.lock().unwrap();
        let mut panics = false;
        for fault in state.faults.iter_mut().filter(|fault| fault.is_about(key)) {
            if fault.spared > 0 {
                fault.spared -= 1;
            } else if fault.left > 0 {
                fault.left -= 1;
                panics = true;
            }
        }
        state.panics += usize::from(panics);
        // Releases the lock before the panic, because a panic would poison the lock.
        drop(state);
        assert!(!panics, "{PANIC_TEXT}");
    }

    fn series(&self, key: &Key) -> Arc<Series> {
        self.0.lock().unwrap().registered += 1;
        Arc::new(Series(self.clone(), key.clone()))
    }
}

struct Series(Faulty, Key);

impl CounterFn for Series {
    fn increment(&self, _: u64) {
        self.0.record(&self.1);
    }
    fn absolute(&self, _: u64) {
        self.0.record(&self.1);
    }
}

impl GaugeFn for Series {
    fn increment(&self, _: f64) {
        self.0.record(&self.1);
    }
    fn decrement(&self, _: f64) {
        self.0.record(&self.1);
    }
    fn set(&self, _: f64) {
        self.0.record(&self.1);
    }
}

impl HistogramFn for Series {
    fn record(&self, _: f64) {
        self.0.record(&self.1);
    }
}

impl Recorder for Faulty {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.record(&Key::from_static_name("describe"));
    }
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.record(&Key::from_static_name("describe"));
    }
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.record(&Key::from_static_name("describe"));
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
