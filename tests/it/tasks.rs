//! Tasks of the client that panic. If the task of a connection panics, the client loses the connection and reports its
//! leases lost. Callers get an error that names the cause, and the client continues to work. In most of these tests a
//! metrics recorder panics, because users write recorders.

use std::future::Future;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::cluster::{ClusterScene, patient};
use crate::support::faulty::{Fault, Faulty, PANIC_TEXT};
use crate::support::pki::{Authority, HERE};
use crate::support::proxy::Proxy;
use crate::support::spans::{Spans, observe};
use crate::support::{until, until_now};
use dflockd_client::rustls::client::Resumption;
use dflockd_client::rustls::client::WebPkiServerVerifier;
use dflockd_client::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use dflockd_client::rustls::pki_types::pem::PemObject;
use dflockd_client::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use dflockd_client::rustls::{self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use dflockd_client::server::{Server, ServerTls};
use dflockd_client::{
    Client, ClientBuilder, ClientService, Enqueued, Error, ErrorKind, LeaseState, LostReason, ReconnectPolicy, Request,
    Shard, ShardHealth, SignalConn, SignalEvent, SignalOptions, Tls, blocking,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};
use tower::Service;
use tower::layer::layer_fn;
use tracing_subscriber::layer::SubscriberExt;

/// A time that only a hang exceeds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A TTL that is longer than every test, so that no lease needs a renewal.
const TTL: Duration = Duration::from_secs(600);

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come in time"))
}

async fn serve() -> Server {
    let release = Server::builder().release("1.16");
    release.port(0).start().await.unwrap()
}

/// If there are two shards, keys that start with `a` belong to the first shard, all others to the second.
fn by_first_letter(key: &str, servers: usize) -> usize {
    usize::from(!key.starts_with('a')).min(servers - 1)
}

fn builder(servers: &[&Server], recorder: &Faulty) -> ClientBuilder {
    Client::builder()
        .servers(servers.iter().map(|server| server.local_addr().to_string()))
        .sharding_strategy(by_first_letter)
        .metrics_recorder(recorder.clone())
        .lease_ttl(TTL)
        .reconnect(ReconnectPolicy::exponential(
            Duration::from_millis(5),
            Duration::from_millis(50),
        ))
}

/// Connects a client without the recorder that panics.
async fn bystander(server: &Server) -> Client {
    let servers = [server.local_addr().to_string()];
    Client::builder().servers(servers).connect().await.unwrap()
}

fn names_the_cause(error: &Error) {
    let text = error.to_string();
    assert!(text.contains("panicked") && text.contains(PANIC_TEXT), "{error:?}");
}

fn waiters(server: &Server) -> u64 {
    let stats = server.stats();
    let locks = stats.locks.iter().map(|lock| lock.waiters);
    locks
        .chain(stats.semaphores.iter().map(|semaphore| semaphore.waiters))
        .sum()
}

/// The task of a connection records the histograms of its requests, so a fault in a histogram makes this task panic.
#[tokio::test]
async fn a_panic_loses_the_connection_with_its_leases_and_disturbs_no_other_shard() {
    let (first, second) = (serve().await, serve().await);
    let recorder = Faulty::default();
    let client = builder(&[&first, &second], &recorder).connect().await.unwrap();
    let lost = client.lock("a/lock").unwrap().acquire().await.unwrap();
    let lost_slot = client.semaphore("a/slots", 1).unwrap().acquire().await.unwrap();
    let other = client.lock("b/lock").unwrap().acquire().await.unwrap();

    recorder.add(Fault::once("pipeline_depth").of_shard("0"));
    let error = soon("an answer", client.lock("a/next").unwrap().try_acquire())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
    assert!(error.is_retryable());
    assert_eq!(error.endpoint(), Some(&*first.local_addr().to_string()));
    names_the_cause(&error);
    assert_eq!(soon("the loss", lost.lost()).await, LostReason::Disconnected);
    assert_eq!(soon("the loss", lost_slot.lost()).await, LostReason::Disconnected);
    assert!(!lost.is_held() && !lost_slot.is_held() && other.is_held());

    // The server has freed the key. First another client acquires it, and then the client under test.
    let bystander = bystander(&first).await;
    let taken = soon("the key is free", bystander.lock("a/lock").unwrap().acquire())
        .await
        .unwrap();
    taken.release().await.unwrap();
    until("the client is connected again", || client.health()[0].is_connected()).await;
    let again = soon("the key is free", client.lock("a/lock").unwrap().acquire())
        .await
        .unwrap();
    let permit = soon("the slot is free", client.semaphore("a/slots", 1).unwrap().acquire())
        .await
        .unwrap();
    assert!(again.is_held() && permit.is_held() && other.is_held());
    assert_eq!(recorder.panics(), 1);
    drop((lost, lost_slot));
    assert!(client.shutdown(PATIENCE).await.unreleased.is_empty());
}

/// The server may have received the release before the panic. So the client repeats the release.
#[tokio::test]
async fn a_release_whose_connection_panicked_is_repeated() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let permit = client.semaphore("s", 1).unwrap().acquire().await.unwrap();
    recorder.add(Fault::once("batch_size"));
    let released = async { tokio::join!(guard.release(), permit.release()) };
    let (lock, semaphore) = soon("the answers", released).await;
    lock.unwrap();
    // The panic ended the connection. If the server released the permit before that, the release succeeds. Otherwise
    // the lease was lost with the connection.
    assert!(semaphore.is_ok() || semaphore.is_err_and(|error| error.kind() == ErrorKind::LeaseLost));
    assert_eq!(recorder.panics(), 1);
    until("all keys are free", || {
        let stats = server.stats();
        stats.locks.is_empty() && stats.semaphores.is_empty()
    })
    .await;
}

/// The server keeps a lease whose connection has ended, so a panic ends no lease.
#[tokio::test]
async fn leases_that_survive_a_disconnect_survive_a_panic() {
    let keeps = Server::builder().auto_release_on_disconnect(false);
    let server = keeps.port(0).start().await.unwrap();
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).survives_disconnect(true);
    let client = client.connect().await.unwrap();
    let error = survives(&client, &recorder).await.unwrap_err();
    names_the_cause(&error);

    let scene = ClusterScene::set(patient()).await;
    let recorder = Faulty::default();
    let client = scene.builder().metrics_recorder(recorder.clone()).lease_ttl(TTL);
    let client = client.connect().await.unwrap();
    // In a cluster, the connection has a session. So the client learns the result of the try after the panic.
    assert!(survives(&client, &recorder).await.unwrap(), "the key is free");
}

/// Asserts that a lease survives a panic. Returns the result of the try that was under way during the panic.
async fn survives(client: &Client, recorder: &Faulty) -> Result<bool, Error> {
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    recorder.add(Fault::once("batch_size"));
    let tried = soon("an answer", client.lock("next").unwrap().try_acquire()).await;
    assert!(guard.is_held());
    until("the lease is renewed", || guard.state() == LeaseState::Held).await;
    guard.release().await.unwrap();
    let outcome = match tried {
        Ok(Some(next)) => next.release().await.map(|()| true),
        Ok(None) => Ok(false),
        Err(error) => Err(error),
    };
    assert!(client.shutdown(PATIENCE).await.unreleased.is_empty());
    outcome
}

#[tokio::test]
async fn a_panic_loses_one_of_several_pipelined_connections() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).pipelined_connections(3);
    let client = client.connect().await.unwrap();
    until("all connections are up", || server.stats().connections == 3).await;
    let mut guards = Vec::new();
    let owners = || {
        let owners: std::collections::HashSet<_> = server.stats().locks.iter().map(|lock| lock.owner_conn_id).collect();
        owners.len()
    };
    while owners() < 2 {
        let key = format!("k{}", guards.len());
        guards.push(client.lock(key).unwrap().acquire().await.unwrap());
        assert!(guards.len() < 1_000, "one connection owns all leases");
    }
    recorder.add(Fault::once("batch_size"));
    let error = soon("an answer", client.lock("next").unwrap().try_acquire())
        .await
        .unwrap_err();
    names_the_cause(&error);
    let held = guards.iter().filter(|guard| guard.is_held()).count();
    assert!(held > 0 && client.health()[0].is_connected());
    until("all connections are up again", || server.stats().connections == 3).await;
    until("the server has the same locks", || server.stats().locks.len() == held).await;
    drop(
        soon("the key is free", client.lock("next").unwrap().acquire())
            .await
            .unwrap(),
    );
}

#[test]
fn threads_get_the_cause_of_a_panic_too() {
    let runtime = Runtime::new().unwrap();
    let (first, second) = runtime.block_on(async { (serve().await, serve().await) });
    let recorder = Faulty::default();
    let client = builder(&[&first, &second], &recorder).connect_blocking().unwrap();
    let lock = client.lock("a/lock").unwrap().acquire().unwrap();
    let permit = client.semaphore("a/slots", 1).unwrap().acquire().unwrap();
    let other = client.lock("b/lock").unwrap().acquire().unwrap();
    let (told, called_back) = std::sync::mpsc::channel();
    lock.when_lost(move |reason| told.send(reason).unwrap()).unwrap();

    recorder.add(Fault::once("batch_size").of_shard("0"));
    let error = client.lock("a/next").unwrap().try_acquire().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
    names_the_cause(&error);
    assert_eq!(permit.wait_lost(PATIENCE).unwrap(), Some(LostReason::Disconnected));
    assert_eq!(called_back.recv_timeout(PATIENCE), Ok(LostReason::Disconnected));
    assert!(!lock.is_held() && !permit.is_held() && other.is_held());
    until_now("the client is connected again", || client.health()[0].is_connected());
    client.lock("a/lock").unwrap().acquire().unwrap().release().unwrap();
    let permit = client.semaphore("a/slots", 1).unwrap().acquire().unwrap();
    permit.release().unwrap();
    other.release().unwrap();

    // A caller of the blocking client also gets the cause of a panic in the actor of a shard.
    let lock = client.lock("a/lock").unwrap().acquire().unwrap();
    let other = client.lock("b/lock").unwrap().acquire().unwrap();
    recorder.add(Fault::once("leases_held").of_shard("0"));
    let error = client.semaphore("a/slots", 1).unwrap().acquire().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ShardGone, "{error:?}");
    names_the_cause(&error);
    assert_eq!(lock.wait_lost(PATIENCE).unwrap(), Some(LostReason::ShardGone));
    assert!(other.is_held());
    until_now("the client is connected again", || client.health()[0].is_connected());
    client
        .semaphore("a/slots", 1)
        .unwrap()
        .acquire()
        .unwrap()
        .release()
        .unwrap();
}

/// A wait has a connection of its own. The client cannot know whether the server granted the wait, so it does not
/// repeat the wait.
#[tokio::test]
async fn a_wait_whose_connection_panicked_fails_with_the_cause_and_costs_nothing_else() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    let bystander = bystander(&server).await;
    let holds = bystander.lock("k").unwrap().acquire().await.unwrap();
    let slot = bystander.semaphore("s", 1).unwrap().acquire().await.unwrap();
    let kept = client.lock("kept").unwrap().acquire().await.unwrap();

    // The fault skips one batch, because the acquire begins with a try over the pipelined connection.
    recorder.add(Fault::once("batch_size").after(1));
    let wait = client.lock("k").unwrap().acquire_timeout(TTL);
    let error = soon("an answer", wait.acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
    names_the_cause(&error);
    recorder.add(Fault::once("batch_size").after(1));
    let wait = client.semaphore("s", 1).unwrap().acquire_timeout(TTL);
    let error = soon("an answer", wait.acquire()).await.unwrap_err();
    names_the_cause(&error);

    assert!(kept.is_held() && client.health()[0].is_connected());
    until("no caller waits at the server", || waiters(&server) == 0).await;
    let waiting = tokio::spawn(async move { client.lock("k").unwrap().acquire().await.map(drop) });
    until("it waits", || waiters(&server) == 1).await;
    drop((holds, slot));
    soon("the grant", waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_ticket_whose_connection_panicked_fails_with_the_cause() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    let bystander = bystander(&server).await;
    let held = bystander.lock("k").unwrap().acquire().await.unwrap();
    let lock = client.lock("k").unwrap();
    let Enqueued::Queued(ticket) = lock.enqueue().await.unwrap() else {
        panic!("the key is held");
    };
    recorder.add(Fault::once("batch_size"));
    let error = soon("an answer", ticket.wait(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
    names_the_cause(&error);
    until("no caller waits at the server", || waiters(&server) == 0).await;
    drop(held);
    drop(soon("the grant", lock.acquire()).await.unwrap());
}

/// Each request makes the task of its connection panic. Callers get the error at once, and the client opens few
/// connections.
#[tokio::test]
async fn repeated_panics_of_a_task_neither_hang_callers_nor_flood_the_server() {
    let server = serve().await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let recorder = Faulty::default();
    recorder.add(Fault::always("batch_size"));
    let client = Client::builder()
        .servers([&proxy.address])
        .metrics_recorder(recorder.clone())
        .connect()
        .await
        .unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let error = soon("an answer", client.lock("k").unwrap().acquire())
            .await
            .unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        names_the_cause(&error);
    }
    // The pauses double from 50 ms on and so allow 6 attempts in 2 s. Without pauses, there would be thousands.
    assert!(proxy.accepted() <= 12, "{} connections", proxy.accepted());
    recorder.clear();
    soon("the client works again", async {
        while client.lock("k").unwrap().acquire().await.is_err() {}
    })
    .await;
}

/// The actor of a shard records the metrics of leases and connections, so a fault in such a metric makes it panic.
#[tokio::test]
async fn an_actor_that_panics_is_replaced_and_its_holders_and_callers_get_the_cause() {
    let (first, second) = (serve().await, serve().await);
    let recorder = Faulty::default();
    let client = builder(&[&first, &second], &recorder).connect().await.unwrap();
    let lock = client.lock("a/lock").unwrap().acquire().await.unwrap();
    let permit = client.semaphore("a/slots", 1).unwrap().acquire().await.unwrap();
    let other = client.lock("b/lock").unwrap().acquire().await.unwrap();
    let bystander = bystander(&first).await;
    let held = bystander.lock("a/held").unwrap().acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = client.lock("a/held").unwrap().acquire_timeout(TTL);
        async move { lock.acquire().await.map(drop) }
    });
    until("it waits", || waiters(&first) == 1).await;
    let mut health = client.watch_health(0).unwrap();
    health.mark_unchanged();

    recorder.add(Fault::once("leases_held").of_shard("0"));
    let error = soon("an answer", client.lock("a/next").unwrap().acquire())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ShardGone, "{error:?}");
    names_the_cause(&error);
    let changed = soon("the health changes", health.wait_for(|health| !health.is_connected())).await;
    drop(changed.unwrap());
    assert_eq!(soon("the loss", lock.lost()).await, LostReason::ShardGone);
    assert_eq!(soon("the loss", permit.lost()).await, LostReason::ShardGone);
    let error = soon("an answer", waiting).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ShardGone, "{error:?}");
    names_the_cause(&error);
    assert!(other.is_held());

    until("the client is connected again", || client.health()[0].is_connected()).await;
    for key in ["a/lock", "a/next"] {
        drop(
            soon("the key is free", client.lock(key).unwrap().acquire())
                .await
                .unwrap(),
        );
    }
    let slots = client.semaphore("a/slots", 1).unwrap();
    drop(soon("the slot is free", slots.acquire()).await.unwrap());
    drop(held);
    drop(
        soon("the key is free", client.lock("a/held").unwrap().acquire())
            .await
            .unwrap(),
    );
    assert!(other.is_held());
}

/// A layer holds back the error of the actor, so the request timeout ends the call. The error of the call can say only
/// that no answer came.
#[tokio::test]
async fn an_error_claims_nothing_unknown_while_a_layer_holds_back_the_death_of_an_actor() {
    let server = serve().await;
    let recorder = Faulty::default();
    let waits_after_an_error = layer_fn(|mut inner: ClientService| {
        tower::service_fn(move |request: Request| {
            let answer = inner.call(request);
            async move {
                match answer.await {
                    Ok(answer) => Ok::<_, Error>(answer),
                    Err(_) => std::future::pending().await,
                }
            }
        })
    });
    let builder = builder(&[&server], &recorder).layer(waits_after_an_error);
    let builder = builder.request_timeout(Duration::from_millis(300));
    let client = builder.connect().await.unwrap();
    recorder.add(Fault::once("leases_held").of_shard("0"));
    let lock = client.lock("a/next").unwrap();
    let error = soon("an answer", lock.try_acquire()).await.unwrap_err();
    assert_eq!(recorder.panics(), 1);
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(error.to_string().contains("was not answered within"), "{error}");
}

/// The log line about the death of an actor is for the operator, so it does not belong to the span of a caller. The
/// test runs on one thread, so that the subscriber of this thread sees all spans and log lines.
#[tokio::test(flavor = "current_thread")]
async fn a_panic_of_an_actor_is_logged_with_its_cause_and_outside_of_callers_spans() {
    let spans = Spans::default();
    let _installed = spans.install();
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    let signals = client.subscribe("news.*").await.unwrap();
    recorder.add(Fault::once("leases_held"));
    soon("an answer", client.lock("k").unwrap().acquire())
        .await
        .unwrap_err();
    drop(signals);
    until("the client is connected again", || client.health()[0].is_connected()).await;
    let everything = spans.everything();
    let died = everything.lines().find(|line| line.contains("a shard's actor died"));
    assert!(died.is_some_and(|line| line.contains(PANIC_TEXT)), "{everything}");
    let connected = |message: &str| everything.matches(&format!("message={message} shard")).count();
    assert_eq!(
        (connected("connected"), connected("connected for signals")),
        (2, 1),
        "{everything}"
    );
    assert!(spans.foreign().is_empty(), "{:?}", spans.foreign());
}

/// The gauge always panics, so no actor can start. Dropping the gauge records a value and panics, too, but the process
/// does not end.
#[tokio::test]
async fn an_actor_that_cannot_start_is_an_error_at_connect_and_is_not_started_in_a_loop() {
    let server = serve().await;
    for gauge in ["connections", "leases_held", "shards_connected", "waiters"] {
        let recorder = Faulty::default();
        recorder.add(Fault::always(gauge).of_shard("0"));
        let began = Instant::now();
        let error = soon("an error", builder(&[&server], &recorder).connect())
            .await
            .unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        names_the_cause(&error);

        let client = builder(&[&server], &recorder).build().unwrap();
        until("an attempt has failed", || client.health()[0].last_error().is_some()).await;
        names_the_cause(client.health()[0].last_error().unwrap());
        let before = recorder.panics();
        sleep(Duration::from_secs(1)).await;
        let panics = recorder.panics() - before;
        assert!(panics <= 60, "{gauge}: {panics} panics in a second");
        let error = soon("an answer", client.lock("k").unwrap().acquire())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ShardGone, "{error:?}");
        names_the_cause(&error);
        recorder.clear();
        soon("the client works again", async {
            while client.lock("k").unwrap().acquire().await.is_err() {}
        })
        .await;
        assert!(client.shutdown(PATIENCE).await.unreleased.is_empty());
    }
}

/// After the client is dropped, nothing else can stop the restarts. So the restarts must stop by themselves.
#[tokio::test]
async fn an_actor_that_cannot_start_is_not_started_once_its_client_is_gone() {
    let server = serve().await;
    let recorder = Faulty::default();
    recorder.add(Fault::always("shards_connected"));
    let client = builder(&[&server], &recorder).build().unwrap();
    until("an attempt has failed", || client.health()[0].last_error().is_some()).await;
    let mut health = client.watch_health(0).unwrap();
    drop(client);
    let ended = soon("it ends", health.wait_for(|health| health.closed_because().is_some())).await;
    drop(ended);
    recorder.clear();
    let registered = recorder.registered();
    // The sleep is longer than the longest pause between two starts so far.
    sleep(Duration::from_secs(1)).await;
    assert_eq!((recorder.registered(), server.stats().connections), (registered, 0));
}

/// Dropping a gauge sets it to zero, which may panic. Such a panic while another panic unwinds would end the process.
#[tokio::test]
async fn gauges_that_keep_panicking_while_everything_is_dropped_do_not_end_the_process() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let signals = client.subscribe("news.*").await.unwrap();
    recorder.add(Fault::always(""));
    // The task of the caller may end with the panic of its own request.
    let caller = tokio::spawn({
        let client = client.clone();
        async move { client.lock("other").unwrap().acquire().await.map(drop) }
    });
    drop(caller.await);
    assert!(soon("the loss", guard.lost()).await.as_str().len() > 1);
    drop((guard, signals, client));
    recorder.clear();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    drop(
        soon("the key is free", client.lock("k").unwrap().acquire())
            .await
            .unwrap(),
    );
}

/// The task of the caller records the request, so a fault in the metric of requests makes this task panic.
#[tokio::test]
async fn a_recorder_that_panics_in_a_request_ends_its_caller_and_its_grant_is_released() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    recorder.add(Fault::always("request"));
    recorder.add(Fault::always("acquire_wait"));
    let caller = tokio::spawn({
        let lock = client.lock("k").unwrap();
        async move { lock.acquire().await.map(drop) }
    });
    assert!(soon("its end", caller).await.unwrap_err().is_panic());
    recorder.clear();
    until("the key is free", || server.stats().locks.is_empty()).await;
    drop(client.lock("k").unwrap().acquire().await.unwrap());
}

/// The client calls functions of users in the task of the caller. If a function panics, the client releases the grant
/// of this caller.
#[tokio::test]
async fn functions_of_users_that_panic_end_their_caller_only() {
    fn says_no(key: &str) {
        assert!(!key.contains("panic"), "{PANIC_TEXT}");
    }
    fn class(key: &str) -> &str {
        says_no(key);
        "all"
    }
    fn strategy(key: &str, shards: usize) -> usize {
        says_no(key);
        by_first_letter(key, shards)
    }
    let servers = [serve().await, serve().await];
    let settings = || builder(&[&servers[0], &servers[1]], &Faulty::default());
    let by_class = settings().key_class(class).connect().await.unwrap();
    let by_strategy = settings().sharding_strategy(strategy).connect().await.unwrap();
    for client in [by_class, by_strategy] {
        let held = client.lock("a/held").unwrap().acquire().await.unwrap();
        for key in ["a/panic", "b/panic"] {
            let lock = client.lock(key).unwrap();
            let caller = tokio::spawn(async move { lock.acquire().await.map(drop) });
            assert!(soon("its end", caller).await.unwrap_err().is_panic());
        }
        assert!(held.is_held() && client.health().iter().all(|shard| shard.is_connected()));
        let other = soon("an answer", client.lock("b/other").unwrap().acquire()).await;
        other.unwrap().release().await.unwrap();
        held.release().await.unwrap();
    }
    let threads = settings().sharding_strategy(strategy).build_blocking().unwrap();
    let work = move || {
        let held = threads.semaphore("a/held", 1).unwrap().acquire().unwrap();
        let caller = std::thread::spawn({
            let threads = threads.clone();
            move || threads.lock("a/panic").unwrap().acquire().map(drop)
        });
        assert!(caller.join().is_err());
        held.release().unwrap();
        threads.lock("b/next").unwrap().acquire().unwrap().release().unwrap();
    };
    // The work runs on a thread without a runtime.
    let worked = tokio::task::spawn_blocking(|| std::thread::spawn(work).join().is_ok());
    assert!(soon("its end", worked).await.unwrap());
    until("all keys are free", || {
        servers.iter().all(|server| server.stats().locks.is_empty())
    })
    .await;
}

/// A layer of a `tracing` subscriber that panics at the log line with this message.
#[derive(Clone, Default)]
struct PanickingLayer(Arc<Mutex<&'static str>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for PanickingLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Says(&'static str, bool);
        impl tracing::field::Visit for Says {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.1 |= field.name() == "message" && format!("{value:?}") == self.0;
            }
        }
        let line = *self.0.lock().unwrap();
        let mut says = Says(line, false);
        event.record(&mut says);
        assert!(!says.1, "{PANIC_TEXT}");
    }
}

/// A panic of the subscriber has the same effect as a panic of a recorder, with two exceptions. In a destructor, the
/// client catches the panic, because a panic in a destructor can end the process. In the actor that supervises the
/// actors of the shards, the client catches it, because this actor must continue. The test runs on one thread, so that
/// the subscriber of this thread sees all spans and log lines.
#[tokio::test(flavor = "current_thread")]
async fn a_subscriber_of_the_log_may_panic_anywhere() {
    let layer = PanickingLayer::default();
    let panic_at_line = |line| *layer.0.lock().unwrap() = line;
    let subscriber = tracing_subscriber::registry().with(layer.clone());
    let _installed = observe(subscriber);
    let server = serve().await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let recorder = Faulty::default();
    let settings = builder(&[&server], &recorder).servers([&proxy.address]);
    let client = settings.connect().await.unwrap();
    for line in ["leases lost", "not connected", "connected", "lease lost"] {
        let guard = client.lock("k").unwrap().acquire().await.unwrap();
        panic_at_line(line);
        proxy.cut();
        soon("the loss", guard.lost()).await;
        let mut health = client.watch_health(0).unwrap();
        let died = |health: &ShardHealth| {
            let cause = health.last_error().filter(|error| error.kind() == ErrorKind::ShardGone);
            cause.is_some_and(|cause| cause.to_string().contains(PANIC_TEXT))
        };
        drop(soon("the death", health.wait_for(died)).await.unwrap());
        panic_at_line("");
        until("the client is connected again", || client.health()[0].is_connected()).await;
    }
    panic_at_line("a shard's actor died: another takes its place");
    recorder.add(Fault::once("leases_held"));
    soon("an answer", client.lock("k").unwrap().acquire())
        .await
        .unwrap_err();
    until("the client is connected again", || client.health()[0].is_connected()).await;
    drop(
        soon("the key is free", client.lock("k").unwrap().acquire())
            .await
            .unwrap(),
    );
}

#[tokio::test]
async fn a_recorder_that_cannot_be_used_at_all_is_an_error_when_the_client_is_built() {
    let server = serve().await;
    for metric in ["describe", "build_info"] {
        let recorder = Faulty::default();
        recorder.add(Fault::always(metric));
        let error = builder(&[&server], &recorder).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains("metrics recorder"), "{error}");
        names_the_cause(&error);
    }
    assert_eq!(server.stats().connections, 0, "the client has not started");
}

/// Asserts that the signal connection reports the beginning and the end of a gap.
async fn loses_and_regains(heard: &mut SignalConn) {
    let cause = loop {
        match soon("an event", heard.next_event())
            .await
            .expect("the stream continues")
        {
            SignalEvent::Lost { shard: 0, cause, .. } => break cause,
            SignalEvent::Signal(_) => {}
            other => panic!("{other:?}"),
        }
    };
    names_the_cause(&cause);
    let restored = soon("an event", heard.next_event()).await;
    assert!(
        matches!(restored, Some(SignalEvent::Restored { shard: 0, .. })),
        "{restored:?}"
    );
    assert_eq!(soon("an answer", heard.emit("news.a", "heard")).await.unwrap(), 1);
    let signal = soon("a signal", heard.next_signal()).await.unwrap();
    assert_eq!(signal.payload(), "heard");
}

/// The task of a signal connection counts signals, and its actor counts subscriptions.
#[tokio::test]
async fn a_signal_connection_that_panics_reports_the_gap_and_is_restored() {
    let server = serve().await;
    let recorder = Faulty::default();
    let settings = builder(&[&server], &recorder);
    let mut heard = SignalConn::open(settings, SignalOptions::default()).await.unwrap();
    heard.listen("news.*", None).await.unwrap();
    recorder.add(Fault::once("signals_received"));
    // The answer may arrive before the panic, so the emit may succeed or fail.
    drop(soon("an answer", heard.emit("news.a", "lost")).await);
    loses_and_regains(&mut heard).await;
    recorder.add(Fault::once("signal_subscriptions"));
    heard.listen("other.*", None).await.unwrap();
    loses_and_regains(&mut heard).await;
    assert_eq!(recorder.panics(), 2);
    until("it listens", || server.stats().signal_channels.len() == 2).await;
}

#[test]
fn threads_get_the_gap_too() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(serve());
    let recorder = Faulty::default();
    let settings = builder(&[&server], &recorder);
    let mut heard = blocking::SignalConn::open(settings, SignalOptions::default()).unwrap();
    heard.listen("news.*", None).unwrap();
    recorder.add(Fault::once("signals_received"));
    drop(heard.emit("news.a", "lost"));
    let lost = loop {
        match heard.next_event().unwrap() {
            Some(SignalEvent::Signal(_)) => {}
            other => break other,
        }
    };
    let Some(SignalEvent::Lost { cause, .. }) = lost else {
        panic!("{lost:?}");
    };
    names_the_cause(&cause);
    let restored = heard.next_event().unwrap();
    assert!(matches!(restored, Some(SignalEvent::Restored { .. })), "{restored:?}");
}

#[tokio::test]
async fn a_signal_connection_that_keeps_panicking_ends_with_the_cause() {
    let server = serve().await;
    let recorder = Faulty::default();
    let settings = || builder(&[&server], &recorder);
    let mut heard = SignalConn::open(settings(), SignalOptions::default()).await.unwrap();
    for metric in ["signal_subscriptions", "connections", "disconnects"] {
        recorder.add(Fault::always(metric));
    }
    // The caller gets the answer before the actor counts the subscription and panics.
    soon("an answer", heard.listen("news.*", None)).await.unwrap();
    assert!(soon("the end", heard.next_event()).await.is_none());
    let why = heard.closed_because().unwrap();
    names_the_cause(&why);
    assert!(why.is_fatal(), "{why:?}");
    names_the_cause(heard.health()[0].closed_because().unwrap());
    names_the_cause(&soon("an answer", heard.emit("news.a", "x")).await.unwrap_err());

    let error = soon("an error", SignalConn::open(settings(), SignalOptions::default()))
        .await
        .unwrap_err();
    names_the_cause(&error);
}

/// Every signal makes the task of the connection panic. The client reconnects after pauses, as it does with a server
/// that accepts connections and closes them.
#[tokio::test]
async fn a_signal_connection_that_always_panics_does_not_flood_the_server() {
    let server = serve().await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let recorder = Faulty::default();
    let settings = Client::builder()
        .servers([&proxy.address])
        .metrics_recorder(recorder.clone());
    let heard = SignalConn::open(settings, SignalOptions::default()).await.unwrap();
    heard.listen("news.*", None).await.unwrap();
    let publisher = SignalConn::connect(server.local_addr().to_string()).await.unwrap();
    recorder.add(Fault::always("signals_received"));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        publisher.emit("news.a", "x").await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    assert!(
        recorder.panics() >= 2,
        "the connection was restored and received more signals"
    );
    assert!(proxy.accepted() <= 12, "{} connections", proxy.accepted());
}

#[tokio::test]
async fn the_emitting_connection_is_replaced_after_a_panic() {
    let server = serve().await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder)
        .servers([&proxy.address])
        .connect()
        .await
        .unwrap();
    assert_eq!(client.emit("news.a", "x").await.unwrap(), 0);
    recorder.add(Fault::once("disconnects"));
    recorder.add(Fault::once("disconnects"));
    recorder.add(Fault::always("disconnects"));
    proxy.cut();
    until("the shard and the signals have died", || recorder.panics() >= 3).await;
    recorder.clear();
    soon("the client works again", async {
        while client.emit("news.a", "x").await.is_err() {}
    })
    .await;
}

/// A verifier of server certificates that panics. Users write verifiers, for example to accept one certificate only.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    spared: AtomicUsize,
    panics: AtomicUsize,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let take_one = |left: usize| left.checked_sub(1);
        if self.spared.fetch_update(SeqCst, SeqCst, take_one).is_err() {
            assert!(
                self.panics.fetch_update(SeqCst, SeqCst, take_one).is_err(),
                "{PANIC_TEXT}"
            );
        }
        self.inner
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Returns TLS options whose verifier accepts the next `spared` connections and then panics `panics` times.
fn verified(authority: &Authority, spared: usize, panics: usize) -> (Tls, Arc<Verifier>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
        .unwrap();
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = Arc::new(Verifier {
        inner: inner.build().unwrap(),
        spared: AtomicUsize::new(spared),
        panics: AtomicUsize::new(panics),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    // Without resumption, the verifier is called for every connection.
    config.resumption = Resumption::disabled();
    (Tls::config(Arc::new(config)), verifier)
}

#[tokio::test]
async fn an_attempt_to_connect_that_panics_fails() {
    let authority = Authority::new("ours");
    let server = crate::support::pki::serve(Server::builder().release("1.16"), &authority.issue(HERE)).await;
    let (tls, verifier) = verified(&authority, 0, usize::MAX);
    let recorder = Faulty::default();
    let settings = |tls: &Tls| builder(&[&server], &recorder).tls(tls.clone());
    let error = soon("an error", settings(&tls).connect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error:?}");
    assert_eq!(error.endpoint(), Some(&*server.local_addr().to_string()));
    names_the_cause(&error);
    let error = soon("an error", SignalConn::open(settings(&tls), SignalOptions::default()))
        .await
        .unwrap_err();
    names_the_cause(&error);

    // The client makes more attempts in the background. When a caller times out, its error names the cause.
    let client = settings(&tls)
        .request_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let error = soon("an error", client.lock("k").unwrap().try_acquire())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    names_the_cause(&error);
    verifier.panics.store(0, SeqCst);
    soon("the client works again", async {
        while client.lock("k").unwrap().acquire().await.is_err() {}
    })
    .await;
}

/// The pipelined connection succeeds. The first attempts to connect for a wait, for `stats` and for signals panic.
#[tokio::test]
async fn callers_whose_attempt_to_connect_panicked_are_served_by_the_next_attempt() {
    let authority = Authority::new("ours");
    let server = crate::support::pki::serve(Server::builder().release("1.16"), &authority.issue(HERE)).await;
    let recorder = Faulty::default();
    let (tls, verifier) = verified(&authority, 1, 3);
    let client = builder(&[&server], &recorder).tls(tls).connect().await.unwrap();
    let held = client.lock("k").unwrap().acquire().await.unwrap();
    let slot = client.semaphore("s", 1).unwrap().acquire().await.unwrap();
    let waiting = tokio::spawn({
        let (lock, slots) = (client.lock("k").unwrap(), client.semaphore("s", 1).unwrap());
        async move { tokio::try_join!(lock.acquire(), slots.acquire()).map(drop) }
    });
    until("both wait", || waiters(&server) == 2).await;
    assert_eq!(verifier.panics.load(SeqCst), 0);
    held.release().await.unwrap();
    slot.release().await.unwrap();
    soon("the grants", waiting).await.unwrap().unwrap();

    verifier.panics.store(1, SeqCst);
    names_the_cause(&soon("an answer", client.stats()).await.unwrap_err());
    soon("an answer", client.stats()).await.unwrap();
    verifier.panics.store(1, SeqCst);
    assert_eq!(soon("an answer", client.emit("news.a", "x")).await.unwrap(), 0);
}

/// A separate task of the client tries to connect to the first server.
#[tokio::test]
async fn a_failback_whose_attempt_panics_is_an_error() {
    let authority = Authority::new("ours");
    let identity = authority.issue(HERE);
    let serve = |port| {
        let tls = ServerTls::pem(&*identity.certificate, &*identity.key).config().unwrap();
        Server::builder().port(port).tls(tls).start()
    };
    let (first, second) = (serve(0).await.unwrap(), serve(0).await.unwrap());
    let (tls, verifier) = verified(&authority, usize::MAX, 0);
    let addresses = [first.local_addr().to_string(), second.local_addr().to_string()];
    let shard = Shard::standby(addresses).takeover_delay(Duration::from_millis(100));
    let client = Client::builder().shards([shard]).tls(tls).connect().await.unwrap();
    let port = first.local_addr().port();
    first.kill().await;
    until("the second serves", || {
        client.health()[0].failovers == 1 && client.health()[0].is_connected()
    })
    .await;
    let _first = loop {
        match serve(port).await {
            Ok(server) => break server,
            // The old server may hold the port for a moment.
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    };
    verifier.panics.store(1, SeqCst);
    verifier.spared.store(0, SeqCst);
    let error = soon("an answer", client.failback(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error:?}");
    names_the_cause(&error);
    soon("an answer", client.failback(0)).await.unwrap();
}

/// The error names the method of the runtime's builder that is missing, such as `enable_time`.
#[test]
fn a_runtime_without_timers_or_sockets_is_refused_when_the_client_is_built() {
    let address = "127.0.0.1:6388".to_owned();
    for (runtime, missing) in [
        (
            Builder::new_current_thread().enable_io().build().unwrap(),
            "enable_time",
        ),
        (
            Builder::new_current_thread().enable_time().build().unwrap(),
            "enable_io",
        ),
        (Builder::new_current_thread().build().unwrap(), "enable_all"),
        (
            Builder::new_multi_thread().worker_threads(1).build().unwrap(),
            "enable_all",
        ),
    ] {
        let build = || {
            let client = Client::builder().servers([&address]).build().err();
            let signals = SignalConn::open(Client::builder().servers([&address]), SignalOptions::default());
            (client, signals)
        };
        let (client, signals) = runtime.block_on(async {
            let (client, signals) = build();
            (client, signals.await.err())
        });
        for error in [client, signals] {
            let error = error.expect("the client cannot be built");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
            assert!(error.to_string().contains(missing), "{missing}: {error}");
        }
    }
    // The blocking client has a runtime of its own.
    let built = blocking::Client::builder().servers([&address]).build_blocking();
    assert!(built.is_ok());
}
