//! The metric series of requests. They are created on demand, since most combinations of labels never occur.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Histogram, SharedString};

use crate::service::outcome::Outcome;
use crate::service::request::{Operation, Request};
use crate::service::routes::Routes;
use crate::telemetry::catalog;
use crate::telemetry::key_class::{Classifier, PerClass};
use crate::telemetry::sink::{LabelValue, Sink};
use crate::types::Kind;

/// The metrics of one client's requests.
pub(crate) struct RequestMetrics {
    routes: Routes,
    /// For requests without a key, and for all requests if keys have no classes.
    plain: Shards,
    classes: Option<PerClass<Shards>>,
}

impl RequestMetrics {
    pub(crate) fn new(sink: &Sink, routes: Routes, classifier: Option<Classifier>) -> Self {
        let (shards, sink) = (routes.shards, sink.clone());
        Self {
            plain: Shards::new(&sink, shards, classifier.as_ref().map(|_| "none".into())),
            classes: classifier.map(|classifier| {
                PerClass::new(classifier, move |class| {
                    Shards::new(&sink, shards, Some(class.to_owned().into()))
                })
            }),
            routes,
        }
    }

    /// Returns the series that a request belongs to.
    pub(super) fn series_of(&self, request: &Request) -> SeriesId {
        let class = match (&self.classes, request.key()) {
            (Some(classes), Some(key)) => Some(classes.of(key.as_str())),
            _ => None,
        };
        SeriesId {
            shard: self.routes.shard_of(request),
            class,
        }
    }

    pub(super) fn get<'a>(&'a self, id: &'a SeriesId) -> &'a ShardSeries {
        id.class.as_deref().unwrap_or(&self.plain).of(id.shard)
    }
}

/// Identifies the series of a shard, and of a key class if there are classes.
pub(super) struct SeriesId {
    shard: Option<usize>,
    class: Option<Arc<Shards>>,
}

impl fmt::Debug for RequestMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestMetrics").finish_non_exhaustive()
    }
}

/// The series of all shards, and those of requests that name no existing shard.
pub(super) struct Shards {
    shards: Vec<ShardSeries>,
    none: ShardSeries,
}

impl Shards {
    fn new(sink: &Sink, shards: usize, class: Option<SharedString>) -> Self {
        let series = |shard: SharedString| {
            let mut labels = vec![("shard", shard)];
            labels.extend(class.clone().map(|class| ("key_class", class)));
            ShardSeries::new(sink.clone(), labels)
        };
        Self {
            shards: (0..shards).map(|shard| series(shard.to_string().into())).collect(),
            none: series("none".into()),
        }
    }

    fn of(&self, shard: Option<usize>) -> &ShardSeries {
        let known = shard.and_then(|shard| self.shards.get(shard));
        known.unwrap_or(&self.none)
    }
}

/// The number of values of the label `kind`.
const KINDS: usize = 3;

/// The series of one shard.
pub(super) struct ShardSeries {
    sink: Sink,
    labels: Vec<LabelValue>,
    ended: Box<[OnceLock<(Counter, Histogram)>]>,
    waited: [OnceLock<Histogram>; 4],
}

impl ShardSeries {
    fn new(sink: Sink, labels: Vec<LabelValue>) -> Self {
        let all = Operation::ALL.len() * KINDS * Outcome::COUNT;
        Self {
            sink,
            labels,
            ended: (0..all).map(|_| OnceLock::new()).collect(),
            waited: Default::default(),
        }
    }

    /// Counts a finished request.
    pub(super) fn ended(&self, operation: Operation, kind: Option<Kind>, outcome: Outcome, took: Duration) {
        let kind_index = kind.map_or(0, |kind| 1 + kind as usize);
        let index = (operation as usize * KINDS + kind_index) * Outcome::COUNT + outcome.index();
        let Some(place) = self.ended.get(index) else { return };
        let (total, duration) = place.get_or_init(|| {
            let labels = self.labels(&[
                ("kind", kind.map_or("none", Kind::as_str).into()),
                ("operation", operation.as_str().into()),
                ("outcome", outcome.as_str().into()),
            ]);
            (
                self.sink.counter(&catalog::REQUESTS, &labels),
                self.sink.histogram(&catalog::REQUEST_DURATION, &labels),
            )
        });
        total.increment(1);
        duration.record(took.as_secs_f64());
    }

    /// Records how long a granted acquire took.
    pub(super) fn waited(&self, kind: Kind, contended: bool, took: Duration) {
        let index = 2 * kind as usize + usize::from(contended);
        let Some(place) = self.waited.get(index) else { return };
        let histogram = place.get_or_init(|| {
            let state = if contended { "contended" } else { "uncontended" };
            let labels = self.labels(&[("kind", kind.as_str().into()), ("state", state.into())]);
            self.sink.histogram(&catalog::ACQUIRE_WAIT, &labels)
        });
        histogram.record(took.as_secs_f64());
    }

    fn labels(&self, more: &[LabelValue]) -> Vec<LabelValue> {
        let mut labels = self.labels.clone();
        labels.extend_from_slice(more);
        labels
    }
}
