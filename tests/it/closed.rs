//! The errors of a client after its shutdown, and after the end of its runtime.

use std::future::Future;
use std::time::Duration;

use crate::support::fake::FakeServer;
use crate::support::proxy::Proxy;
use crate::support::{until, until_now};
use dflockd_client::server::Server;
use dflockd_client::{
    Client, ConnectionState, DistributedLock, Election, Enqueued, Error, ErrorKind, LostReason, OnUnavailable, Shard,
    SignalConn, SignalEvent, SignalOptions, blocking,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// A call that takes longer than this time hangs.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come in time"))
}

async fn serve() -> Server {
    let release = Server::builder().release("1.16");
    release.port(0).start().await.unwrap()
}

/// If there are two shards, keys and channels that start with `a` belong to the first shard, all others to the second.
fn by_first_letter(key: &str, servers: usize) -> usize {
    usize::from(!key.starts_with('a')).min(servers - 1)
}

fn builder(servers: &[Server]) -> dflockd_client::ClientBuilder {
    Client::builder()
        .servers(servers.iter().map(|server| server.local_addr().to_string()))
        .sharding_strategy(by_first_letter)
}

fn is_shut_down<T>(outcome: Result<T, Error>) {
    let error = outcome.err().expect("it is shut down");
    assert_eq!(error.kind(), ErrorKind::Shutdown, "{error:?}");
    assert!(error.is_fatal() && !error.is_retryable());
    assert!(error.to_string().contains("shut down"), "{error}");
}

fn connections(servers: &[Server]) -> u64 {
    servers.iter().map(|server| server.stats().connections).sum()
}

#[tokio::test]
async fn a_shutdown_ends_signals_too() {
    let servers = [serve().await, serve().await];
    let client = builder(&servers).connect().await.unwrap();
    let mut news = client.subscribe("*.news").await.unwrap();
    let mut more = client.subscribe("more.*").await.unwrap();
    let handle = news.handle();
    for channel in ["a.news", "b.news"] {
        assert_eq!(client.emit(channel, "x").await.unwrap(), 1);
    }
    let own = SignalConn::open(builder(&servers), SignalOptions::default())
        .await
        .unwrap();
    let permit = client.semaphore("a/slots", 2).unwrap().acquire().await.unwrap();
    until("both signals have arrived", || news.waiting() == 2).await;

    let report = soon("the shutdown", client.shutdown(PATIENCE)).await;
    assert_eq!((report.released, report.unreleased.len()), (1, 0));
    until("only the connections that do not belong to the client are left", || {
        connections(&servers) == 2
    })
    .await;
    is_shut_down(client.emit("a.news", "x").await);
    is_shut_down(client.emit("b.news", "x").await);
    is_shut_down(client.subscribe("*.news").await);
    is_shut_down(client.lock("a").unwrap().acquire().await);
    is_shut_down(client.semaphore("b", 2).unwrap().acquire().await);
    is_shut_down(client.stats().await);
    is_shut_down(client.barrier().await);
    assert!(!permit.is_held());
    for conn in [&news, &more] {
        is_shut_down(conn.listen("other.*", None).await);
        is_shut_down(conn.unlisten("*.news", None).await);
        is_shut_down(conn.emit("a.news", "x").await);
        assert!(conn.health().iter().all(|shard| !shard.is_connected()));
        is_shut_down::<()>(Err(conn.health()[1].closed_because().unwrap().clone()));
        is_shut_down::<()>(Err(conn.closed_because().unwrap()));
    }
    is_shut_down(handle.emit("b.news", "x").await);
    for shard in client.health() {
        assert!(matches!(shard.state, ConnectionState::Closed), "{shard:?}");
        is_shut_down::<()>(Err(shard.closed_because().unwrap().clone()));
    }
    // The stream still returns the signals that arrived before the shutdown. Then it ends.
    assert_eq!(news.next_signal().await.unwrap().payload(), "x");
    assert_eq!(news.next_signal().await.unwrap().payload(), "x");
    assert!(soon("the end", news.next_event()).await.is_none());
    assert!(soon("the end", more.next_event()).await.is_none());

    assert_eq!(
        own.emit("a.news", "x").await.unwrap(),
        0,
        "this connection does not belong to the client"
    );
    let again = soon("the shutdown", client.shutdown(PATIENCE)).await;
    assert_eq!((again.released, again.unreleased.len()), (0, 0));
}

#[test]
fn a_shutdown_ends_signals_of_threads_too() {
    let runtime = Runtime::new().unwrap();
    let servers = runtime.block_on(async { [serve().await, serve().await] });
    let client = builder(&servers).connect_blocking().unwrap();
    let mut news = client.subscribe("*.news").unwrap();
    assert_eq!(client.emit("a.news", "x").unwrap(), 1);
    until_now("the signal has arrived", || news.waiting() == 1);
    let listens = std::thread::spawn(move || {
        let heard: Vec<_> = news.by_ref().collect();
        (heard.len(), news)
    });
    client.shutdown(PATIENCE).unwrap();
    let (heard, news) = listens.join().unwrap();
    assert_eq!(heard, 1);
    is_shut_down(news.emit("b.news", "x"));
    is_shut_down(news.listen("other.*", None));
    is_shut_down(news.handle().emit("a.news", "x"));
    is_shut_down(client.emit("b.news", "x"));
    is_shut_down(client.subscribe("*.news"));
    until_now("no connection is left", || connections(&servers) == 0);
}

/// A subscription that is opened during the shutdown either fails or ends with the client.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_opened_during_a_shutdown_do_not_stay_open() {
    let servers = [serve().await, serve().await];
    for _ in 0..20 {
        let client = builder(&servers).connect().await.unwrap();
        let openers: Vec<_> = (0..4)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    let mut open = Vec::new();
                    loop {
                        match client.subscribe(format!("news.{number}")).await {
                            Ok(conn) => open.push(conn),
                            Err(error) => break (open, error),
                        }
                        if let Err(error) = client.emit("a.news", "x").await {
                            break (open, error);
                        }
                    }
                })
            })
            .collect();
        until("some connections are open", || connections(&servers) > 8).await;
        soon("the shutdown", client.shutdown(PATIENCE)).await;
        for opener in openers {
            let (open, error) = soon("its end", opener).await.unwrap();
            is_shut_down::<()>(Err(error));
            for mut conn in open {
                soon("the end", async { while conn.next_event().await.is_some() {} }).await;
            }
        }
        until("no connection is left", || connections(&servers) == 0).await;
    }
}

/// The shutdown has no lease to release, so it does not wait for the silent server.
#[tokio::test]
async fn a_shutdown_ends_signals_that_wait_for_their_server() {
    let silent = FakeServer::start(|connection, _| connection.until_hung_up()).await;
    let client = Client::builder()
        .servers([&silent.address])
        .on_unavailable(OnUnavailable::Wait)
        .build()
        .unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.emit("news", "x").await }
    });
    until("it connects", || silent.accepted() == 2).await;
    soon("the shutdown", client.shutdown(PATIENCE)).await;
    is_shut_down(soon("an answer", waiting).await.unwrap());
}

fn assert_names_the_ended_runtime(error: &Error) {
    assert!(error.to_string().contains("the runtime on which this"), "{error:?}");
    assert!(error.to_string().contains("has ended"), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Shutdown, "{error:?}");
    assert!(error.is_fatal() && !error.is_retryable());
}

/// Asserts that the lease was lost with its runtime. The tasks of a runtime end one after the other. If the task of the
/// connection ends first, the reason is `Disconnected`.
fn assert_lost_with_its_runtime(reason: LostReason) {
    assert!(
        matches!(reason, LostReason::ShardGone | LostReason::Disconnected),
        "{reason:?}"
    );
}

/// Asserts that the stream has ended and that its error names the end of the runtime.
async fn assert_stream_has_ended(news: &mut SignalConn) {
    while let Some(event) = soon("the end", news.next_event()).await {
        assert!(matches!(event, SignalEvent::Lost { .. }), "{event:?}");
    }
    assert_names_the_ended_runtime(&news.closed_because().unwrap());
}

/// Makes requests with a client whose runtime has ended. Asserts that each error names the end of the runtime.
async fn assert_all_calls_name_the_ended_runtime(client: &Client) {
    for shard in client.health() {
        assert!(matches!(shard.state, ConnectionState::Closed), "{shard:?}");
        assert!(!shard.is_connected() && shard.last_error().is_none());
        assert_names_the_ended_runtime(shard.closed_because().unwrap());
    }
    for key in ["a", "b"] {
        let (lock, slots) = (client.lock(key).unwrap(), client.semaphore(key, 2).unwrap());
        assert_names_the_ended_runtime(&soon("an answer", lock.acquire()).await.unwrap_err());
        assert_names_the_ended_runtime(&soon("an answer", lock.try_acquire()).await.unwrap_err());
        assert_names_the_ended_runtime(&soon("an answer", lock.enqueue()).await.unwrap_err());
        assert_names_the_ended_runtime(&soon("an answer", slots.acquire()).await.unwrap_err());
        assert_names_the_ended_runtime(&soon("an answer", client.emit(key, "x")).await.unwrap_err());
        let elected = Election::new(lock.clone());
        assert_names_the_ended_runtime(&soon("an answer", elected.campaign()).await.map(drop).unwrap_err());
        let mut object = DistributedLock::from(lock);
        assert_names_the_ended_runtime(&soon("an answer", object.acquire()).await.unwrap_err());
    }
    let both = client.lock_all(["a", "b"]).unwrap();
    assert_names_the_ended_runtime(&soon("an answer", both.acquire()).await.map(drop).unwrap_err());
    assert_names_the_ended_runtime(&soon("an answer", client.subscribe("news.*")).await.unwrap_err());
    assert_names_the_ended_runtime(&soon("an answer", client.stats()).await.unwrap_err());
    assert_names_the_ended_runtime(&soon("an answer", client.barrier()).await.unwrap_err());
    let report = soon("the shutdown", client.shutdown(PATIENCE)).await;
    assert_eq!((report.released, report.unreleased.len()), (0, 0));
}

#[test]
fn calls_fail_with_the_reason_after_the_end_of_a_clients_runtime() {
    let elsewhere = Runtime::new().unwrap();
    let servers = elsewhere.block_on(async { [serve().await, serve().await] });
    for its_own in [
        Builder::new_current_thread().enable_all().build().unwrap(),
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap(),
    ] {
        let client = its_own.block_on(builder(&servers).connect()).unwrap();
        let (lock, permit, mut news, ticket, bystander) = its_own.block_on(async {
            let bystander = builder(&servers).connect().await.unwrap();
            let held = bystander.lock("b/held").unwrap().acquire().await.unwrap();
            let Enqueued::Queued(ticket) = client.lock("b/held").unwrap().enqueue().await.unwrap() else {
                panic!("it is held");
            };
            (
                client.lock("a/k").unwrap().acquire().await.unwrap(),
                client.semaphore("b/s", 2).unwrap().acquire().await.unwrap(),
                client.subscribe("news.*").await.unwrap(),
                ticket,
                (held, bystander),
            )
        });
        assert!(lock.is_held() && permit.is_held());
        let mut health = client.watch_health(1).unwrap();
        let waiting = elsewhere.spawn({
            let lock = client.lock("b/held").unwrap();
            async move { lock.acquire().await.map(drop) }
        });
        // A current-thread runtime makes progress only inside `block_on`.
        its_own.block_on(until("it waits", || {
            servers[1].stats().locks.iter().map(|lock| lock.waiters).sum::<u64>() == 2
        }));
        let token = lock.cancellation_token();
        drop(its_own);

        assert!(!lock.is_held() && !permit.is_held() && token.is_cancelled());
        elsewhere.block_on(async {
            assert_lost_with_its_runtime(soon("the loss", lock.lost()).await);
            assert_lost_with_its_runtime(soon("the loss", permit.lost()).await);
            let told = soon(
                "the health",
                health.wait_for(|health| health.closed_because().is_some()),
            )
            .await;
            assert_names_the_ended_runtime(told.unwrap().closed_because().unwrap());
            assert_names_the_ended_runtime(&soon("an answer", waiting).await.unwrap().unwrap_err());
            assert_names_the_ended_runtime(&soon("an answer", ticket.wait(PATIENCE)).await.map(drop).unwrap_err());
            assert_stream_has_ended(&mut news).await;
            assert_names_the_ended_runtime(&soon("an answer", news.emit("news.a", "x")).await.unwrap_err());
            assert_names_the_ended_runtime(&soon("an answer", news.listen("b", None)).await.unwrap_err());
            assert_names_the_ended_runtime(news.health()[0].closed_because().unwrap());
            // The lease is lost, so there is nothing to release.
            let error = soon("an answer", lock.release()).await.unwrap_err();
            assert_names_the_ended_runtime(&error);
            assert_all_calls_name_the_ended_runtime(&client).await;
        });
        drop((permit, news, client, bystander));
    }
}

#[test]
fn threads_hear_that_the_runtime_of_their_client_has_ended() {
    let elsewhere = Runtime::new().unwrap();
    let servers = elsewhere.block_on(async { [serve().await, serve().await] });
    let its_own = Runtime::new().unwrap();
    let made_async = its_own.block_on(builder(&servers).connect()).unwrap();
    let client = blocking::Client::from(made_async);
    let lock = client.lock("a/k").unwrap().acquire().unwrap();
    let permit = client.semaphore("b/s", 2).unwrap().acquire().unwrap();
    let mut news = client.subscribe("news.*").unwrap();
    let (told, called_back) = std::sync::mpsc::channel();
    permit.when_lost(move |reason| told.send(reason).unwrap()).unwrap();
    let waits = std::thread::spawn({
        let election = blocking::Election::new(client.lock("a/k").unwrap());
        move || election.campaign(None).map(drop)
    });
    until_now("it waits", || {
        servers[0].stats().locks.iter().any(|lock| lock.waiters == 1)
    });
    drop(its_own);

    assert_lost_with_its_runtime(lock.wait_lost(PATIENCE).unwrap().unwrap());
    assert_lost_with_its_runtime(called_back.recv_timeout(PATIENCE).unwrap());
    assert!(!lock.is_held() && !permit.is_held());
    assert_names_the_ended_runtime(&waits.join().unwrap().unwrap_err());
    assert!(news.next().is_none());
    assert_names_the_ended_runtime(&news.closed_because().unwrap());
    assert_names_the_ended_runtime(&news.emit("news.a", "x").unwrap_err());
    assert_names_the_ended_runtime(&client.lock("a").unwrap().acquire().map(drop).unwrap_err());
    assert_names_the_ended_runtime(&client.semaphore("b", 2).unwrap().acquire().map(drop).unwrap_err());
    assert_names_the_ended_runtime(&client.emit("news.a", "x").unwrap_err());
    assert_names_the_ended_runtime(&client.subscribe("news.*").unwrap_err());
    assert!(client.health().iter().all(|shard| !shard.is_connected()));
    assert_names_the_ended_runtime(client.health()[0].closed_because().unwrap());
    elsewhere.block_on(assert_all_calls_name_the_ended_runtime(client.as_async()));
}

/// The client's runtime ends before it has run a task, or while the client connects.
#[test]
fn calls_fail_with_the_reason_if_the_runtime_ends_at_once() {
    let elsewhere = Runtime::new().unwrap();
    let servers = elsewhere.block_on(async { [serve().await, serve().await] });
    let its_own = Builder::new_current_thread().enable_all().build().unwrap();
    let client = {
        let _inside = its_own.enter();
        builder(&servers).build().unwrap()
    };
    drop(its_own);
    elsewhere.block_on(assert_all_calls_name_the_ended_runtime(&client));

    let its_own = Runtime::new().unwrap();
    let silent = elsewhere.block_on(FakeServer::start(|connection, _| connection.until_hung_up()));
    let client = {
        let _inside = its_own.enter();
        Client::builder()
            .servers([&silent.address, &silent.address.replace("127.0.0.1", "localhost")])
            .sharding_strategy(by_first_letter)
            .build()
            .unwrap()
    };
    until_now("it connects", || silent.accepted() == 2);
    drop(its_own);
    elsewhere.block_on(assert_all_calls_name_the_ended_runtime(&client));
}

/// The object owns its client. Its first use after a `close` makes a new client.
#[test]
fn an_object_whose_runtime_has_ended_can_be_closed_and_used_elsewhere() {
    let elsewhere = Runtime::new().unwrap();
    let server = elsewhere.block_on(serve());
    let options = Client::builder().servers([server.local_addr().to_string()]);
    let mut lock = DistributedLock::with_options("k", options).unwrap();
    let its_own = Runtime::new().unwrap();
    assert!(its_own.block_on(lock.acquire()).unwrap());
    drop(its_own);
    assert!(!lock.is_held());
    elsewhere.block_on(async {
        assert_names_the_ended_runtime(&soon("an answer", lock.release()).await.unwrap_err());
        assert_names_the_ended_runtime(&soon("an answer", lock.acquire()).await.unwrap_err());
        soon("the end", lock.close()).await;
        assert!(soon("a grant", lock.acquire()).await.unwrap());
        assert!(lock.release().await.unwrap());
    });
}

/// The client reports a loss once, when it happens. The guard of the lost lease still exists during the shutdown.
#[tokio::test]
async fn a_shutdown_does_not_report_leases_that_were_lost_before() {
    let server = serve().await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let client = Client::builder().servers([&proxy.address]).connect().await.unwrap();
    let lost = client.lock("lost").unwrap().acquire().await.unwrap();
    proxy.cut();
    soon("the loss", lost.lost()).await;
    until("it is connected again", || client.health()[0].is_connected()).await;
    let held = client.lock("held").unwrap().acquire().await.unwrap();
    let report = soon("the shutdown", client.shutdown(PATIENCE)).await;
    assert!(report.unreleased.is_empty(), "{report:?}");
    drop((lost, held));
}

/// During a failback, the client tries to connect to the first server of the shard. A shutdown ends this attempt.
#[tokio::test]
async fn a_shutdown_ends_a_failback_under_way() {
    let (first, standby) = (serve().await, serve().await);
    let address = first.local_addr();
    let shard = Shard::standby([address.to_string(), standby.local_addr().to_string()]);
    let client = Client::builder()
        .shards([shard.takeover_delay(Duration::from_millis(50))])
        .connect_timeout(2 * PATIENCE)
        .connect()
        .await
        .unwrap();
    first.kill().await;
    until("the standby serves", || {
        client.health()[0].failovers == 1 && client.health()[0].is_connected()
    })
    .await;
    // This listener accepts connections and never answers. The port of the first server may stay taken for a moment,
    // so the loop repeats the bind.
    let silent = loop {
        match std::net::TcpListener::bind(address) {
            Ok(silent) => break silent,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let back = tokio::spawn({
        let client = client.clone();
        async move { client.failback(0).await }
    });
    let accepted = tokio::task::spawn_blocking(move || silent.accept().unwrap().0);
    let mut probe = soon("the client connects", accepted).await.unwrap();
    soon("the shutdown", client.shutdown(PATIENCE)).await;
    is_shut_down(soon("an answer", back).await.unwrap());
    let hung_up = tokio::task::spawn_blocking(move || drop(std::io::copy(&mut probe, &mut std::io::sink())));
    soon("its end", hung_up).await.unwrap();
}

#[test]
fn a_client_that_was_shut_down_reports_the_shutdown_after_its_runtime_has_ended() {
    let elsewhere = Runtime::new().unwrap();
    let servers = elsewhere.block_on(async { [serve().await, serve().await] });
    let its_own = Runtime::new().unwrap();
    let client = its_own.block_on(builder(&servers).connect()).unwrap();
    its_own.block_on(client.shutdown(PATIENCE));
    drop(its_own);
    elsewhere.block_on(async {
        is_shut_down(client.lock("a").unwrap().acquire().await);
        is_shut_down(client.emit("a", "x").await);
        is_shut_down::<()>(Err(client.health()[1].closed_because().unwrap().clone()));
    });
}

/// A client opens its signal connections on its own runtime, even if the caller runs on another runtime.
#[test]
fn signals_outlive_the_runtime_of_their_caller() {
    let its_own = Runtime::new().unwrap();
    let servers = its_own.block_on(async { [serve().await, serve().await] });
    let client = its_own.block_on(builder(&servers).connect()).unwrap();
    let short = Runtime::new().unwrap();
    let mut news = short.block_on(async {
        assert_eq!(client.emit("a.news", "x").await.unwrap(), 0);
        client.subscribe("*.news").await.unwrap()
    });
    drop(short);
    its_own.block_on(async {
        assert_eq!(client.emit("a.news", "x").await.unwrap(), 1);
        assert_eq!(soon("a signal", news.next_signal()).await.unwrap().payload(), "x");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_connection_without_a_client_says_that_its_runtime_has_ended() {
    let server = serve().await;
    let address = server.local_addr().to_string();
    let runtime_ends = tokio::task::spawn_blocking(|| {
        let its_own = Runtime::new().unwrap();
        let news = std::thread::spawn(move || {
            let news = its_own.block_on(SignalConn::connect(address));
            drop(its_own);
            news.unwrap()
        });
        news.join().unwrap()
    });
    let mut news = runtime_ends.await.unwrap();
    assert_stream_has_ended(&mut news).await;
    assert_names_the_ended_runtime(&soon("an answer", news.emit("news", "x")).await.unwrap_err());
    assert!(!news.health()[0].is_connected());
}
