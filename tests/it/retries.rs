//! Requests that a retry policy repeats, in a client and in a tower layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::fake::FakeServer;
use crate::support::until;
use dflockd_client::server::{Server, ServerBuilder};
use dflockd_client::{Client, ClientBuilder, ClientService, ErrorKind, Request, Response, RetryPolicy, blocking};
use tower::layer::layer_fn;
use tower::retry::RetryLayer;
use tower::{ServiceBuilder, ServiceExt};

const LONG: Duration = Duration::from_secs(60);
const TOKEN: &str = "00000000000000070123456789abcdef";

fn often() -> RetryPolicy {
    let (first, longest) = (Duration::from_millis(5), Duration::from_millis(20));
    RetryPolicy::default().max_attempts(u32::MAX).pauses(first, longest)
}

/// A server that stores one key at a time and forgets a free key after 20 ms.
fn one_key() -> ServerBuilder {
    let builder = Server::builder().port(0).max_locks(1);
    builder
        .gc_interval(Duration::from_millis(5))
        .gc_max_idle(Duration::from_millis(20))
}

async fn start() -> (Server, ClientBuilder) {
    let server = one_key().start().await.unwrap();
    let builder = Client::builder()
        .servers([server.local_addr().to_string()])
        .acquire_timeout(LONG);
    (server, builder)
}

/// Adds a layer that counts the requests of the client.
fn counted(builder: ClientBuilder) -> (ClientBuilder, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let layer = layer_fn(move |inner: ClientService| {
        let counter = Arc::clone(&counter);
        inner.map_request(move |request: Request| {
            counter.fetch_add(1, Ordering::SeqCst);
            request
        })
    });
    (builder.layer(layer), count)
}

#[tokio::test]
async fn a_client_with_a_policy_repeats_retryable_requests() {
    let (server, builder) = start().await;
    let plain = builder.clone().connect().await.unwrap();
    let (builder, count) = counted(builder.retry(often()));
    let client = builder.connect().await.unwrap();
    let held = client.lock("first").unwrap().acquire().await.unwrap();
    assert_eq!(
        plain.lock("second").unwrap().acquire().await.unwrap_err().kind(),
        ErrorKind::MaxLocks
    );
    let second = client.lock("second").unwrap();
    let waiting = tokio::spawn(async move { second.acquire().await });
    until("several attempts were made", || count.load(Ordering::SeqCst) > 3).await;
    assert!(!waiting.is_finished());
    held.release().await.unwrap();
    waiting.await.unwrap().unwrap().release().await.unwrap();
    // The blocking client also repeats requests. Here it repeats a try.
    let threads = blocking::Client::from(client.clone());
    let third = tokio::task::spawn_blocking(move || {
        blocking::allow_in_runtime(|| threads.lock("third").unwrap().try_acquire().unwrap().unwrap().release())
    });
    third.await.unwrap().unwrap();
    // The client does not repeat a request after a fatal error.
    let before = count.load(Ordering::SeqCst);
    assert_eq!(client.shard_stats(7).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(count.load(Ordering::SeqCst), before + 1);
    until("all keys are free", || server.stats().locks.is_empty()).await;
}

#[tokio::test]
async fn the_acquire_timeout_covers_all_attempts_together() {
    let (_server, builder) = start().await;
    let (builder, count) = counted(builder.retry(often()));
    let client = builder.connect().await.unwrap();
    let _held = client.lock("first").unwrap().acquire().await.unwrap();
    let timeout = Duration::from_millis(300);
    let second = client.lock("second").unwrap().acquire_timeout(timeout);
    let began = std::time::Instant::now();
    let error = second.acquire().await.unwrap_err();
    // The caller gets the last answer of the server, because there was no time for another attempt.
    assert_eq!(error.kind(), ErrorKind::MaxLocks);
    assert!(count.load(Ordering::SeqCst) > 3 && began.elapsed() < LONG);
    // An acquire of a held key waits for its whole timeout in one attempt.
    let first = client.lock("first").unwrap().acquire_timeout(timeout);
    let before = count.load(Ordering::SeqCst);
    let error = first.acquire().await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(count.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn the_policy_works_in_towers_retry_layer() {
    let (_server, builder) = start().await;
    // The policy is in a layer of the client.
    let (builder, count) = counted(builder.layer(RetryLayer::new(often())));
    let client = builder.connect().await.unwrap();
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
    assert!(count.load(Ordering::SeqCst) > 4);
    // The policy is in a layer around the client.
    let (_server, builder) = start().await;
    let client = builder.connect().await.unwrap();
    let held = client.lock("first").unwrap().acquire().await.unwrap();
    let service = ServiceBuilder::new().layer(RetryLayer::new(often())).service(client);
    let releasing = tokio::spawn(held.release());
    let key = dflockd_client::Key::new("second").unwrap();
    let wanted = dflockd_client::AcquireRequest::new(dflockd_client::Target::Lock, key).acquire_timeout(LONG);
    let answer = service.oneshot(Request::Acquire(wanted)).await.unwrap();
    assert!(matches!(answer, Response::Granted(_)));
    releasing.await.unwrap().unwrap();
}

/// Starts a server that resets the connection of the first acquire. The client cannot know whether the server granted
/// the lock.
async fn cuts_the_first() -> (FakeServer, Arc<AtomicUsize>) {
    let acquires = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&acquires);
    let server = FakeServer::start(move |mut connection, _| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some([command, ..]) = connection.request().await {
                match command.as_str() {
                    "l" | "sl" if seen.fetch_add(1, Ordering::SeqCst) == 0 => return connection.reset(),
                    "l" | "sl" => connection.say(&format!("ok {TOKEN} 33\n")).await,
                    _ => connection.say("ok\n").await,
                }
            }
        }
    });
    (server.await, acquires)
}

#[tokio::test]
async fn an_acquire_of_unknown_fate_is_repeated_for_a_lock_and_not_for_a_slot() {
    for is_lock in [true, false] {
        let (server, acquires) = cuts_the_first().await;
        let builder = Client::builder().servers([server.address.clone()]).retry(often());
        let client = builder.connect().await.unwrap();
        match is_lock {
            true => client
                .lock("k")
                .unwrap()
                .acquire()
                .await
                .unwrap()
                .release()
                .await
                .unwrap(),
            false => {
                let error = client.semaphore("k", 3).unwrap().acquire().await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Disconnected);
            }
        }
        assert_eq!(acquires.load(Ordering::SeqCst), if is_lock { 2 } else { 1 });
    }
}

/// The test drops the request in a pause or during an attempt. No lease remains, and no further attempt follows.
#[tokio::test]
async fn a_dropped_request_is_not_repeated() {
    let (server, builder) = start().await;
    let (builder, count) = counted(builder.retry(often()));
    let client = builder.connect().await.unwrap();
    let held = client.lock("first").unwrap().acquire().await.unwrap();
    for attempts in 1..10 {
        let second = client.lock("second").unwrap();
        let before = count.load(Ordering::SeqCst);
        let waiting = tokio::spawn(async move { second.acquire().await.map(drop) });
        until("this many attempts were made", || {
            count.load(Ordering::SeqCst) >= before + attempts
        })
        .await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
    }
    let asked = count.load(Ordering::SeqCst);
    held.release().await.unwrap();
    until("all keys are free", || {
        let stats = server.stats();
        stats.locks.is_empty() && stats.idle_locks.is_empty()
    })
    .await;
    assert_eq!(
        count.load(Ordering::SeqCst),
        asked + 1,
        "only the release was sent since"
    );
}
