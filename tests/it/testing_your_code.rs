//! Examples of tests that a user of this crate writes. `docs/guide/src/testing-your-code.md` explains most of these
//! tests. Copy the tests that you need.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dflockd_client::protocol::Status;
use dflockd_client::testing::{GivenBack, MockAnswer, MockService, TestServer};
use dflockd_client::tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use dflockd_client::{
    AcquireRequest, Client, ClientService, Error, ErrorKind, Key, LostReason, OnUnavailable, Operation, Request,
    Response, Target,
};
use tokio::time::{Instant, sleep, timeout};

// The code under test.

/// Packs an order while no other process can pack it, and then adds the order to `packed`.
async fn pack(client: &Client, order: u32, packed: &Mutex<Vec<u32>>) -> Result<(), Error> {
    let lock = client.lock(format!("orders/{order}"))?;
    lock.with_lock(async |_| {
        // The work takes its time.
        sleep(Duration::from_secs(90)).await;
        packed.lock().unwrap().push(order);
        Ok(())
    })
    .await
}

/// Refuses to lock a key of another tenant.
#[derive(Clone)]
struct TenantLayer(&'static str);

impl Layer<ClientService> for TenantLayer {
    type Service = Tenant;

    fn layer(&self, inner: ClientService) -> Tenant {
        Tenant { name: self.0, inner }
    }
}

#[derive(Clone)]
struct Tenant {
    name: &'static str,
    inner: ClientService,
}

impl Service<Request> for Tenant {
    type Response = Response;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let is_ours = request.key().is_none_or(|key| key.as_str().starts_with(self.name));
        if !is_ours {
            return Box::pin(async { Err("the key belongs to another tenant".into()) });
        }
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(answer.await?) })
    }
}

// The tests.

#[tokio::test(start_paused = true)]
async fn an_order_is_packed_under_its_lock() {
    let server = TestServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let packed = Arc::new(Mutex::new(Vec::new()));

    let packing = tokio::spawn({
        let (client, packed) = (client.clone(), Arc::clone(&packed));
        async move { pack(&client, 42, &packed).await }
    });
    server.wait_until_held("orders/42").await.unwrap();
    packing.await.unwrap().unwrap();

    assert_eq!(*packed.lock().unwrap(), [42]);
    assert!(!server.is_held("orders/42"));
}

#[tokio::test]
async fn the_next_in_the_queue_gets_the_lock() {
    let server = TestServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let guard = client.lock("orders/42").unwrap().acquire().await.unwrap();

    let lock = client.lock("orders/42").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await });
    server.wait_for_waiters("orders/42", 1).await.unwrap();

    guard.release().await.unwrap();
    let guard = waiting.await.unwrap().unwrap();
    assert_eq!(server.leases("orders/42")[0].token, *guard.token());
}

#[tokio::test(start_paused = true)]
async fn a_held_order_is_not_packed() {
    let server = TestServer::start().await.unwrap();
    let other = server.client().await.unwrap();
    let _guard = other.lock("orders/42").unwrap().acquire().await.unwrap();

    let builder = server.client_builder().acquire_timeout(Duration::from_secs(600));
    let client = builder.connect().await.unwrap();
    let began = Instant::now();
    let error = pack(&client, 42, &Mutex::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    // Ten minutes, in which the other holder renewed its lease. The test takes milliseconds.
    assert!(began.elapsed() >= Duration::from_secs(600));
}

#[tokio::test(start_paused = true)]
async fn work_stops_when_its_lock_is_lost() {
    let server = TestServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let packed = Arc::new(Mutex::new(Vec::new()));
    let packing = tokio::spawn({
        let packed = Arc::clone(&packed);
        async move { pack(&client, 42, &packed).await }
    });
    server.wait_until_held("orders/42").await.unwrap();

    server.lose("orders/42").unwrap();
    let error = packing.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    assert!(packed.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_costs_one_order_and_not_the_next() {
    let server = TestServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let guard = client.lock("orders/42").unwrap().acquire().await.unwrap();

    server.cut();
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    pack(&client, 43, &Mutex::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_costs_the_lock_before_it_is_granted_to_another() {
    let server = TestServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let guard = client.lock("orders/42").unwrap().acquire().await.unwrap();

    server.stall();
    guard.lost().await;
    assert!(server.is_held("orders/42"));

    server.resume();
    drop(guard);
    pack(&client, 42, &Mutex::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_a_server_an_order_fails_at_once() {
    let server = TestServer::start().await.unwrap();
    let builder = server.client_builder().on_unavailable(OnUnavailable::FailFast);
    let client = builder.connect().await.unwrap();

    server.refuse_connections(true);
    server.cut();
    let mut health = client.watch_health(0).unwrap();
    health.wait_for(|health| !health.is_connected()).await.unwrap();
    let error = pack(&client, 42, &Mutex::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    server.refuse_connections(false);
    health.wait_for(|health| health.is_connected()).await.unwrap();
    pack(&client, 42, &Mutex::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_server_causes_an_error_of_its_own_kind() {
    let server = TestServer::start().await.unwrap();
    let client = server.client().await.unwrap();

    server.refuse_next(Status::MaxLocks);
    let error = pack(&client, 42, &Mutex::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MaxLocks);
    pack(&client, 42, &Mutex::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn orders_are_packed_while_leaders_come_and_go() {
    let cluster = TestServer::cluster(3).await.unwrap();
    let client = cluster.client().await.unwrap();
    for order in 0..3 {
        pack(&client, order, &Mutex::default()).await.unwrap();
        cluster.move_leader().unwrap();
    }
}

#[tokio::test]
async fn the_layer_passes_the_keys_of_its_tenant_and_no_others() {
    let mock = MockService::new();
    let mut service = TenantLayer("acme/").layer(ClientService::new(mock.clone()));
    let acquire = |key| Request::Acquire(AcquireRequest::new(Target::Lock, Key::new(key).unwrap()));

    let response = service.ready().await.unwrap().call(acquire("acme/1")).await.unwrap();
    let Response::Granted(lease) = response else {
        panic!("{response:?}");
    };
    service
        .ready()
        .await
        .unwrap()
        .call(acquire("other/1"))
        .await
        .unwrap_err();
    assert_eq!(mock.requests().len(), 1);

    mock.lease("acme/1").unwrap().lose(LostReason::Expired);
    assert_eq!(lease.lost().await, LostReason::Expired);
    drop(lease);
    assert_eq!(mock.lease("acme/1").unwrap().given_back(), Some(GivenBack::Dropped));
}

#[tokio::test(start_paused = true)]
async fn an_order_is_packed_after_the_mock_service_refused_it_twice() {
    let mock = MockService::new();
    let client = mock.client_builder().layer(TenantLayer("orders/")).build().unwrap();

    mock.answer_next(MockAnswer::Busy);
    mock.answer_next(MockAnswer::Refuse(Status::MaxWaiters));
    for expected in [ErrorKind::Timeout, ErrorKind::MaxWaiters] {
        let error = pack(&client, 42, &Mutex::default()).await.unwrap_err();
        assert_eq!(error.kind(), expected);
    }
    pack(&client, 42, &Mutex::default()).await.unwrap();
    let operations: Vec<_> = mock.requests().iter().map(|request| request.operation).collect();
    assert_eq!(operations[2..], [Operation::Acquire, Operation::Release]);
}

#[tokio::test]
async fn a_service_of_your_own_decides_what_is_granted() {
    let mock = MockService::new();
    let granting = mock.clone();
    let service = service_fn(move |request: Request| {
        let mock = granting.clone();
        async move {
            match request {
                Request::Acquire(acquire) if mock.leases().is_empty() => Ok(mock.grant(&acquire)),
                Request::Acquire(_) => Ok(Response::Busy),
                _ => Err(BoxError::from("not expected")),
            }
        }
    });
    let acquire = || Request::Acquire(AcquireRequest::new(Target::Lock, Key::new("orders/42").unwrap()));
    let first = service.clone().oneshot(acquire()).await.unwrap();
    assert!(matches!(first, Response::Granted(_)));
    assert!(matches!(service.oneshot(acquire()).await.unwrap(), Response::Busy));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_excludes_tasks_on_several_threads() {
    let server = TestServer::start().await.unwrap();
    let counter = Arc::new(Mutex::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, counter) = (server.client().await.unwrap(), Arc::clone(&counter));
        tasks.spawn(async move {
            let guard = client.lock("counter").unwrap().acquire().await.unwrap();
            let seen = *counter.lock().unwrap();
            tokio::task::yield_now().await;
            *counter.lock().unwrap() = seen + 1;
            guard.release().await.unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!(*counter.lock().unwrap(), 8);
}

#[test]
fn a_client_for_threads_needs_a_runtime_for_the_server_only() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(TestServer::start()).unwrap();
    let client = server.client_builder().connect_blocking().unwrap();
    client.lock("orders/42").unwrap().acquire().unwrap().release().unwrap();
}

#[tokio::test]
async fn a_test_that_may_hang_has_an_end() {
    let server = TestServer::start().await.unwrap();
    let test = async {
        let client = server.client().await.unwrap();
        client
            .lock("orders/42")
            .unwrap()
            .acquire()
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    };
    timeout(Duration::from_secs(60), test).await.unwrap();
}
