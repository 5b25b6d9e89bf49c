//! A call that has timed out or was dropped keeps no grant: the client releases a grant that arrives later. This holds
//! even while the future of the call still exists.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::support::proxy::Proxy;
use crate::support::recorder::Recorded;
use crate::support::until;
use dflockd_client::server::Server;
use dflockd_client::{AcquireRequest, Client, ClientBuilder, ClientEvent, ErrorKind, Key, Request, Target};
use tower::{Service, ServiceExt};

struct Scene {
    server: Server,
    proxy: Proxy,
}

impl Scene {
    async fn set() -> Self {
        // The server keeps leases whose connection has ended. So a key becomes free only when the client releases it.
        let server = Server::builder().port(0).auto_release_on_disconnect(false);
        let server = server.start().await.unwrap();
        let proxy = Proxy::start(&server.local_addr().to_string()).await;
        Self { server, proxy }
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder().servers([&self.proxy.address])
    }

    fn stall_answers(&self) {
        self.proxy.change(|treatment| treatment.stall_down = true);
    }

    async fn until_held(&self, locks: usize) {
        until(&format!("{locks} locks are held"), || {
            self.server.stats().locks.len() == locks
        })
        .await;
    }
}

fn acquire(wait: Duration) -> Request {
    let request = AcquireRequest::new(Target::Lock, Key::new("k").unwrap());
    Request::Acquire(request.acquire_timeout(wait))
}

/// Lets a call time out and keeps its future. The server's grant arrives afterwards, and the client must release it.
async fn times_out_and_gives_back(scene: &Scene, mut client: Client, wait: Duration) {
    let mut call = pin!(client.ready().await.unwrap().call(acquire(wait)));
    let error = call.as_mut().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    scene.until_held(1).await;
    scene.proxy.pass_everything();
    scene.until_held(0).await;
}

#[tokio::test]
async fn an_acquire_that_timed_out_releases_a_grant_that_arrives_later() {
    let scene = Scene::set().await;
    let client = scene.builder().connect().await.unwrap();
    scene.stall_answers();
    times_out_and_gives_back(&scene, client, Duration::from_millis(50)).await;
}

#[tokio::test]
async fn a_try_that_the_request_timeout_ended_releases_a_grant_that_arrives_later() {
    let scene = Scene::set().await;
    let builder = scene.builder().request_timeout(Duration::from_millis(100));
    let client = builder.connect().await.unwrap();
    scene.stall_answers();
    times_out_and_gives_back(&scene, client, Duration::ZERO).await;
}

#[tokio::test]
async fn an_acquire_that_timed_out_before_it_had_room_takes_none_later() {
    let scene = Scene::set().await;
    let mut client = scene.builder().max_in_flight(1).connect().await.unwrap();
    let mut late = client.clone();
    late.ready().await.unwrap();
    scene.stall_answers();
    let first = tokio::spawn(client.ready().await.unwrap().call(acquire(Duration::from_secs(20))));
    scene.until_held(1).await;
    let mut call = pin!(late.call(acquire(Duration::from_millis(50))));
    assert!(call.as_mut().await.is_err());
    scene.proxy.pass_everything();
    drop(first.await.unwrap().unwrap());
    // This acquire needs the client's only place for a request in flight. The call that timed out must not occupy it.
    let lock = client.lock("k").unwrap().acquire_timeout(Duration::from_secs(20));
    lock.acquire().await.unwrap().release().await.unwrap();
}

/// The test drops the client, and then the call. The client releases the lease before the client ends, so it reports no
/// loss.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_ends_with_a_dropped_call_releases_its_lease() {
    let mut dropped = 0;
    for _ in 0..50 {
        let scene = Scene::set().await;
        let recorded = Recorded::default();
        let mut client = scene
            .builder()
            .metrics_recorder(recorded.clone())
            .connect()
            .await
            .unwrap();
        let mut events = client.events();
        let mut call = Box::pin(client.ready().await.unwrap().call(acquire(Duration::ZERO)));
        drop(client);
        // In rare cases the first poll returns the answer, and then the caller has the lease.
        let answer = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        dropped += usize::from(answer.is_pending());
        until("the grant is there", || recorded.value("leases_held", &[]) == 1.0).await;
        drop((answer, call));
        scene.until_held(0).await;
        while let Some(event) = events.next_event().await {
            assert!(!matches!(event, ClientEvent::LeaseLost(_)), "{event:?}");
        }
    }
    assert!(dropped > 0);
}
