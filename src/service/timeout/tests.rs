//! Tests of the layer around a mock service, with a clock that the test controls.

use tokio::time::{advance, timeout};
use tower::{Layer, ServiceExt};
use tower_test::mock;

use super::*;
use crate::error::{Budget, ErrorKind};
use crate::service::request::AcquireRequest;
use crate::types::{Key, Target};

const FIVE: Duration = Duration::from_secs(5);

fn acquire(wait: Duration) -> Request {
    Request::Acquire(AcquireRequest::new(Target::Lock, Key::new("k").unwrap()).acquire_timeout(wait))
}

fn enqueue() -> Request {
    Request::Enqueue(AcquireRequest::new(Target::Lock, Key::new("k").unwrap()))
}

fn layer() -> TimeoutLayer {
    TimeoutLayer::new(FIVE)
}

/// Returns the error of a request that is never answered, and the time after which it ends.
async fn unanswered<X>(layer: TimeoutLayer<X>, request: Request) -> (Error, Duration)
where
    X: Explain + Clone,
{
    let (service, mut handle) = mock::pair::<Request, Response>();
    let mut service = layer.layer(service);
    let called = tokio::time::Instant::now();
    let answer = service.ready().await.unwrap().call(request);
    let (_request, _caller) = handle.next_request().await.unwrap();
    let error = answer.await.unwrap_err();
    (error, called.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_with_its_own_wait_plus_the_request_timeout() {
    for (request, wait, said) in [
        (
            acquire(Duration::from_secs(10)),
            Duration::from_secs(10),
            "acquire of \"k\"",
        ),
        (acquire(Duration::ZERO), Duration::ZERO, "acquire of \"k\""),
        (enqueue(), Duration::ZERO, "place in its queue"),
        (Request::Stats { shard: 0 }, Duration::ZERO, "did not answer"),
    ] {
        let (error, took) = unanswered(layer(), request).await;
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        let budget = Budget::Total {
            wait,
            request_timeout: FIVE,
        };
        assert_eq!(error.budget(), Some(budget), "{error}");
        assert!(error.is_timeout() && error.is_retryable());
        assert!(
            took >= wait + FIVE && took < wait + FIVE + Duration::from_millis(10),
            "{took:?}"
        );
        let text = error.to_string();
        assert!(text.contains(said) && text.contains("request timeout of 5s"), "{text}");
        assert_eq!(text.contains("its wait of 10s"), !wait.is_zero(), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_passes_as_it_is() {
    let (service, mut handle) = mock::pair::<Request, Response>();
    let mut service = layer().layer(service);
    let answer = service.ready().await.unwrap().call(acquire(FIVE));
    let (request, caller) = handle.next_request().await.unwrap();
    assert_eq!(request.wait(), FIVE, "the inner service gets the request unchanged");
    advance(2 * FIVE - Duration::from_millis(1)).await;
    caller.send_response(Response::Busy);
    assert!(matches!(answer.await, Ok(Response::Busy)));
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_inner_service_keep_their_kind_or_become_layer_errors() {
    for (error, kind) in [
        (
            BoxError::from(Error::new(ErrorKind::Draining, "draining")),
            ErrorKind::Draining,
        ),
        (BoxError::from("not today"), ErrorKind::Layer),
    ] {
        let (service, mut handle) = mock::pair::<Request, Response>();
        let mut service = layer().layer(service);
        let answer = service.ready().await.unwrap().call(acquire(FIVE));
        let (_request, caller) = handle.next_request().await.unwrap();
        caller.send_error(error);
        let error = answer.await.unwrap_err();
        assert_eq!((error.kind(), error.budget()), (kind, None), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn back_pressure_and_a_failed_inner_service_are_passed_on() {
    let (mut service, mut handle) = mock::spawn_layer::<Request, Response, _>(layer());
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    drop(handle);
    drop(service.call(acquire(FIVE)));
    let error = std::future::poll_fn(|_| service.poll_ready()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Layer, "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_explainer_supplies_the_error_of_a_timeout() {
    #[derive(Clone)]
    struct Away;
    impl Explain for Away {
        fn explain(&self, subject: &RequestSummary, _: Budget) -> Option<Error> {
            let what = format!("{} of {:?}: away", subject.operation, subject.about);
            Some(Error::new(ErrorKind::Unavailable, what))
        }
    }
    let (error, _) = unanswered(layer().explained_by(Away), acquire(Duration::ZERO)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("try_acquire of Key(\"k\")"), "{error}");
    assert!(error.budget().is_some(), "the error keeps the budget that ran out");
}

#[tokio::test(start_paused = true)]
async fn requests_with_a_wait_get_no_timeout_if_the_inner_service_ends_waits() {
    let layer = layer().where_waits_end(true);
    let (error, took) = unanswered(layer.clone(), acquire(Duration::ZERO)).await;
    assert!(error.is_timeout() && took >= FIVE);
    let (service, _handle) = mock::pair::<Request, Response>();
    let mut service = layer.layer(service);
    let answer = service.ready().await.unwrap().call(acquire(Duration::from_secs(1)));
    assert!(
        timeout(100 * FIVE, answer).await.is_err(),
        "the layer ended a request that only the inner service may end"
    );
}
