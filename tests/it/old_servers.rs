//! Servers that do not know all commands. They log a warning for each unknown command, and some also close the
//! connection. So the client tries a command once, over a connection that owns no lease. If an attempt to connect has
//! failed, it tries the command again, because the server may now be of another release.

use std::time::Duration;

use crate::support::old::OldServer;
use crate::support::recorder::Recorded;
use crate::support::until;
use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, ErrorKind, LostReason, ReconnectPolicy, SignalConn};

/// The commands that an old server does not know.
const OLD: &[&str] = &["ping"];
/// The commands that a still older server does not know. Such servers have no signals.
const OLDER: &[&str] = &["ping", "listen", "unlisten", "signal"];
const NEW: &[&str] = &[];

struct Scene {
    server: Server,
    old: OldServer,
}

impl Scene {
    async fn set(unknown: &'static [&'static str], closes: bool) -> Self {
        // Release 1.16 is the newest release that knows signals, and it also knows `ping`. The `OldServer` between the
        // client and this server refuses the commands in `unknown`.
        let builder = Server::builder().release("1.16");
        let server = builder.port(0).start().await.unwrap();
        let old = OldServer::start(&server.local_addr().to_string(), unknown, closes).await;
        Self { server, old }
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .servers([&self.old.address])
            .acquire_timeout(Duration::from_secs(30))
            .request_timeout(Duration::from_secs(30))
    }

    async fn cut(&self, client: &Client) {
        let mut health = client.watch_health(0).unwrap();
        let since = health.borrow_and_update().since;
        self.old.cut();
        let again = health.wait_for(|health| health.is_connected() && health.since > since);
        again.await.unwrap();
    }
}

async fn use_everything(scene: &Scene, client: &Client) {
    let held = client.lock("k").unwrap().acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = client.lock("k").unwrap();
        async move { lock.acquire().await }
    });
    until("it waits", || {
        scene.server.stats().locks.iter().any(|lock| lock.waiters == 1)
    })
    .await;
    held.release().await.unwrap();
    waiting.await.unwrap().unwrap().release().await.unwrap();
    client.stats().await.unwrap();
}

/// The client makes connections of all kinds: pipelined, exclusive, for one `stats` request, and for signals.
#[tokio::test]
async fn a_server_is_sent_one_ping_whatever_its_connections_are_for() {
    for closes in [false, true] {
        let scene = Scene::set(OLD, closes).await;
        let client = scene.builder().connect().await.unwrap();
        for _ in 0..3 {
            use_everything(&scene, &client).await;
            client.emit("a", "1").await.unwrap();
            drop(client.subscribe("a").await.unwrap());
            scene.cut(&client).await;
        }
        assert_eq!(scene.old.received("ping"), 1, "closes: {closes}");
    }
}

#[cfg(feature = "blocking")]
#[test]
fn threads_send_no_more_pings() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let scene = runtime.block_on(Scene::set(OLD, true));
    let client = scene.builder().connect_blocking().unwrap();
    for _ in 0..3 {
        client.lock("k").unwrap().acquire().unwrap().release().unwrap();
        client.stats().unwrap();
        scene.old.cut();
        crate::support::until_now("the loss is noticed", || !client.health()[0].is_connected());
        crate::support::until_now("the client is connected again", || client.health()[0].is_connected());
    }
    assert_eq!(scene.old.received("ping"), 1);
}

/// After a failed attempt to connect, the server may be of another release. So the client sends one `ping` again. If the
/// server knows `ping`, the client may send it over each connection.
#[tokio::test]
async fn a_server_that_was_away_is_pinged_again() {
    let mut scene = Scene::set(OLD, true).await;
    let builder = scene.builder().keepalive(Duration::from_millis(50));
    let client = builder.connect().await.unwrap();
    for times in [2, 3] {
        scene.old.close().await;
        // The server stopped accepting connections before the client noticed the end of its connection. So this error
        // comes from a refused attempt to connect.
        until("an attempt fails", || {
            let error = client.health()[0].last_error().cloned();
            error.is_some_and(|error| error.kind() == ErrorKind::Connect)
        })
        .await;
        if times == 3 {
            scene.old.become_another(NEW, false);
        }
        scene.old.open().await;
        let guard = client.lock("k").unwrap().acquire().await.unwrap();
        assert_eq!(scene.old.received("ping"), times);
        guard.release().await.unwrap();
    }
    until("the connection is kept alive by pings", || {
        scene.old.received("ping") > 5
    })
    .await;
}

/// A server that knows `ping` is replaced by a server that closes a connection at a `ping`. The client must not send a
/// `ping` over a connection that owns a lease.
#[tokio::test]
async fn a_release_that_knew_ping_may_be_followed_by_one_that_does_not() {
    let scene = Scene::set(NEW, false).await;
    let builder = scene.builder().keepalive(Duration::from_millis(50));
    let client = builder.connect().await.unwrap();
    use_everything(&scene, &client).await;
    scene.old.become_another(OLD, true);
    scene.cut(&client).await;
    let received = scene.old.received("ping");
    // The pipelined connection owns one lease. A wait acquires the other lease over a connection of its own.
    let held = client.lock("k").unwrap().acquire().await.unwrap();
    let second = client.lock("second").unwrap().acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = client.lock("second").unwrap();
        async move { lock.acquire().await }
    });
    until("it waits", || {
        scene.server.stats().locks.iter().any(|lock| lock.waiters == 1)
    })
    .await;
    second.release().await.unwrap();
    let won = waiting.await.unwrap().unwrap();
    let renewals = scene.old.received("n");
    until("both are kept alive for a while", || {
        scene.old.received("n") > renewals + 20
    })
    .await;
    assert!(held.is_held() && won.is_held());
    assert_eq!(scene.old.received("ping"), received);
}

/// Behind a proxy, the server may change to another release while the client's connection stays open.
#[tokio::test]
async fn a_refused_ping_is_the_last_one_on_its_connection() {
    let scene = Scene::set(NEW, false).await;
    let builder = scene.builder().keepalive(Duration::from_millis(50));
    let client = builder.connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let received = scene.old.received("ping");
    until("the connection is kept alive by pings", || {
        scene.old.received("ping") > received + 2
    })
    .await;
    scene.old.become_another(OLD, false);
    until("the connection is kept alive by renewals", || {
        scene.old.received("n") > 10
    })
    .await;
    let received = scene.old.received("ping");
    let renewed = scene.old.received("n");
    until("renewals continue", || scene.old.received("n") > renewed + 10).await;
    assert_eq!(scene.old.received("ping"), received);
    assert!(guard.is_held());
}

/// If the server closes the connection at a `ping`, the client loses this connection. It sends a `ping` over the next
/// connection before that connection owns a lease.
#[tokio::test]
async fn a_connection_that_a_ping_closes_is_lost_and_the_next_one_is_not() {
    let scene = Scene::set(NEW, false).await;
    let builder = scene.builder().keepalive(Duration::from_millis(50));
    let client = builder.connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    scene.old.become_another(OLD, true);
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    let again = client.lock("again").unwrap().acquire().await.unwrap();
    let (received, renewed) = (scene.old.received("ping"), scene.old.received("n"));
    until("the connection is kept alive by renewals", || {
        scene.old.received("n") > renewed + 20
    })
    .await;
    assert_eq!(scene.old.received("ping"), received);
    assert!(again.is_held());
}

/// After an emit, the client tries to connect for signals again and again. But it sends the unknown command only once.
#[tokio::test]
async fn a_server_without_signals_is_asked_once_for_them() {
    let scene = Scene::set(OLDER, true).await;
    let recorded = Recorded::default();
    let pause = Duration::from_millis(1);
    let builder = scene.builder().reconnect(ReconnectPolicy::exponential(pause, pause));
    let client = builder.metrics_recorder(recorded.clone()).connect().await.unwrap();
    for _ in 0..2 {
        let error = client.emit("a", "1").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    let refused = [("kind", "signals"), ("outcome", "unsupported")];
    until("several attempts were made", || {
        recorded.value("connects_total", &refused) > 5.0
    })
    .await;
    assert_eq!((scene.old.received("unlisten"), scene.old.received("ping")), (1, 1));
    let alone = SignalConn::connect(&scene.old.address).await.unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::Unsupported, "{alone}");
}

/// A server that is full closes a new connection without an answer. So the client first sends a request that changes
/// nothing, and it sends the wait after the answer.
#[tokio::test]
async fn a_wait_is_sent_only_to_a_server_that_has_answered_on_its_connection() {
    for (unknown, proof) in [(NEW, "ping"), (OLD, "n")] {
        let scene = Scene::set(unknown, true).await;
        let client = scene.builder().connect().await.unwrap();
        let held = client.lock("k").unwrap().acquire().await.unwrap();
        let received = scene.old.received(proof);
        let waiting = tokio::spawn({
            let lock = client.lock("k").unwrap();
            async move { lock.acquire().await }
        });
        until("it waits", || {
            scene.server.stats().locks.iter().any(|lock| lock.waiters == 1)
        })
        .await;
        assert_eq!(scene.old.received(proof), received + 1, "{proof}");
        held.release().await.unwrap();
        drop(waiting.await.unwrap().unwrap());
    }
}
