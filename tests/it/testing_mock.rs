//! The mock service of `dflockd_client::testing`, without a client and with a client, in real time and in paused time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dflockd_client::protocol::Status;
use dflockd_client::testing::{GivenBack, MockAnswer, MockService};
use dflockd_client::tower::{self, Layer, Service, ServiceExt, service_fn};
use dflockd_client::{
    AcquireRequest, Client, ClientService, Enqueued, Error, ErrorKind, Key, KeyedError, Kind, LeaseState, LostReason,
    Operation, Request, Response, Stats, Target,
};

everywhere! {
    a_mock_grants_and_records_how_leases_end
    a_mock_gives_its_answers_in_order
    answers_that_fit_no_request_are_errors
    releases_fail_with_the_configured_errors
    queue_positions_are_given_collected_and_given_up
    a_service_of_a_user_can_grant_leases
    a_client_runs_on_a_mock_with_its_layers
    all_handles_work_on_a_mock
    a_keyed_layer_works_on_a_mock
    dropped_guards_are_released
    a_future_that_is_not_polled_takes_no_answer
    a_lease_outlives_its_service
}

const KEY: &str = "orders/42";

fn acquire() -> AcquireRequest {
    AcquireRequest::new(Target::Lock, Key::new(KEY).unwrap())
}

async fn call(mock: &MockService, request: Request) -> Result<Response, Error> {
    mock.clone().oneshot(request).await
}

/// Counts the requests that pass. The second counter counts releases, and the first counter counts all other requests.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Layer<ClientService> for Counting {
    type Service = CountingService;

    fn layer(&self, inner: ClientService) -> CountingService {
        CountingService(self.clone(), inner)
    }
}

#[derive(Clone)]
struct CountingService(Counting, ClientService);

impl Service<Request> for CountingService {
    type Response = Response;
    type Error = Error;
    type Future = <ClientService as Service<Request>>::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Error>> {
        self.1.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let counter = match request.operation() {
            Operation::Release => &self.0.1,
            _ => &self.0.0,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.1.call(request)
    }
}

mod checks {
    use super::*;

    pub(super) async fn a_mock_grants_and_records_how_leases_end() {
        let mock = MockService::new();
        let grant = async || match call(&mock, Request::Acquire(acquire())).await {
            Ok(Response::Granted(lease)) => lease,
            other => panic!("{other:?}"),
        };
        let lease = grant().await;
        let seen = mock.lease(KEY).unwrap();
        assert_eq!((seen.key(), seen.kind()), (lease.key(), Kind::Lock));
        assert_eq!((seen.token(), seen.fence()), (lease.token(), lease.fence()));
        assert_eq!((seen.state(), seen.given_back()), (LeaseState::Held, None));
        seen.lose(LostReason::Expired);
        seen.lose(LostReason::Rejected);
        assert_eq!(lease.lost().await, LostReason::Expired);
        assert!(lease.cancellation_token().is_cancelled() && !lease.is_held());
        drop(lease);
        assert_eq!(seen.wait_until_given_back().await, GivenBack::Dropped);
        assert_eq!(seen.state(), LeaseState::Lost(LostReason::Expired));

        let lease = grant().await;
        let seen = mock.lease(KEY).unwrap();
        assert!(seen.fence() > mock.leases()[0].fence());
        let waits = tokio::spawn({
            let seen = seen.clone();
            async move { seen.wait_until_given_back().await }
        });
        let released = call(&mock, Request::Release(lease)).await;
        assert!(matches!(released, Ok(Response::Released)));
        assert_eq!(waits.await.unwrap(), GivenBack::Released);
        assert_eq!(seen.state(), LeaseState::Released);
        let asked: Vec<_> = mock.requests().iter().map(|request| request.operation).collect();
        assert_eq!(
            asked,
            [Operation::TryAcquire, Operation::TryAcquire, Operation::Release]
        );
    }

    pub(super) async fn a_mock_gives_its_answers_in_order() {
        let mock = MockService::new();
        let stats = Stats::default();
        for answer in [
            MockAnswer::Busy,
            MockAnswer::Refuse(Status::MaxLocks),
            MockAnswer::Fail(ErrorKind::Unavailable),
            MockAnswer::Grant,
            MockAnswer::Stats(stats.clone()),
        ] {
            mock.answer_next(answer);
        }
        let ask = async || call(&mock, Request::Acquire(acquire())).await;
        assert!(matches!(ask().await, Ok(Response::Busy)));
        let refused = ask().await.unwrap_err();
        assert!(refused.kind() == ErrorKind::MaxLocks && refused.to_string().contains(KEY));
        assert_eq!(ask().await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(matches!(ask().await, Ok(Response::Granted(_))));
        let told = call(&mock, Request::Stats { shard: 0 }).await;
        assert!(matches!(told, Ok(Response::Stats(told)) if told == stats));
        assert!(matches!(ask().await, Ok(Response::Granted(_))));

        mock.answer_next(MockAnswer::Busy);
        let waiting = acquire().acquire_timeout(Duration::from_secs(3));
        let held = call(&mock, Request::Acquire(waiting)).await.unwrap_err();
        assert_eq!(held.kind(), ErrorKind::Timeout);
        let last = mock.requests().pop().unwrap();
        assert_eq!(
            (last.operation, last.wait),
            (Operation::Acquire, Duration::from_secs(3))
        );
        assert_eq!(last.key.unwrap().as_str(), KEY);
    }

    pub(super) async fn answers_that_fit_no_request_are_errors() {
        let mock = MockService::new();
        for answer in [MockAnswer::Grant, MockAnswer::Queue, MockAnswer::Busy] {
            mock.answer_next(answer);
            let error = call(&mock, Request::Stats { shard: 0 }).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
            assert!(error.to_string().contains("mock service"), "{error}");
        }
        let client = mock.client().unwrap();
        // A server answers an enqueue with a grant or with a queue position, so `Busy` is no answer to an enqueue.
        mock.answer_next(MockAnswer::Busy);
        let error = client.lock(KEY).unwrap().enqueue().await.unwrap_err();
        assert!(error.to_string().contains("mock service"), "{error}");
        mock.answer_next(MockAnswer::Delivered(3));
        let error = client.lock(KEY).unwrap().acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert_eq!(
            client.subscribe("orders.*").await.unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        assert_eq!(client.emit("orders.42", "paid").await.unwrap(), 0);
        mock.answer_next(MockAnswer::Delivered(3));
        assert_eq!(client.emit("orders.42", "paid").await.unwrap(), 3);
        client.barrier().await.unwrap();
    }

    pub(super) async fn releases_fail_with_the_configured_errors() {
        let mock = MockService::new();
        let client = mock.client().unwrap();
        let lock = client.lock(KEY).unwrap();
        mock.fail_next_release(ErrorKind::NotHeld);
        // The configured error is for the next explicit release. A dropped guard does not use it up.
        drop(lock.acquire().await.unwrap());
        let error = lock.acquire().await.unwrap().release().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotHeld);
        lock.acquire().await.unwrap().release().await.unwrap();

        let guard = lock.acquire().await.unwrap();
        mock.lease(KEY).unwrap().lose(LostReason::Disconnected);
        assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::LeaseLost);
        assert_eq!(mock.lease(KEY).unwrap().given_back(), Some(GivenBack::Released));
    }

    pub(super) async fn queue_positions_are_given_collected_and_given_up() {
        let mock = MockService::new();
        let client = mock.client().unwrap();
        let lock = client.lock(KEY).unwrap();
        let queue = async || {
            mock.answer_next(MockAnswer::Queue);
            match lock.enqueue().await.unwrap() {
                Enqueued::Queued(ticket) => ticket,
                Enqueued::Acquired(_) => panic!("the mock queues this enqueue"),
            }
        };
        let guard = queue().await.wait(Duration::from_secs(1)).await.unwrap();
        assert!(guard.was_contended());
        guard.release().await.unwrap();
        mock.answer_next(MockAnswer::Queue);
        let Enqueued::Queued(ticket) = lock.enqueue().await.unwrap() else {
            panic!("the mock queues this enqueue");
        };
        mock.answer_next(MockAnswer::Busy);
        let error = ticket.wait(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(mock.given_up().is_empty());
        drop(queue().await);
        assert_eq!(mock.given_up(), [Key::new(KEY).unwrap()]);
        assert!(matches!(lock.enqueue().await.unwrap(), Enqueued::Acquired(_)));

        // Each answer to a wait ends the queue position. The lease has the TTL of the enqueue.
        let longer = lock.clone().lease_ttl(Duration::from_secs(77));
        let place = async || {
            mock.answer_next(MockAnswer::Queue);
            match longer.enqueue().await.unwrap() {
                Enqueued::Queued(ticket) => ticket,
                Enqueued::Acquired(_) => panic!("the mock queues this enqueue"),
            }
        };
        let given_up = mock.given_up().len();
        for answer in [
            MockAnswer::Refuse(Status::LeaseExpired),
            MockAnswer::Fail(ErrorKind::Disconnected),
            MockAnswer::Delivered(1),
            MockAnswer::Queue,
        ] {
            let ticket = place().await;
            mock.answer_next(answer);
            assert!(ticket.wait(Duration::from_secs(1)).await.is_err());
        }
        let ticket = place().await;
        mock.answer_next(MockAnswer::Never);
        let waiting = tokio::spawn(ticket.wait(Duration::from_secs(3600)));
        let is_asked = || {
            mock.requests()
                .last()
                .is_some_and(|last| last.operation == Operation::Collect)
        };
        while !is_asked() {
            tokio::task::yield_now().await;
        }
        waiting.abort();
        assert!(waiting.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(mock.given_up().len(), given_up);
        let guard = place().await.wait(Duration::from_secs(1)).await.unwrap();
        assert_eq!(guard.ttl().as_secs(), 77);
        drop(guard);

        // A mock service refuses a ticket of another mock service.
        let other = MockService::new();
        other.answer_next(MockAnswer::Queue);
        let Ok(Response::Queued(place)) = call(&other, Request::Enqueue(acquire())).await else {
            panic!("the mock queues this enqueue");
        };
        let wait = Duration::ZERO;
        let error = call(&mock, Request::Collect { place, wait }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotEnqueued);
    }

    pub(super) async fn a_service_of_a_user_can_grant_leases() {
        let mock = MockService::new();
        let granting = mock.clone();
        let service = service_fn(move |request: Request| {
            let mock = granting.clone();
            async move {
                match request {
                    Request::Acquire(acquire) => Ok(mock.grant(&acquire)),
                    Request::Release(_) => Ok(Response::Released),
                    _ => Err("not expected"),
                }
            }
        });
        // The service also works as a layer of a client without a server.
        let layer = tower::layer::layer_fn(move |_: ClientService| service.clone());
        let client = Client::builder().servers(["127.0.0.1:1"]).layer(layer).build().unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        mock.lease(KEY).unwrap().lose(LostReason::Rejected);
        assert_eq!(guard.lost().await, LostReason::Rejected);
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        guard.release().await.unwrap();
        assert_eq!(mock.lease(KEY).unwrap().given_back(), Some(GivenBack::Released));
    }

    pub(super) async fn a_client_runs_on_a_mock_with_its_layers() {
        let (mock, counting) = (MockService::new(), Counting::default());
        let client = mock.client_builder().layer(counting.clone()).build().unwrap();
        let lock = client.lock(KEY).unwrap();
        lock.acquire().await.unwrap().release().await.unwrap();
        drop(lock.acquire().await.unwrap());
        // A release passes through the layers of the client, but the release of a dropped guard does not.
        assert_eq!(counting.0.load(Ordering::Relaxed), 2);
        assert_eq!(counting.1.load(Ordering::Relaxed), 1);
        assert!(!client.health()[0].is_connected());
        let acquired: Vec<_> = mock.requests().iter().map(|request| request.operation).collect();
        assert_eq!(acquired, [Operation::Acquire, Operation::Release, Operation::Acquire]);

        // The client itself is a tower service.
        let mut service = client.clone();
        let Ok(Response::Granted(lease)) = service.ready().await.unwrap().call(Request::Acquire(acquire())).await
        else {
            panic!("it grants");
        };
        let released = service.ready().await.unwrap().call(Request::Release(lease)).await;
        assert!(matches!(released, Ok(Response::Released)));
        client.shutdown(Duration::from_secs(1)).await;
    }

    pub(super) async fn all_handles_work_on_a_mock() {
        let mock = MockService::new();
        let client = mock.client().unwrap();
        let both = client.lock_all(["b", "a"]).unwrap().acquire().await.unwrap();
        assert_eq!(mock.leases().len(), 2);
        mock.lease("b").unwrap().lose(LostReason::Rejected);
        both.lost().await;
        drop(both);
        let permit = client.semaphore("s", 2).unwrap().acquire().await.unwrap();
        assert_eq!(mock.lease("s").unwrap().kind(), Kind::Semaphore);
        permit.release().await.unwrap();
        let done = client.lock(KEY).unwrap().with_lock(async |_| Ok::<_, Error>(7)).await;
        assert_eq!(done.unwrap(), 7);
        assert_eq!(client.stats().await.unwrap(), Stats::default());
        let distributed = mock.leases().len();
        assert_eq!(distributed, 4);
        mock.answer_next(MockAnswer::Busy);
        assert!(client.lock(KEY).unwrap().try_acquire().await.unwrap().is_none());
    }

    pub(super) async fn a_keyed_layer_works_on_a_mock() {
        let mock = MockService::new();
        let client = mock.client().unwrap();
        let layer = dflockd_client::LockLayer::new(&client, |key: &&'static str| *key);
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let inner = service_fn(move |_: &'static str| {
            let begun = begun.clone();
            async move {
                begun.send(()).unwrap();
                std::future::pending::<Result<(), std::convert::Infallible>>().await
            }
        });
        let service = layer.layer(inner);
        let working = tokio::spawn(service.oneshot(KEY));
        begins.recv().await.unwrap();
        mock.lease(KEY).unwrap().lose(LostReason::Rejected);
        let error = working.await.unwrap().unwrap_err();
        assert!(matches!(error, KeyedError::Lease(error) if error.kind() == ErrorKind::LeaseLost));
    }

    pub(super) async fn dropped_guards_are_released() {
        let mock = MockService::new();
        let client = mock.client().unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        drop(client);
        assert!(guard.is_held());
        // A guard may be dropped outside of the runtime.
        std::thread::spawn(move || drop(guard)).join().unwrap();
        assert_eq!(mock.lease(KEY).unwrap().given_back(), Some(GivenBack::Dropped));
    }

    pub(super) async fn a_future_that_is_not_polled_takes_no_answer() {
        let mock = MockService::new();
        mock.answer_next(MockAnswer::Busy);
        drop(mock.clone().call(Request::Acquire(acquire())));
        assert!(mock.leases().is_empty() && mock.requests().len() == 1);
        assert!(matches!(
            call(&mock, Request::Acquire(acquire())).await,
            Ok(Response::Busy)
        ));
    }

    pub(super) async fn a_lease_outlives_its_service() {
        let mock = MockService::new();
        let Ok(Response::Granted(lease)) = call(&mock, Request::Acquire(acquire())).await else {
            panic!("it grants");
        };
        let seen = mock.lease(KEY).unwrap();
        drop(mock);
        assert!(lease.is_held() && lease.remaining() > Duration::from_secs(3600));
        drop(lease);
        assert_eq!(seen.wait_until_given_back().await, GivenBack::Dropped);
        let shown = format!("{seen:?}");
        assert!(
            shown.contains("Dropped") && !shown.contains(seen.token().as_str()),
            "{shown}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_times_out() {
    let mock = MockService::new();
    let client = mock.client().unwrap();
    mock.answer_next(MockAnswer::Never);
    let lock = client.lock(KEY).unwrap().acquire_timeout(Duration::from_secs(3600));
    // The mock service did not answer that the key is held, so the error is not a timeout of the wait.
    assert_eq!(lock.acquire().await.unwrap_err().kind(), ErrorKind::Unavailable);
    lock.acquire().await.unwrap().release().await.unwrap();
}

/// Leases of a mock service do not end by themselves.
#[tokio::test(start_paused = true)]
async fn a_lease_of_a_mock_outlasts_a_year() {
    let mock = MockService::new();
    let Ok(Response::Granted(lease)) = call(&mock, Request::Acquire(acquire())).await else {
        panic!("it grants");
    };
    tokio::time::advance(Duration::from_secs(365 * 24 * 3600)).await;
    assert!(lease.is_held());
}
