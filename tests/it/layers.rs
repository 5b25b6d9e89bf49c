//! Layers that users put around a client: which requests they see, what they may change, and what happens to a grant
//! that a layer does not pass on to the caller.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::support::until;
use dflockd_client::server::{Server, ServerBuilder};
use dflockd_client::{
    Budget, Client, ClientBuilder, ClientService, Enqueued, Error, ErrorKind, Operation, Request, Response,
    TimeoutLayer,
};
use tower::layer::layer_fn;
use tower::limit::{ConcurrencyLimitLayer, RateLimitLayer};
use tower::load_shed::LoadShedLayer;
use tower::load_shed::error::Overloaded;
use tower::retry::{Policy, RetryLayer};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_test::mock;

const SOON: Duration = Duration::from_secs(20);

async fn start(builder: ServerBuilder) -> (Server, ClientBuilder) {
    // The server keeps leases whose connection has ended. So a key becomes free only when the client releases it.
    let server = builder.port(0).auto_release_on_disconnect(false).start().await.unwrap();
    let builder = Client::builder().servers([server.local_addr().to_string()]);
    (server, builder)
}

fn held(server: &Server) -> usize {
    let stats = server.stats();
    stats.locks.len() + stats.semaphores.len()
}

/// A service that calls `before` with each request and `after` with each response. `after` may change the response.
#[derive(Clone)]
struct Wrapped<S, B, A> {
    inner: S,
    before: B,
    after: A,
}

impl<S, B, A> Service<Request> for Wrapped<S, B, A>
where
    S: Service<Request, Response = Response, Error = Error>,
    S::Future: Send + 'static,
    B: Fn(&Request),
    A: Fn(Result<Response, Error>) -> Result<Response, Error> + Clone + Send + Sync + 'static,
{
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        (self.before)(&request);
        let (answer, after) = (self.inner.call(request), self.after.clone());
        Box::pin(async move { after(answer.await) })
    }
}

fn wrap<B, A>(
    before: B,
    after: A,
) -> impl Layer<ClientService, Service = Wrapped<ClientService, B, A>> + Send + Sync + 'static
where
    B: Fn(&Request) + Clone + Send + Sync + 'static,
    A: Fn(Result<Response, Error>) -> Result<Response, Error> + Clone + Send + Sync + 'static,
{
    layer_fn(move |inner| Wrapped {
        inner,
        before: before.clone(),
        after: after.clone(),
    })
}

/// The requests that a layer saw.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<SeenRequest>>>);

type SeenRequest = (Operation, Option<String>);

impl Seen {
    fn see(&self, request: &Request) {
        let key = request.key().map(|key| key.to_string());
        self.0.lock().unwrap().push((request.operation(), key));
    }

    /// Adds a layer that records requests.
    fn added_to(&self, builder: ClientBuilder) -> ClientBuilder {
        let seen = self.clone();
        builder.layer(wrap(move |request: &Request| seen.see(request), |answer| answer))
    }

    fn take(&self) -> Vec<SeenRequest> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Returns the two parts of a [`Budget::Total`], or `None` for another budget.
fn total(error: &dflockd_client::Error) -> Option<(Duration, Duration)> {
    match error.budget()? {
        Budget::Total {
            wait, request_timeout, ..
        } => Some((wait, request_timeout)),
        _ => None,
    }
}

#[tokio::test]
async fn every_method_of_every_handle_goes_through_the_layers() {
    let (_server, builder) = start(Server::builder().release("1.16")).await;
    let seen = Seen::default();
    let client = seen.added_to(builder).connect().await.unwrap();
    let lock = client.lock("k").unwrap();
    let guard = lock.acquire().await.unwrap();
    assert!(lock.try_acquire().await.unwrap().is_none());
    let Enqueued::Queued(ticket) = lock.enqueue().await.unwrap() else {
        panic!("it is held");
    };
    guard.release().await.unwrap();
    ticket.wait(SOON).await.unwrap().release().await.unwrap();
    client
        .semaphore("s", 1)
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    client
        .lock_all(["x", "y"])
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    client.stats().await.unwrap();
    let signals = client.subscribe("a.*").await.unwrap();
    assert_eq!(client.emit("a.b", "x").await.unwrap(), 1);
    drop(signals);
    // The client itself is a tower service. The layers see its requests, too.
    let mut service = client.clone();
    service
        .ready()
        .await
        .unwrap()
        .call(Request::Stats { shard: 0 })
        .await
        .unwrap();

    use Operation::{Acquire, Collect, Emit, Enqueue, Release, Stats, Subscribe, TryAcquire};
    let expected = [
        (Acquire, Some("k")),
        (TryAcquire, Some("k")),
        (Enqueue, Some("k")),
        (Release, Some("k")),
        (Collect, Some("k")),
        (Release, Some("k")),
        (Acquire, Some("s")),
        (Release, Some("s")),
        (Acquire, Some("x")),
        (Acquire, Some("y")),
        (Release, Some("x")),
        (Release, Some("y")),
        (Stats, None),
        (Subscribe, None),
        (Emit, None),
        (Stats, None),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(what, key)| (what, key.map(str::to_owned)))
        .collect();
    assert_eq!(seen.take(), expected);
}

#[tokio::test]
async fn the_layer_that_was_added_first_sees_a_request_first_and_its_answer_last() {
    let (_server, builder) = start(Server::builder()).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let named = |name: &'static str| {
        let (down, up) = (Arc::clone(&order), Arc::clone(&order));
        wrap(
            move |_: &Request| down.lock().unwrap().push(name.to_owned()),
            move |answer| {
                up.lock().unwrap().push(format!("{name}'s answer"));
                answer
            },
        )
    };
    let client = builder
        .layer(named("first"))
        .layer(named("second"))
        .connect()
        .await
        .unwrap();
    client.stats().await.unwrap();
    let order = order.lock().unwrap().join(", ");
    assert_eq!(order, "first, second, second's answer, first's answer");
}

/// A layer must pass a grant on to the caller. If it drops the grant, the client releases the lock, and the caller gets
/// the answer of the layer.
#[tokio::test]
async fn a_grant_that_a_layer_swallows_is_released() {
    for kind in ["an error", "busy"] {
        let (server, builder) = start(Server::builder()).await;
        let swallow = wrap(
            |_: &Request| {},
            move |answer| match answer {
                Ok(Response::Granted(lease)) => {
                    drop(lease);
                    match kind {
                        "busy" => Ok(Response::Busy),
                        _ => Err(Client::builder().servers(["nonsense"]).build().unwrap_err()),
                    }
                }
                other => other,
            },
        );
        let client = builder.layer(swallow).connect().await.unwrap();
        let lock = client.lock("k").unwrap();
        for _ in 0..3 {
            let error = lock.acquire().await.unwrap_err();
            let expected = if kind == "busy" {
                ErrorKind::Timeout
            } else {
                ErrorKind::InvalidInput
            };
            assert_eq!(error.kind(), expected, "{error}");
            until("the key is free again", || held(&server) == 0).await;
        }
        assert!(kind != "busy" || lock.try_acquire().await.unwrap().is_none());
        until("the key is free again", || held(&server) == 0).await;
    }
}

#[tokio::test]
async fn an_answer_of_the_wrong_kind_is_an_error_and_a_release_cannot_be_stopped() {
    let (server, builder) = start(Server::builder()).await;
    let confuse = wrap(
        |_: &Request| {},
        |answer| match answer {
            Ok(Response::Released) => Ok(Response::Busy),
            other => other,
        },
    );
    let client = builder.layer(confuse).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let error = guard.release().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("a layer"), "{error}");
    assert_eq!(held(&server), 0, "the server had executed the release");
}

/// A service that refuses every request of this operation.
#[derive(Clone)]
struct Refuse(Operation, ClientService);

impl Service<Request> for Refuse {
    type Response = Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.1.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.operation() == self.0 {
            return Box::pin(ready(Err("not on a Friday".into())));
        }
        let answer = self.1.call(request);
        Box::pin(async move { answer.await.map_err(Into::into) })
    }
}

#[tokio::test]
async fn a_layers_own_error_reaches_the_caller_with_its_source() {
    let (server, builder) = start(Server::builder()).await;
    let refuse = |what| layer_fn(move |inner| Refuse(what, inner));
    let client = builder
        .clone()
        .layer(refuse(Operation::Acquire))
        .connect()
        .await
        .unwrap();
    let error = client.lock("k").unwrap().acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Layer);
    // The source of the error has the layer's text. The error itself does not repeat this text.
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(source.as_deref(), Some("not on a Friday"));
    assert!(!error.to_string().contains("not on a Friday"), "{error}");

    // A layer cannot prevent a release. If it refuses the release, it only hides the result.
    let client = builder.layer(refuse(Operation::Release)).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Layer);
    until("the key is free", || held(&server) == 0).await;
}

/// Requests that wait for a lock use up the whole limit. The release of this lock must still reach the server.
#[tokio::test]
async fn a_concurrency_limit_full_of_waiters_does_not_block_the_release_that_they_wait_for() {
    let (server, builder) = start(Server::builder()).await;
    let client = builder
        .layer(ConcurrencyLimitLayer::new(3))
        .request_timeout(Duration::from_secs(60))
        .acquire_timeout(Duration::from_secs(60))
        .connect()
        .await
        .unwrap();
    let lock = client.lock("k").unwrap();
    let first = lock.acquire().await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let lock = lock.clone();
        waiting.spawn(async move { lock.acquire().await.unwrap().release().await.unwrap() });
    }
    until("all places are taken", || server.stats().locks[0].waiters == 3).await;
    let mut service = client.clone();
    let ready = service.poll_ready(&mut Context::from_waker(std::task::Waker::noop()));
    assert!(ready.is_pending(), "the limit applies back-pressure");
    // If the release waited for room within the limit, it would wait until the waiters time out, after 60 s.
    tokio::time::timeout(SOON, first.release()).await.unwrap().unwrap();
    tokio::time::timeout(SOON, waiting.join_all()).await.unwrap();
    assert_eq!(held(&server), 0);
}

#[tokio::test]
async fn load_shedding_refuses_requests_beyond_the_limit_at_once() {
    let (server, builder) = start(Server::builder()).await;
    let shed = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .into_inner();
    let client = builder.layer(shed).connect().await.unwrap();
    let other = Client::builder()
        .servers([server.local_addr().to_string()])
        .connect()
        .await
        .unwrap();
    let held_by_other = other.lock("k").unwrap().acquire().await.unwrap();
    let lock = client.lock("k").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
    until("the only place is taken", || server.stats().locks[0].waiters == 1).await;
    let error = client.lock("l").unwrap().acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Layer, "{error}");
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.is::<Overloaded>(), "{source:?}");
    held_by_other.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
}

/// The client clones its service, but a rate limit cannot be cloned. So the rate limit needs a buffer around it.
#[tokio::test]
async fn a_rate_limit_works_behind_a_buffer_and_nothing_is_left_when_the_client_is_dropped() {
    let (server, builder) = start(Server::builder()).await;
    let limit = layer_fn(|inner: ClientService| {
        let limited = RateLimitLayer::new(2, Duration::from_millis(100)).layer(inner);
        tower::buffer::Buffer::new(limited, 16)
    });
    let client = builder.layer(limit).connect().await.unwrap();
    let started = tokio::time::Instant::now();
    for number in 0..5 {
        let guard = client.lock(format!("k{number}")).unwrap().acquire().await.unwrap();
        guard.release().await.unwrap();
    }
    // These are ten requests, and the limit is two requests per 100 ms.
    assert!(
        started.elapsed() >= Duration::from_millis(390),
        "{:?}",
        started.elapsed()
    );
    drop(client);
    until("the connection is closed", || server.stats().connections == 0).await;
}

#[derive(Clone)]
struct AFewTimes(u32);

impl Policy<Request, Response, Error> for AFewTimes {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request, result: &mut Result<Response, Error>) -> Option<Ready<()>> {
        match result {
            Err(error) if error.is_retryable() && self.0 > 0 => {
                self.0 -= 1;
                Some(ready(()))
            }
            _ => None,
        }
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        request.try_clone()
    }
}

#[tokio::test]
async fn a_retry_layer_repeats_retryable_requests() {
    // The server stores one key at a time and forgets a free key after 50 ms.
    let server = Server::builder()
        .max_locks(1)
        .gc_interval(Duration::from_millis(10))
        .gc_max_idle(Duration::from_millis(50));
    let (_server, builder) = start(server).await;
    let seen = Seen::default();
    let builder = builder.layer(RetryLayer::new(AFewTimes(100_000)));
    let client = seen.added_to(builder).connect().await.unwrap();
    client
        .lock("first")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    client
        .lock("second")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    let tries = seen
        .take()
        .iter()
        .filter(|(what, _)| *what == Operation::Acquire)
        .count();
    assert!(
        tries > 2,
        "the acquire of the second key was refused at first and repeated: {tries} tries in all"
    );
    // The layer does not repeat a request after an error that is not retryable.
    let error = client.shard_stats(7).await.unwrap_err();
    assert_eq!((error.kind(), seen.take().len()), (ErrorKind::InvalidInput, 1));
}

/// The grant has reached a layer that never passes it on. The client releases it after the timeout of the acquire.
#[tokio::test]
async fn a_timed_out_acquire_leaks_nothing_wherever_its_grant_is() {
    let (server, builder) = start(Server::builder()).await;
    let slow = layer_fn(|mut inner: ClientService| {
        tower::service_fn(move |request: Request| {
            let acquires = request.operation() == Operation::Acquire;
            let answer = inner.call(request);
            async move {
                let answer = answer.await;
                if acquires {
                    // The layer never completes, and its future owns the grant.
                    std::future::pending::<()>().await;
                }
                answer
            }
        })
    });
    let client = builder
        .layer(slow)
        .request_timeout(Duration::from_millis(200))
        .connect()
        .await
        .unwrap();
    let lock = client.lock("k").unwrap().acquire_timeout(Duration::from_millis(100));
    let started = tokio::time::Instant::now();
    let acquiring = tokio::spawn(async move { lock.acquire().await });
    until("the server has granted the key", || held(&server) == 1).await;
    let error = acquiring.await.unwrap().unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let budget = (Duration::from_millis(100), Duration::from_millis(200));
    assert_eq!(total(&error), Some(budget), "{error}");
    until("the grant is released", || held(&server) == 0).await;
}

#[tokio::test]
async fn an_error_names_the_budget_that_ran_out() {
    let (server, builder) = start(Server::builder()).await;
    let client = builder.connect().await.unwrap();
    let _held = client.lock("k").unwrap().acquire().await.unwrap();
    // A server ends a wait after a whole number of seconds. So the client's timer ends the first wait, and the server
    // may end the second wait.
    for wait in [Duration::from_millis(150), Duration::from_secs(1)] {
        let lock = client.lock("k").unwrap().acquire_timeout(wait);
        let error = lock.acquire().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.budget()),
            (ErrorKind::Timeout, Some(Budget::Wait(wait))),
            "{error}"
        );
    }
    let Enqueued::Queued(ticket) = client.lock("k").unwrap().enqueue().await.unwrap() else {
        panic!("it is held");
    };
    let wait = Duration::from_millis(100);
    let error = ticket.wait(wait).await.unwrap_err();
    assert_eq!(error.budget(), Some(Budget::Wait(wait)), "{error}");
    drop(server);
}

/// The client's requests go to a mock service. The test takes them from the mock, as a layer does, and answers with
/// grants of a real server.
#[tokio::test]
async fn a_mock_service_passes_on_and_swallows_real_grants() {
    let (server, builder) = start(Server::builder()).await;
    let mut real = builder.clone().connect().await.unwrap();
    let (mock, mut handle) = mock::pair::<Request, Response>();
    let client = builder.layer(layer_fn(move |_| mock.clone())).build().unwrap();
    let lock = client.lock("k").unwrap();

    // The test passes the grant on, and the caller gets a guard. The release of the guard does not go to the mock.
    let acquiring = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap() }
    });
    let (request, caller) = handle.next_request().await.unwrap();
    assert_eq!(request.operation(), Operation::Acquire);
    caller.send_response(real.ready().await.unwrap().call(request).await.unwrap());
    let guard = acquiring.await.unwrap();
    assert!(guard.is_held() && held(&server) == 1);
    guard.release().await.unwrap();
    assert_eq!(held(&server), 0);

    // The test drops the grant. The client releases it, and the caller gets an error of the layer.
    let acquiring = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.map(drop) }
    });
    let (request, caller) = handle.next_request().await.unwrap();
    let response = real.ready().await.unwrap().call(request).await.unwrap();
    assert!(matches!(response, Response::Granted(_)) && held(&server) == 1);
    drop((response, caller));
    assert_eq!(acquiring.await.unwrap().unwrap_err().kind(), ErrorKind::Layer);
    until("the grant is released", || held(&server) == 0).await;

    // The caller ends before the test passes the grant on. The client releases the grant.
    let acquiring = tokio::spawn(async move { lock.acquire().await.map(drop) });
    let (request, caller) = handle.next_request().await.unwrap();
    let response = real.ready().await.unwrap().call(request).await.unwrap();
    acquiring.abort();
    assert!(acquiring.await.unwrap_err().is_cancelled());
    assert_eq!(held(&server), 1);
    caller.send_response(response);
    until("the grant is released", || held(&server) == 0).await;
}

#[tokio::test]
async fn a_users_timeout_layer_ends_a_request_earlier() {
    let (_server, builder) = start(Server::builder()).await;
    let stuck =
        layer_fn(|_: ClientService| tower::service_fn(|_: Request| std::future::pending::<Result<Response, Error>>()));
    let client = builder
        .layer(TimeoutLayer::new(Duration::from_millis(50)))
        .layer(stuck)
        .connect()
        .await
        .unwrap();
    let error = client.stats().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(total(&error), Some((Duration::ZERO, Duration::from_millis(50))));
}

/// An `AcquireRequest` has the same settings as a handle, and they have the same effect.
#[tokio::test]
async fn a_request_sets_how_its_lease_is_renewed() {
    use dflockd_client::server::EventKind;
    use dflockd_client::{AcquireRequest, Key, RenewPolicy, Target, Ttl};

    let server = Server::builder().port(0).record_events(true).start().await.unwrap();
    let builder = Client::builder().servers([server.local_addr().to_string()]);
    let mut client = builder.connect().await.unwrap();
    let request = |key: &str| {
        let request = AcquireRequest::new(Target::Lock, Key::new(key).unwrap());
        request.lease_ttl(Ttl::from_secs(2).unwrap())
    };
    let requests = [
        request("never").renew_policy(RenewPolicy::off()),
        request("early").renew_policy(RenewPolicy::default().ratio(0.1)),
        request("hold").renew_policy(RenewPolicy::default().max_hold(Duration::from_millis(1500))),
        request("usual"),
    ];
    let mut leases = Vec::new();
    for request in requests {
        match client
            .ready()
            .await
            .unwrap()
            .call(Request::Acquire(request))
            .await
            .unwrap()
        {
            Response::Granted(lease) => leases.push(lease),
            other => panic!("{other:?}"),
        }
    }
    let renewed = |key: &str| {
        let events = server.events();
        let of_it =
            |event: &&dflockd_client::server::Event| event.kind == EventKind::Renewed && event.key.as_str() == key;
        events.iter().filter(of_it).count()
    };
    until("the lease with the early ratio was renewed often", || {
        renewed("early") >= 20
    })
    .await;
    until("the lease without renewal and the one with `max_hold` are lost", || {
        !leases[0].is_held() && !leases[2].is_held()
    })
    .await;
    assert!(leases[1].is_held() && leases[3].is_held());
    assert_eq!((renewed("never"), renewed("hold")), (0, 1));
    assert!((2..renewed("early")).contains(&renewed("usual")));
    let invalid = Request::Acquire(request("k").renew_policy(RenewPolicy::default().ratio(1.5)));
    let error = client.ready().await.unwrap().call(invalid).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("renew ratio 1.5"), "{error}");
}
