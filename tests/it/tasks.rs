//! A task that dies is a connection lost: whatever panics in it (here as a rule a recorder of metrics, which users write), its leases
//! are reported lost, its callers get an error that names the cause, and the client goes on.

use std::future::Future;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::cluster::{ClusterScene, patient};
use crate::support::faulty::{Fault, Faulty, SAID};
use crate::support::pki::{Authority, HERE};
use crate::support::proxy::Proxy;
use crate::support::spans::Spans;
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

/// Nothing here takes so long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A lease that nobody renews outlives every test.
const TTL: Duration = Duration::from_secs(600);

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("in vain: {what}"))
}

async fn serve() -> Server {
    let release = Server::builder().release("1.16");
    release.port(0).start().await.unwrap()
}

/// Keys that start with `a` belong to the first shard, all others to the second.
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

/// A client that is well.
async fn bystander(server: &Server) -> Client {
    let servers = [server.local_addr().to_string()];
    Client::builder().servers(servers).connect().await.unwrap()
}

fn names_the_cause(error: &Error) {
    let text = error.to_string();
    assert!(text.contains("panicked") && text.contains(SAID), "{error:?}");
}

fn waiters(server: &Server) -> u64 {
    let stats = server.stats();
    let locks = stats.locks.iter().map(|lock| lock.waiters);
    locks
        .chain(stats.semaphores.iter().map(|semaphore| semaphore.waiters))
        .sum()
}

/// The histograms of a connection's requests are recorded by its task.
#[tokio::test]
async fn a_connection_whose_task_panics_is_lost_with_its_leases_and_no_other_shard_notices() {
    let (first, second) = (serve().await, serve().await);
    let recorder = Faulty::default();
    let client = builder(&[&first, &second], &recorder).connect().await.unwrap();
    let lost = client.lock("a/lock").unwrap().acquire().await.unwrap();
    let lost_slot = client.semaphore("a/slots", 1).unwrap().acquire().await.unwrap();
    let other = client.lock("b/lock").unwrap().acquire().await.unwrap();

    recorder.has(Fault::once("pipeline_depth").of_shard("0"));
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

    // What the server gave to others meanwhile, nobody else holds.
    let bystander = bystander(&first).await;
    let taken = soon("it is free", bystander.lock("a/lock").unwrap().acquire())
        .await
        .unwrap();
    taken.release().await.unwrap();
    until("it is connected again", || client.health()[0].is_connected()).await;
    let again = soon("it is free", client.lock("a/lock").unwrap().acquire())
        .await
        .unwrap();
    let permit = soon("it is free", client.semaphore("a/slots", 1).unwrap().acquire())
        .await
        .unwrap();
    assert!(again.is_held() && permit.is_held() && other.is_held());
    assert_eq!(recorder.panics(), 1);
    drop((lost, lost_slot));
    assert!(client.shutdown(PATIENCE).await.unreleased.is_empty());
}

/// A release that was taken up may have arrived: it is repeated, and then it counts as done.
#[tokio::test]
async fn a_release_whose_connection_panics_is_repeated() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let permit = client.semaphore("s", 1).unwrap().acquire().await.unwrap();
    recorder.has(Fault::once("batch_size"));
    let released = async { tokio::join!(guard.release(), permit.release()) };
    let (lock, semaphore) = soon("the answers", released).await;
    lock.unwrap();
    // It is held as long as its connection: lost, or given back before.
    assert!(semaphore.is_ok() || semaphore.is_err_and(|error| error.kind() == ErrorKind::LeaseLost));
    assert_eq!(recorder.panics(), 1);
    until("nothing is held", || {
        let stats = server.stats();
        stats.locks.is_empty() && stats.semaphores.is_empty()
    })
    .await;
}

/// Where leases outlive their connections, one that panics costs none of them.
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
    // A cluster tells under the name of the connection what became of the try.
    assert!(survives(&client, &recorder).await.unwrap(), "the key is free");
}

/// A lease survives a panic. Returns what the try brought that was under way.
async fn survives(client: &Client, recorder: &Faulty) -> Result<bool, Error> {
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    recorder.has(Fault::once("batch_size"));
    let tried = soon("an answer", client.lock("next").unwrap().try_acquire()).await;
    assert!(guard.is_held());
    until("it is renewed", || guard.state() == LeaseState::Held).await;
    guard.release().await.unwrap();
    let outcome = match tried {
        Ok(Some(next)) => next.release().await.map(|()| true),
        Ok(None) => Ok(false),
        Err(error) => Err(error),
    };
    assert!(client.shutdown(PATIENCE).await.unreleased.is_empty());
    outcome
}

/// Of several connections one alone is lost.
#[tokio::test]
async fn one_of_several_pipelined_connections_panics() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).pipelined_connections(3);
    let client = client.connect().await.unwrap();
    until("all are there", || server.stats().connections == 3).await;
    let mut guards = Vec::new();
    let owners = || {
        let owners: std::collections::HashSet<_> = server.stats().locks.iter().map(|lock| lock.owner_conn_id).collect();
        owners.len()
    };
    while owners() < 2 {
        let key = format!("k{}", guards.len());
        guards.push(client.lock(key).unwrap().acquire().await.unwrap());
        assert!(guards.len() < 1_000, "one connection has all");
    }
    recorder.has(Fault::once("batch_size"));
    let error = soon("an answer", client.lock("next").unwrap().try_acquire())
        .await
        .unwrap_err();
    names_the_cause(&error);
    let held = guards.iter().filter(|guard| guard.is_held()).count();
    assert!(held > 0 && client.health()[0].is_connected());
    until("all are there again", || server.stats().connections == 3).await;
    until("the server knows the same", || server.stats().locks.len() == held).await;
    drop(
        soon("it is free", client.lock("next").unwrap().acquire())
            .await
            .unwrap(),
    );
}

#[test]
fn threads_are_told_as_tasks_are() {
    let runtime = Runtime::new().unwrap();
    let (first, second) = runtime.block_on(async { (serve().await, serve().await) });
    let recorder = Faulty::default();
    let client = builder(&[&first, &second], &recorder).connect_blocking().unwrap();
    let lock = client.lock("a/lock").unwrap().acquire().unwrap();
    let permit = client.semaphore("a/slots", 1).unwrap().acquire().unwrap();
    let other = client.lock("b/lock").unwrap().acquire().unwrap();
    let (told, called_back) = std::sync::mpsc::channel();
    lock.when_lost(move |reason| told.send(reason).unwrap()).unwrap();

    recorder.has(Fault::once("batch_size").of_shard("0"));
    let error = client.lock("a/next").unwrap().try_acquire().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
    names_the_cause(&error);
    assert_eq!(permit.wait_lost(PATIENCE).unwrap(), Some(LostReason::Disconnected));
    assert_eq!(called_back.recv_timeout(PATIENCE), Ok(LostReason::Disconnected));
    assert!(!lock.is_held() && !permit.is_held() && other.is_held());
    until_now("it is connected again", || client.health()[0].is_connected());
    client.lock("a/lock").unwrap().acquire().unwrap().release().unwrap();
    let permit = client.semaphore("a/slots", 1).unwrap().acquire().unwrap();
    permit.release().unwrap();
    other.release().unwrap();

    // The same for the actor.
    let lock = client.lock("a/lock").unwrap().acquire().unwrap();
    let other = client.lock("b/lock").unwrap().acquire().unwrap();
    recorder.has(Fault::once("leases_held").of_shard("0"));
    let error = client.semaphore("a/slots", 1).unwrap().acquire().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ShardGone, "{error:?}");
    names_the_cause(&error);
    assert_eq!(lock.wait_lost(PATIENCE).unwrap(), Some(LostReason::ShardGone));
    assert!(other.is_held());
    until_now("it is connected again", || client.health()[0].is_connected());
    client
        .semaphore("a/slots", 1)
        .unwrap()
        .acquire()
        .unwrap()
        .release()
        .unwrap();
}

/// A wait goes over a connection of its own, and what becomes of a wait that was taken up there nobody knows: it is not made twice.
#[tokio::test]
async fn a_wait_whose_connection_panics_ends_with_the_cause_and_costs_nothing_else() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    let bystander = bystander(&server).await;
    let holds = bystander.lock("k").unwrap().acquire().await.unwrap();
    let slot = bystander.semaphore("s", 1).unwrap().acquire().await.unwrap();
    let kept = client.lock("kept").unwrap().acquire().await.unwrap();

    // First it tries, over the pipelined connection.
    recorder.has(Fault::once("batch_size").after(1));
    let wait = client.lock("k").unwrap().acquire_timeout(TTL);
    let error = soon("an answer", wait.acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
    names_the_cause(&error);
    recorder.has(Fault::once("batch_size").after(1));
    let wait = client.semaphore("s", 1).unwrap().acquire_timeout(TTL);
    let error = soon("an answer", wait.acquire()).await.unwrap_err();
    names_the_cause(&error);

    assert!(kept.is_held() && client.health()[0].is_connected());
    until("nobody waits at the server", || waiters(&server) == 0).await;
    let waiting = tokio::spawn(async move { client.lock("k").unwrap().acquire().await.map(drop) });
    until("it waits", || waiters(&server) == 1).await;
    drop((holds, slot));
    soon("the grant", waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_ticket_whose_connection_panics_is_told_the_cause() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    let bystander = bystander(&server).await;
    let held = bystander.lock("k").unwrap().acquire().await.unwrap();
    let lock = client.lock("k").unwrap();
    let Enqueued::Queued(ticket) = lock.enqueue().await.unwrap() else {
        panic!("it is held");
    };
    recorder.has(Fault::once("batch_size"));
    let error = soon("an answer", ticket.wait(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
    names_the_cause(&error);
    until("nobody waits at the server", || waiters(&server) == 0).await;
    drop(held);
    drop(soon("the grant", lock.acquire()).await.unwrap());
}

/// Each request costs its connection. That is told at once, and the server is not stormed.
#[tokio::test]
async fn a_task_that_panics_again_and_again_neither_hangs_nor_storms() {
    let server = serve().await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let recorder = Faulty::default();
    recorder.has(Fault::always("batch_size"));
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
    // With pauses that double from 50 ms on, 6 fit into 2 s; without, thousands would.
    assert!(proxy.accepted() <= 12, "{} connections", proxy.accepted());
    recorder.is_mended();
    soon("it goes on", async {
        while client.lock("k").unwrap().acquire().await.is_err() {}
    })
    .await;
}

/// What is measured of leases and connections is recorded by the shard's actor.
#[tokio::test]
async fn an_actor_that_panics_is_replaced_its_holders_and_callers_are_told_and_no_other_shard_notices() {
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

    recorder.has(Fault::once("leases_held").of_shard("0"));
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

    until("it is connected again", || client.health()[0].is_connected()).await;
    for key in ["a/lock", "a/next"] {
        drop(soon("it is free", client.lock(key).unwrap().acquire()).await.unwrap());
    }
    let slots = client.semaphore("a/slots", 1).unwrap();
    drop(soon("it is free", slots.acquire()).await.unwrap());
    drop(held);
    drop(
        soon("it is free", client.lock("a/held").unwrap().acquire())
            .await
            .unwrap(),
    );
    assert!(other.is_held());
}

/// A layer that waits before it tries again: nothing is known of the server then.
#[tokio::test]
async fn of_a_try_whose_actor_died_nothing_is_said_that_is_not_known_while_a_layer_has_it() {
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
    recorder.has(Fault::once("leases_held").of_shard("0"));
    let lock = client.lock("a/next").unwrap();
    let error = soon("an answer", lock.try_acquire()).await.unwrap_err();
    assert_eq!(recorder.panics(), 1);
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(error.to_string().contains("was not answered within"), "{error}");
}

/// The death of an actor is an operator's business, and the span in which a library runs it is not. On one thread, so that a
/// subscriber of this thread sees all.
#[tokio::test(flavor = "current_thread")]
async fn an_actor_that_panics_is_logged_with_the_cause_and_in_no_span_of_others() {
    let spans = Spans::default();
    let _installed = spans.install();
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    let signals = client.subscribe("news.*").await.unwrap();
    recorder.has(Fault::once("leases_held"));
    soon("an answer", client.lock("k").unwrap().acquire())
        .await
        .unwrap_err();
    drop(signals);
    until("it is connected again", || client.health()[0].is_connected()).await;
    let everything = spans.everything();
    let died = everything.lines().find(|line| line.contains("a shard's actor died"));
    assert!(died.is_some_and(|line| line.contains(SAID)), "{everything}");
    let connected = |message: &str| everything.matches(&format!("message={message} shard")).count();
    assert_eq!(
        (connected("connected"), connected("connected for signals")),
        (2, 1),
        "{everything}"
    );
    assert!(spans.foreign().is_empty(), "{:?}", spans.foreign());
}

/// A gauge that never works: no actor can start, whatever is dropped records once more, and nothing of that ends the process.
#[tokio::test]
async fn an_actor_that_cannot_start_is_an_error_at_connect_and_is_not_started_in_a_loop() {
    let server = serve().await;
    for gauge in ["connections", "leases_held", "shards_connected", "waiters"] {
        let recorder = Faulty::default();
        recorder.has(Fault::always(gauge).of_shard("0"));
        let began = Instant::now();
        let error = soon("an error", builder(&[&server], &recorder).connect())
            .await
            .unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        names_the_cause(&error);

        let client = builder(&[&server], &recorder).build().unwrap();
        until("it has failed", || client.health()[0].last_error().is_some()).await;
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
        recorder.is_mended();
        soon("it goes on", async {
            while client.lock("k").unwrap().acquire().await.is_err() {}
        })
        .await;
        assert!(client.shutdown(PATIENCE).await.unreleased.is_empty());
    }
}

/// Nobody is left to shut it down once its client is dropped.
#[tokio::test]
async fn an_actor_that_cannot_start_is_not_started_once_its_client_is_gone() {
    let server = serve().await;
    let recorder = Faulty::default();
    recorder.has(Fault::always("shards_connected"));
    let client = builder(&[&server], &recorder).build().unwrap();
    until("it has failed", || client.health()[0].last_error().is_some()).await;
    let mut health = client.watch_health(0).unwrap();
    drop(client);
    let ended = soon("it ends", health.wait_for(|health| health.closed_because().is_some())).await;
    drop(ended);
    recorder.is_mended();
    let registered = recorder.registered();
    // Longer than the longest pause that it had got to.
    sleep(Duration::from_secs(1)).await;
    assert_eq!((recorder.registered(), server.stats().connections), (registered, 0));
}

/// Dropping what shows a level shows zero: a panic there, while another panic unwinds, would end the process.
#[tokio::test]
async fn gauges_that_keep_panicking_while_everything_is_dropped_do_not_end_the_process() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let signals = client.subscribe("news.*").await.unwrap();
    recorder.has(Fault::always(""));
    // Its own panic is the caller's; all others stay where they are.
    let caller = tokio::spawn({
        let client = client.clone();
        async move { client.lock("other").unwrap().acquire().await.map(drop) }
    });
    drop(caller.await);
    assert!(soon("the loss", guard.lost()).await.as_str().len() > 1);
    drop((guard, signals, client));
    recorder.is_mended();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    drop(soon("it is free", client.lock("k").unwrap().acquire()).await.unwrap());
}

/// Requests are measured in the task of their caller, at their end, and when they are dropped before that.
#[tokio::test]
async fn a_recorder_that_panics_in_a_request_ends_its_caller_and_gives_back_what_it_got() {
    let server = serve().await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder).connect().await.unwrap();
    recorder.has(Fault::always("request"));
    recorder.has(Fault::always("acquire_wait"));
    let caller = tokio::spawn({
        let lock = client.lock("k").unwrap();
        async move { lock.acquire().await.map(drop) }
    });
    assert!(soon("its end", caller).await.unwrap_err().is_panic());
    recorder.is_mended();
    until("it was given back", || server.stats().locks.is_empty()).await;
    drop(client.lock("k").unwrap().acquire().await.unwrap());
}

/// They run in their caller's task, and what the caller had is given back.
#[tokio::test]
async fn functions_of_users_that_panic_end_their_caller_alone() {
    fn says_no(key: &str) {
        assert!(!key.contains("panic"), "{SAID}");
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
    // A thread that knows of no runtime.
    let worked = tokio::task::spawn_blocking(|| std::thread::spawn(work).join().is_ok());
    assert!(soon("its end", worked).await.unwrap());
    until("nothing is held", || {
        servers.iter().all(|server| server.stats().locks.is_empty())
    })
    .await;
}

/// Panics at the event that it is told.
#[derive(Clone, Default)]
struct Unwilling(Arc<Mutex<&'static str>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Unwilling {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Says(&'static str, bool);
        impl tracing::field::Visit for Says {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.1 |= field.name() == "message" && format!("{value:?}") == self.0;
            }
        }
        let unwanted = *self.0.lock().unwrap();
        let mut says = Says(unwanted, false);
        event.record(&mut says);
        assert!(!says.1, "{SAID}");
    }
}

/// It costs what a recorder costs that panics: not in destructors, where it would end the process, and not in the router, which has to go
/// on. On one thread, so that a subscriber of this thread sees all.
#[tokio::test(flavor = "current_thread")]
async fn a_subscriber_of_the_log_may_panic_anywhere() {
    let unwilling = Unwilling::default();
    let unwanted = |line| *unwilling.0.lock().unwrap() = line;
    let subscriber = tracing_subscriber::registry().with(unwilling.clone());
    let _installed = tracing::subscriber::set_default(subscriber);
    let server = serve().await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let recorder = Faulty::default();
    let settings = builder(&[&server], &recorder).servers([&proxy.address]);
    let client = settings.connect().await.unwrap();
    for line in ["leases lost", "not connected", "connected", "lease lost"] {
        let guard = client.lock("k").unwrap().acquire().await.unwrap();
        unwanted(line);
        proxy.cut();
        soon("the loss", guard.lost()).await;
        let mut health = client.watch_health(0).unwrap();
        let died = |health: &ShardHealth| {
            let cause = health.last_error().filter(|error| error.kind() == ErrorKind::ShardGone);
            cause.is_some_and(|cause| cause.to_string().contains(SAID))
        };
        drop(soon("the death", health.wait_for(died)).await.unwrap());
        unwanted("");
        until("it is connected again", || client.health()[0].is_connected()).await;
    }
    unwanted("a shard's actor died: another takes its place");
    recorder.has(Fault::once("leases_held"));
    soon("an answer", client.lock("k").unwrap().acquire())
        .await
        .unwrap_err();
    until("it is connected again", || client.health()[0].is_connected()).await;
    drop(soon("it is free", client.lock("k").unwrap().acquire()).await.unwrap());
}

#[tokio::test]
async fn a_recorder_that_cannot_be_used_at_all_is_an_error_when_the_client_is_built() {
    let server = serve().await;
    for metric in ["describe", "build_info"] {
        let recorder = Faulty::default();
        recorder.has(Fault::always(metric));
        let error = builder(&[&server], &recorder).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains("metrics recorder"), "{error}");
        names_the_cause(&error);
    }
    assert_eq!(server.stats().connections, 0, "nothing was started");
}

/// Loses its signals, says so, and goes on.
async fn loses_and_regains(heard: &mut SignalConn) {
    let cause = loop {
        match soon("an event", heard.next_event()).await.expect("it goes on") {
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

/// The task of a signal connection counts what comes, and its actor what is subscribed to.
#[tokio::test]
async fn a_signal_connection_that_panics_tells_of_the_gap_and_comes_back() {
    let server = serve().await;
    let recorder = Faulty::default();
    let settings = builder(&[&server], &recorder);
    let mut heard = SignalConn::open(settings, SignalOptions::default()).await.unwrap();
    heard.listen("news.*", None).await.unwrap();
    recorder.has(Fault::once("signals_received"));
    // It may have been delivered, and it may be answered.
    drop(soon("an answer", heard.emit("news.a", "lost")).await);
    loses_and_regains(&mut heard).await;
    recorder.has(Fault::once("signal_subscriptions"));
    heard.listen("other.*", None).await.unwrap();
    loses_and_regains(&mut heard).await;
    assert_eq!(recorder.panics(), 2);
    until("it listens", || server.stats().signal_channels.len() == 2).await;
}

#[test]
fn threads_hear_of_the_gap_too() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(serve());
    let recorder = Faulty::default();
    let settings = builder(&[&server], &recorder);
    let mut heard = blocking::SignalConn::open(settings, SignalOptions::default()).unwrap();
    heard.listen("news.*", None).unwrap();
    recorder.has(Fault::once("signals_received"));
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
async fn a_signal_connection_that_panics_again_and_again_ends_and_says_why() {
    let server = serve().await;
    let recorder = Faulty::default();
    let settings = || builder(&[&server], &recorder);
    let mut heard = SignalConn::open(settings(), SignalOptions::default()).await.unwrap();
    for metric in ["signal_subscriptions", "connections", "disconnects"] {
        recorder.has(Fault::always(metric));
    }
    // Answered before it is counted.
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

/// Every signal costs the connection: it is made anew after pauses, as where a server takes connections and drops them.
#[tokio::test]
async fn a_signal_connection_whose_task_always_panics_does_not_storm() {
    let server = serve().await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let recorder = Faulty::default();
    let settings = Client::builder()
        .servers([&proxy.address])
        .metrics_recorder(recorder.clone());
    let heard = SignalConn::open(settings, SignalOptions::default()).await.unwrap();
    heard.listen("news.*", None).await.unwrap();
    let publisher = SignalConn::connect(server.local_addr().to_string()).await.unwrap();
    recorder.has(Fault::always("signals_received"));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        publisher.emit("news.a", "x").await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    assert!(recorder.panics() >= 2, "it came back and heard more");
    assert!(proxy.accepted() <= 12, "{} connections", proxy.accepted());
}

#[tokio::test]
async fn what_a_client_emits_over_is_made_anew_when_it_has_died() {
    let server = serve().await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let recorder = Faulty::default();
    let client = builder(&[&server], &recorder)
        .servers([&proxy.address])
        .connect()
        .await
        .unwrap();
    assert_eq!(client.emit("news.a", "x").await.unwrap(), 0);
    recorder.has(Fault::once("disconnects"));
    recorder.has(Fault::once("disconnects"));
    recorder.has(Fault::always("disconnects"));
    proxy.cut();
    until("the shard and the signals have died", || recorder.panics() >= 3).await;
    recorder.is_mended();
    soon("it goes on", async {
        while client.emit("news.a", "x").await.is_err() {}
    })
    .await;
}

/// A verifier of certificates that panics so often. Users write such to pin certificates.
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
            assert!(self.panics.fetch_update(SeqCst, SeqCst, take_one).is_err(), "{SAID}");
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

/// `spared` connections are made, and then `panics` attempts panic.
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
    // Each connection is verified.
    config.resumption = Resumption::disabled();
    (Tls::config(Arc::new(config)), verifier)
}

#[tokio::test]
async fn an_attempt_to_connect_that_panics_has_failed() {
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

    // Attempts go on in the background, and callers hear why they wait in vain.
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
    soon("it goes on", async {
        while client.lock("k").unwrap().acquire().await.is_err() {}
    })
    .await;
}

/// The pipelined connection is made, and those for a wait, for `stats`, for signals are not at once.
#[tokio::test]
async fn what_waits_for_a_connection_whose_attempt_panics_is_served_by_the_next() {
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

/// What looks whether the first server is there is a task of its own.
#[tokio::test]
async fn a_way_back_whose_attempt_panics_is_an_error() {
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
            // The port may be taken for a moment.
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

/// A runtime that cannot time or read anything is refused by name, instead of failing at each step.
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
            let error = error.expect("it is refused");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
            assert!(error.to_string().contains(missing), "{missing}: {error}");
        }
    }
    // The blocking client has a runtime of its own.
    let built = blocking::Client::builder().servers([&address]).build_blocking();
    assert!(built.is_ok());
}
