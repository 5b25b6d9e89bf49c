//! Tests of the layer around a mock service, with a recorder that the test reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower::util::MapErr;
use tower::{Layer, ServiceExt};
use tower_test::mock::{self, Handle, Mock};

use super::*;
use crate::error::{BoxError, ErrorKind};
use crate::service::request::AcquireRequest;
use crate::service::routes::Routes;
use crate::sharding::{CheckedStrategy, Placement};
use crate::telemetry::client_name::ClientName;
use crate::telemetry::key_class::Classifier;
use crate::telemetry::sink::Sink;
use crate::types::{Key, Limit, Target};

type Inner = MapErr<Mock<Request, Response>, fn(BoxError) -> Error>;

struct Scene {
    service: Metrics<Inner, Arc<RequestMetrics>>,
    handle: Handle<Request, Response>,
    snapshotter: Snapshotter,
}

impl Scene {
    /// Creates two shards; keys that start with `b` belong to the second.
    fn set(classifier: Option<Classifier>) -> Self {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let strategy = CheckedStrategy::new(|key: &str, _: usize| usize::from(key.starts_with('b')));
        let routes = Routes {
            placement: Placement::new(strategy, 2),
            shards: 2,
            client: ClientName::default(),
        };
        let metrics = RequestMetrics::new(&Sink::own(recorder), routes, classifier);
        let (inner, handle) = mock::pair();
        let inner = inner.map_err(Error::of_layer as fn(BoxError) -> Error);
        Self {
            service: MetricsLayer(Some(Arc::new(metrics))).layer(inner),
            handle,
            snapshotter,
        }
    }

    /// Answers a request, or drops it without an answer.
    async fn ask(&mut self, request: Request, answer: Option<Result<Response>>) {
        let pending = self.service.ready().await.unwrap().call(request);
        let (_request, caller) = self.handle.next_request().await.unwrap();
        match answer {
            Some(Ok(response)) => caller.send_response(response),
            Some(Err(error)) => caller.send_error(error),
            None => return drop(pending),
        }
        drop(pending.await);
    }

    /// Returns all series: their names and labels, with the counts.
    fn series(&self) -> BTreeMap<String, u64> {
        let all = self.snapshotter.snapshot().into_vec();
        all.into_iter()
            .map(|(key, _, _, value)| {
                let key = key.key();
                let mut labels: Vec<String> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
                labels.sort();
                let count = match value {
                    DebugValue::Counter(count) => count,
                    DebugValue::Histogram(samples) => samples.len() as u64,
                    DebugValue::Gauge(_) => panic!("no gauge here"),
                };
                (format!("{}{{{}}}", key.name(), labels.join(",")), count)
            })
            .collect()
    }
}

fn acquire(key: &str, target: Target) -> Request {
    Request::Acquire(AcquireRequest::new(target, Key::new(key).unwrap()))
}

#[tokio::test]
async fn each_outcome_is_counted_in_its_own_series() {
    let mut scene = Scene::set(None);
    let slot = Target::Semaphore(Limit::new(3).unwrap());
    for _ in 0..2 {
        scene.ask(acquire("a", Target::Lock), Some(Ok(Response::Busy))).await;
    }
    let refused = Err(Error::new(ErrorKind::LimitMismatch, "another limit"));
    scene.ask(acquire("b", slot), Some(refused)).await;
    scene.ask(acquire("b", slot), None).await;
    scene
        .ask(
            Request::Stats { shard: 7 },
            Some(Ok(Response::Stats(crate::Stats::default()))),
        )
        .await;
    let expected = [
        ("kind=lock,operation=try_acquire,outcome=busy,shard=0", 2),
        ("kind=semaphore,operation=try_acquire,outcome=limit_mismatch,shard=1", 1),
        ("kind=semaphore,operation=try_acquire,outcome=dropped,shard=1", 1),
        ("kind=none,operation=stats,outcome=answered,shard=none", 1),
    ];
    let expected: BTreeMap<String, u64> = ["requests_total", "request_duration_seconds"]
        .into_iter()
        .flat_map(|name| expected.map(|(labels, count)| (format!("dflockd_client_{name}{{{labels}}}"), count)))
        .collect();
    assert_eq!(scene.series(), expected);
}

#[tokio::test]
async fn keys_have_classes_if_a_classifier_is_set() {
    let mut scene = Scene::set(Some(Classifier::new(|key| key.split('/').next().unwrap_or("other"))));
    for key in ["a/1", "a/2", "b/1"] {
        scene.ask(acquire(key, Target::Lock), Some(Ok(Response::Busy))).await;
    }
    scene.ask(Request::Stats { shard: 0 }, None).await;
    let series = scene.series();
    let count = |labels: &str| {
        series
            .get(&format!("dflockd_client_requests_total{{{labels}}}"))
            .copied()
    };
    let busy = |class: &str, shard: usize| {
        count(&format!(
            "key_class={class},kind=lock,operation=try_acquire,outcome=busy,shard={shard}"
        ))
    };
    assert_eq!((busy("a", 0), busy("b", 1)), (Some(2), Some(1)), "{series:?}");
    let none = count("key_class=none,kind=none,operation=stats,outcome=dropped,shard=0");
    assert_eq!(none, Some(1), "every series has the same labels: {series:?}");
}

#[tokio::test]
async fn without_a_recorder_nothing_is_measured() {
    let (inner, mut handle) = mock::pair::<Request, Response>();
    let inner = inner.map_err(Error::of_layer as fn(BoxError) -> Error);
    let mut service = MetricsLayer(None::<Arc<RequestMetrics>>).layer(inner);
    let pending = service.ready().await.unwrap().call(acquire("a", Target::Lock));
    let (_request, caller) = handle.next_request().await.unwrap();
    caller.send_response(Response::Busy);
    assert!(matches!(pending.await, Ok(Response::Busy)));
}
