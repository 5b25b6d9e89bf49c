//! `LockLayer` and `SemaphoreLayer`, tower layers that hold a lease while the inner service handles a request: which
//! requests run at the same time, and what happens to leases, requests and responses.

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::raw::RawConnection;
use crate::support::until;
use dflockd_client::server::{EventKind, Server, ServerBuilder};
use dflockd_client::{
    Budget, Client, ClientBuilder, Error, ErrorKind, Fence, Fencing, KeyedError, LockLayer, Operation, Request,
    SemaphoreLayer,
};
use tokio::sync::{Barrier, Notify};
use tower::layer::layer_fn;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_test::mock;

/// A request of these tests, with the key to lock and the fence of its lease.
#[derive(Debug, Default, PartialEq)]
struct Job {
    key: Option<String>,
    fence: Option<Fence>,
}

impl Job {
    fn of(key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            fence: None,
        }
    }
}

/// The error of the inner service.
#[derive(Debug, PartialEq)]
struct Broken(u32);

fn locks(client: &Client) -> LockLayer<Job> {
    LockLayer::new(client, |job: &Job| job.key.clone())
}

async fn start(builder: ServerBuilder) -> (Server, Client) {
    // The server keeps leases whose connection has ended. So a key becomes free only when the client releases it.
    let server = builder
        .port(0)
        .auto_release_on_disconnect(false)
        .record_events(true)
        .start()
        .await
        .unwrap();
    let client = connect(&server, Client::builder()).await;
    (server, client)
}

async fn connect(server: &Server, builder: ClientBuilder) -> Client {
    let address = server.local_addr().to_string();
    builder.servers([address]).connect().await.unwrap()
}

fn held(server: &Server) -> usize {
    let stats = server.stats();
    stats.locks.len() + stats.semaphores.len()
}

/// Asserts that the service failed because of the lease, and returns that error.
fn of_lease<T: std::fmt::Debug, E: std::fmt::Debug>(answer: Result<T, KeyedError<E>>) -> Error {
    match answer {
        Err(KeyedError::Lease(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The number of requests that run now, and the highest number that has run at the same time.
#[derive(Default)]
struct Running {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Running {
    async fn during(&self, work: impl Future<Output = ()>) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        work.await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Sets its flag when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A service that signals its start and never completes. `dropped` says whether its future was dropped.
#[derive(Clone, Default)]
struct Endless {
    begun: Arc<Notify>,
    dropped: Arc<AtomicBool>,
}

impl Endless {
    async fn serve(self) -> Result<(), Broken> {
        let _dropped = Dropped(self.dropped);
        self.begun.notify_one();
        pending().await
    }

    fn service(
        &self,
    ) -> impl Service<Job, Response = (), Error = Broken, Future = impl Future<Output = Result<(), Broken>> + Send>
    + Clone
    + Send
    + 'static {
        let endless = self.clone();
        service_fn(move |_: Job| endless.clone().serve())
    }

    fn was_dropped(&self) -> bool {
        self.dropped.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn requests_of_one_key_run_one_at_a_time_in_all_processes() {
    let (server, first) = start(Server::builder()).await;
    let second = connect(&server, Client::builder()).await;
    let running = Arc::new(Running::default());
    let mut tasks = tokio::task::JoinSet::new();
    for client in [&first, &second] {
        let running = Arc::clone(&running);
        let service = locks(client).layer(service_fn(move |_: Job| {
            let running = Arc::clone(&running);
            async move {
                running.during(tokio::task::yield_now()).await;
                Ok::<_, Broken>(())
            }
        }));
        for _ in 0..20 {
            tasks.spawn(service.clone().oneshot(Job::of("k")));
        }
    }
    for answer in tasks.join_all().await {
        answer.unwrap();
    }
    assert_eq!(running.most(), 1);
    assert_eq!(held(&server), 0);
}

#[tokio::test]
async fn requests_of_different_keys_run_at_once() {
    let (_server, client) = start(Server::builder()).await;
    let both = Arc::new(Barrier::new(2));
    let service = locks(&client).layer(service_fn(move |_: Job| {
        let both = Arc::clone(&both);
        async move {
            both.wait().await;
            Ok::<_, Broken>(())
        }
    }));
    let (one, other) = tokio::join!(
        service.clone().oneshot(Job::of("one")),
        service.clone().oneshot(Job::of("other"))
    );
    one.unwrap();
    other.unwrap();
}

#[tokio::test]
async fn a_semaphore_lets_in_as_many_as_its_limit_in_all_processes() {
    let (server, first) = start(Server::builder()).await;
    let second = connect(&server, Client::builder()).await;
    let running = Arc::new(Running::default());
    // No request continues before three requests have started.
    let three = Arc::new(Barrier::new(3));
    let mut tasks = tokio::task::JoinSet::new();
    for client in [&first, &second] {
        let (running, three) = (Arc::clone(&running), Arc::clone(&three));
        let slots = SemaphoreLayer::new(client, |_: &Job| "slots", 3).unwrap();
        let service = slots.layer(service_fn(move |_: Job| {
            let (running, three) = (Arc::clone(&running), Arc::clone(&three));
            async move {
                let all_are_there = async {
                    three.wait().await;
                };
                running.during(all_are_there).await;
                Ok::<_, Broken>(())
            }
        }));
        for _ in 0..9 {
            tasks.spawn(service.clone().oneshot(Job::default()));
        }
    }
    for answer in tasks.join_all().await {
        answer.unwrap();
    }
    assert_eq!(running.most(), 3);
    assert_eq!(held(&server), 0);
}

#[tokio::test]
async fn a_limit_of_zero_is_refused() {
    let (_server, client) = start(Server::builder()).await;
    let error = SemaphoreLayer::new(&client, |_: &Job| "slots", 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_lost_lease_drops_the_inner_future_before_the_caller_gets_the_error() {
    let (server, client) = start(Server::builder()).await;
    let inner = Endless::default();
    let answer = locks(&client).layer(inner.service()).oneshot(Job::of("k"));
    let killed = async {
        inner.begun.notified().await;
        assert!(!inner.was_dropped());
        server.kill().await;
    };
    let dropped = Arc::clone(&inner.dropped);
    let told = async move {
        let answer = answer.await;
        // The layer drops the inner future before it returns the error.
        (answer, dropped.load(Ordering::SeqCst))
    };
    let ((answer, was_dropped), ()) = tokio::join!(told, killed);
    assert_eq!(of_lease(answer).kind(), ErrorKind::LeaseLost);
    assert!(was_dropped);
}

#[tokio::test]
async fn a_lease_that_ran_out_during_the_last_poll_is_lost() {
    let (_server, client) = start(Server::builder()).await;
    let ttl = Duration::from_secs(1);
    let service = locks(&client).lease_ttl(ttl).layer(service_fn(|_: Job| async {
        // The runtime has no other thread, so the client sends no renewal during the sleep.
        std::thread::sleep(Duration::from_millis(1_100));
        Ok::<_, Broken>(())
    }));
    assert_eq!(
        of_lease(service.oneshot(Job::of("k")).await).kind(),
        ErrorKind::LeaseLost
    );
}

#[tokio::test]
async fn a_dropped_response_future_leaks_nothing() {
    let (server, client) = start(Server::builder()).await;
    let inner = Endless::default();
    let service = locks(&client).layer(inner.service());
    let mut runs = Box::pin(service.clone().oneshot(Job::of("k")));
    let mut waits = Box::pin(service.oneshot(Job::of("k")));
    let both_are_there = until("one runs, one waits", || {
        server.stats().locks.iter().any(|lock| lock.waiters == 1)
    });
    let begun = async {
        tokio::select! {
            _ = &mut runs => panic!("it never completes"),
            () = inner.begun.notified() => {}
        }
        tokio::select! {
            _ = &mut runs => panic!("it never completes"),
            _ = &mut waits => panic!("the other holds it"),
            () = both_are_there => {}
        }
    };
    begun.await;
    drop(waits);
    assert_eq!(held(&server), 1);
    assert!(!inner.was_dropped());
    drop(runs);
    assert!(inner.was_dropped());
    until("the key is free", || held(&server) == 0).await;
    // The dropped wait leaves no queue position that blocks the next acquire.
    client
        .lock("k")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

#[tokio::test]
async fn an_inner_panic_releases_the_lease() {
    let (server, client) = start(Server::builder()).await;
    let service = locks(&client).layer(service_fn(|job: Job| async move {
        match job.key {
            Some(_) => panic!("on purpose"),
            None => Ok::<_, Broken>(()),
        }
    }));
    let panicked = tokio::spawn(service.oneshot(Job::of("k"))).await.unwrap_err();
    assert!(panicked.is_panic());
    until("the key is free", || held(&server) == 0).await;
}

#[tokio::test]
async fn the_fence_reaches_the_handler_and_grows() {
    let (server, first) = start(Server::builder()).await;
    let second = connect(&server, Client::builder().fencing(Fencing::Required)).await;
    drop(first);
    let first = connect(&server, Client::builder().fencing(Fencing::Required)).await;
    let mut fences = Vec::new();
    for client in [&first, &second, &first, &second] {
        let service = locks(client)
            .on_acquired(|job, guard| job.fence = guard.fence())
            .layer(service_fn(async |job: Job| Ok::<_, Broken>(job.fence)));
        fences.push(service.oneshot(Job::of("k")).await.unwrap().unwrap());
    }
    assert!(fences.is_sorted_by(|earlier, later| earlier < later), "{fences:?}");
}

#[tokio::test]
async fn a_request_runs_without_a_fence_unless_fences_are_required() {
    let (server, client) = start(Server::builder().release("1.16")).await;
    let called = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&called);
    let inner = service_fn(move |job: Job| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, Broken>(job.fence) }
    });
    let service = locks(&client)
        .on_acquired(|job, guard| job.fence = guard.fence())
        .layer(inner.clone());
    assert_eq!(service.oneshot(Job::of("k")).await.unwrap(), None);
    assert_eq!(called.load(Ordering::SeqCst), 1);
    let strict = Client::builder()
        .servers([server.local_addr().to_string()])
        .fencing(Fencing::Required)
        .build()
        .unwrap();
    let answer = locks(&strict).layer(inner).oneshot(Job::of("k")).await;
    assert_eq!(of_lease(answer).kind(), ErrorKind::Unsupported);
    assert_eq!(called.load(Ordering::SeqCst), 1);
    assert_eq!(held(&server), 0);
}

#[tokio::test]
async fn a_request_without_a_key_passes_through() {
    let (server, client) = start(Server::builder()).await;
    let service = locks(&client)
        .on_acquired(|_, _| panic!("there is no lease"))
        .layer(service_fn(async |_: Job| Err::<(), _>(Broken(7))));
    let answer = service.oneshot(Job::default()).await;
    assert!(matches!(answer, Err(KeyedError::Inner(Broken(7)))), "{answer:?}");
    assert!(server.events().is_empty(), "{:?}", server.events());
}

#[tokio::test]
async fn an_invalid_key_is_refused_before_anything_is_sent() {
    let (server, client) = start(Server::builder()).await;
    let service = locks(&client).layer(service_fn(async |_: Job| -> Result<(), Broken> {
        panic!("it has no lease")
    }));
    let error = of_lease(service.oneshot(Job::of("two words")).await);
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(server.events().is_empty(), "{:?}", server.events());
}

#[tokio::test]
async fn a_held_key_is_waited_for_only_as_long_as_allowed() {
    let (server, client) = start(Server::builder()).await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let inner = service_fn(async |_: Job| -> Result<(), Broken> { panic!("it has no lease") });
    for allowed in [Duration::ZERO, Duration::from_millis(50)] {
        let service = locks(&client).acquire_timeout(allowed).layer(inner);
        let error = of_lease(service.oneshot(Job::of("k")).await);
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.budget(), Some(Budget::Wait(allowed)));
    }
    guard.release().await.unwrap();
    // The server may still grant the key to an abandoned queue position. Then the client releases this grant.
    until("the key is free", || held(&server) == 0).await;
}

#[tokio::test]
async fn an_inner_error_passes_unchanged_after_the_release() {
    let (server, client) = start(Server::builder()).await;
    let inner = service_fn(async |job: Job| match job.key.as_deref() {
        Some("bad") => Err(Broken(42)),
        _ => Ok("done"),
    });
    let service = locks(&client).layer(inner);
    let answer = service.clone().oneshot(Job::of("bad")).await;
    assert_eq!(held(&server), 0);
    assert!(matches!(answer, Err(KeyedError::Inner(Broken(42)))), "{answer:?}");
    let answer = service.oneshot(Job::of("good")).await;
    assert_eq!(held(&server), 0);
    assert_eq!(answer.unwrap(), "done");
}

/// Turns the answers to releases into errors.
#[derive(Clone)]
struct Unconfirmed<S>(S);

impl<S> Service<Request> for Unconfirmed<S>
where
    S: Service<Request, Error = Error>,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let refused = request.operation() == Operation::Release;
        let answer = self.0.call(request);
        Box::pin(async move {
            match refused {
                true => Err("not today".into()),
                false => answer.await.map_err(Into::into),
            }
        })
    }
}

#[tokio::test]
async fn a_release_that_fails_changes_no_response() {
    let (server, _) = start(Server::builder()).await;
    let client = connect(&server, Client::builder().layer(layer_fn(Unconfirmed))).await;
    let service = locks(&client).layer(service_fn(async |job: Job| match job.key.as_deref() {
        Some("bad") => Err(Broken(42)),
        _ => Ok("done"),
    }));
    assert_eq!(service.clone().oneshot(Job::of("good")).await.unwrap(), "done");
    let answer = service.oneshot(Job::of("bad")).await;
    assert!(matches!(answer, Err(KeyedError::Inner(Broken(42)))), "{answer:?}");
    until("the leases are released", || held(&server) == 0).await;
}

#[tokio::test]
async fn a_lease_that_is_lost_between_the_end_of_the_work_and_the_release_changes_no_response() {
    let (server, client) = start(Server::builder()).await;
    let token = Arc::new(Mutex::new(String::new()));
    let shown = Arc::clone(&token);
    let address = server.local_addr().to_string();
    let service = locks(&client)
        .on_acquired(move |_, guard| guard.token().as_str().clone_into(&mut shown.lock().unwrap()))
        .layer(service_fn(move |_: Job| {
            let (address, token) = (address.clone(), token.lock().unwrap().clone());
            async move {
                // Another connection releases the lease, and the client does not know of it.
                let released = RawConnection::open(&address).await.request("r", "k", &token).await;
                Ok::<_, Broken>(released)
            }
        }));
    assert_eq!(service.oneshot(Job::of("k")).await.unwrap(), "ok");
    let released = server
        .events()
        .iter()
        .filter(|event| event.kind == EventKind::Released)
        .count();
    assert_eq!(
        (released, held(&server)),
        (1, 0),
        "the client's own release was refused"
    );
}

/// A service that asserts in each call that it is ready. A clone is not ready.
struct Strict {
    ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false }
    }
}

impl Service<Job> for Strict {
    type Response = ();
    type Error = Broken;
    type Future = std::future::Ready<Result<(), Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Job) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "it was not ready");
        std::future::ready(Ok(()))
    }
}

#[tokio::test]
async fn the_layer_calls_the_instance_that_was_ready() {
    let (_server, client) = start(Server::builder()).await;
    let mut service = ServiceBuilder::new()
        .layer(locks(&client))
        .service(Strict { ready: false });
    for key in ["k", "k", "other"] {
        service.ready().await.unwrap().call(Job::of(key)).await.unwrap();
        service.ready().await.unwrap().call(Job::default()).await.unwrap();
    }
}

#[tokio::test]
async fn readiness_depends_on_the_inner_service_and_takes_no_lease() {
    let (server, client) = start(Server::builder()).await;
    let (inner, mut handle) = mock::pair::<Job, u32>();
    let mut service = locks(&client).layer(inner);
    handle.allow(0);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_pending());
    handle.allow(1);
    poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    assert!(server.events().is_empty(), "{:?}", server.events());
    let answered = async {
        let (job, respond) = handle.next_request().await.unwrap();
        assert_eq!(held(&server), 1, "the inner service runs under the lock");
        respond.send_response(6);
        job
    };
    let (answer, job) = tokio::join!(service.call(Job::of("k")), answered);
    assert_eq!((answer.unwrap(), job), (6, Job::of("k")));
    handle.send_error("broken");
    let failed = poll_fn(|cx| service.poll_ready(cx)).await;
    assert!(matches!(&failed, Err(KeyedError::Inner(error)) if error.to_string() == "broken"));
    assert_eq!(failed.unwrap_err().into_boxed().to_string(), "broken");
}

#[tokio::test]
async fn layers_and_services_implement_clone_send_sync_and_debug() {
    fn shared<T: Clone + Send + Sync + std::fmt::Debug>(_: &T) {}
    let (_server, client) = start(Server::builder()).await;
    let layer = locks(&client).max_hold(Duration::from_secs(60));
    shared(&layer);
    shared(&layer.layer(mock::pair::<Job, u32>().0));
    assert!(format!("{layer:?}").contains("max_hold: Some(60s)"), "{layer:?}");
}
