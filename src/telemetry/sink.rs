//! The destination of metrics: the process's recorder, or one that the user gave to this client.

use std::fmt;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString};

use super::catalog::{ALL, MetricFamily, Shape};
use super::client_name::ClientName;

/// A recorder, and the labels that all its metrics have.
#[derive(Clone, Default)]
pub(crate) struct Sink {
    /// `None`: the recorder that is installed for the process when a metric is registered; without one, nothing is
    /// recorded.
    own: Option<Arc<dyn Recorder + Send + Sync>>,
    client: ClientName,
}

/// A label and its value.
pub(crate) type LabelValue = (&'static str, SharedString);

const METADATA: Metadata<'static> = Metadata::new("dflockd_client", Level::INFO, Some("dflockd_client"));

impl Sink {
    fn with<T>(&self, use_it: impl FnOnce(&dyn Recorder) -> T) -> T {
        match &self.own {
            None => metrics::with_recorder(use_it),
            Some(recorder) => use_it(&**recorder),
        }
    }

    /// Uses this recorder.
    pub(crate) fn own(recorder: impl Recorder + Send + Sync + 'static) -> Self {
        Self {
            own: Some(Arc::new(recorder)),
            client: ClientName::default(),
        }
    }

    /// Returns whether the client has its own recorder.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Sets the client's name.
    pub(crate) fn of_client(self, client: ClientName) -> Self {
        Self { client, ..self }
    }

    /// Describes each metric to the recorder.
    pub(crate) fn describe_all(&self) {
        self.with(|recorder| {
            for family in ALL {
                let (name, unit) = (KeyName::from_const_str(family.name), Some(family.unit));
                let help = SharedString::const_str(family.help);
                match family.shape {
                    Shape::Counter => recorder.describe_counter(name, unit, help),
                    Shape::Gauge => recorder.describe_gauge(name, unit, help),
                    Shape::Histogram(_) => recorder.describe_histogram(name, unit, help),
                }
            }
        });
    }

    pub(crate) fn counter(&self, family: &MetricFamily, labels: &[LabelValue]) -> Counter {
        debug_assert!(matches!(family.shape, Shape::Counter), "{}", family.name);
        self.with(|recorder| recorder.register_counter(&self.key(family, labels), &METADATA))
    }

    pub(crate) fn gauge(&self, family: &MetricFamily, labels: &[LabelValue]) -> Gauge {
        debug_assert!(matches!(family.shape, Shape::Gauge), "{}", family.name);
        self.with(|recorder| recorder.register_gauge(&self.key(family, labels), &METADATA))
    }

    pub(crate) fn histogram(&self, family: &MetricFamily, labels: &[LabelValue]) -> Histogram {
        debug_assert!(matches!(family.shape, Shape::Histogram(_)), "{}", family.name);
        self.with(|recorder| recorder.register_histogram(&self.key(family, labels), &METADATA))
    }

    fn key(&self, family: &MetricFamily, labels: &[LabelValue]) -> Key {
        let client = self.client.label().map(|name| Label::new("client", name));
        let labels: Vec<Label> = labels
            .iter()
            .map(|(name, value)| Label::new(*name, value.clone()))
            .chain(client)
            .collect();
        Key::from_parts(family.name, labels)
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.own {
            None => "Global",
            Some(_) => "Own",
        })
    }
}

/// A sink for one shard, which adds the shard's index as a label.
#[derive(Clone, Debug)]
pub(crate) struct ShardSink {
    sink: Sink,
    shard: SharedString,
}

impl ShardSink {
    pub(crate) fn new(sink: Sink, shard: usize) -> Self {
        Self {
            sink,
            shard: shard.to_string().into(),
        }
    }

    /// Returns a sink that records nothing, for tests of a single part.
    #[cfg(any(test, fuzzing, feature = "__measure"))]
    pub(crate) fn nowhere() -> Self {
        Self::new(Sink::own(metrics::NoopRecorder), 0)
    }

    pub(crate) fn counter(&self, family: &MetricFamily, labels: &[LabelValue]) -> Counter {
        self.sink.counter(family, &self.labels(labels))
    }

    pub(crate) fn gauge(&self, family: &MetricFamily, labels: &[LabelValue]) -> Gauge {
        self.sink.gauge(family, &self.labels(labels))
    }

    pub(crate) fn histogram(&self, family: &MetricFamily, labels: &[LabelValue]) -> Histogram {
        self.sink.histogram(family, &self.labels(labels))
    }

    fn labels(&self, more: &[LabelValue]) -> Vec<LabelValue> {
        let mut labels = vec![("shard", self.shard.clone())];
        labels.extend_from_slice(more);
        labels
    }
}
