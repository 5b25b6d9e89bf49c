//! Servers log a warning for each command that they do not know, and some close the connection: each is asked once, and never over a
//! connection on which a lease depends.

use std::time::Duration;

use crate::support::old::OldServer;
use crate::support::recorder::Recorded;
use crate::support::until;
use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, ErrorKind, LostReason, ReconnectPolicy, SignalConn};

const OLD: &[&str] = &["ping"];
/// Nor does it know signals.
const OLDER: &[&str] = &["ping", "listen", "unlisten", "signal"];
const NEW: &[&str] = &[];

struct Scene {
    server: Server,
    old: OldServer,
}

impl Scene {
    async fn set(unknown: &'static [&'static str], closes: bool) -> Self {
        // The newest that knows signals.
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

/// Pipelined, exclusive, aside, and those for signals.
#[tokio::test]
async fn a_server_is_asked_once_for_ping_whatever_its_connections_are_for() {
    for closes in [false, true] {
        let scene = Scene::set(OLD, closes).await;
        let client = scene.builder().connect().await.unwrap();
        for _ in 0..3 {
            use_everything(&scene, &client).await;
            client.emit("a", "1").await.unwrap();
            drop(client.subscribe("a").await.unwrap());
            scene.cut(&client).await;
        }
        assert_eq!(scene.old.asked("ping"), 1, "closes: {closes}");
    }
}

#[cfg(feature = "blocking")]
#[test]
fn nor_is_it_asked_more_often_by_threads() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let scene = runtime.block_on(Scene::set(OLD, true));
    let client = scene.builder().connect_blocking().unwrap();
    for _ in 0..3 {
        client.lock("k").unwrap().acquire().unwrap().release().unwrap();
        client.stats().unwrap();
        scene.old.cut();
        crate::support::until_now("the loss is noticed", || !client.health()[0].is_connected());
        crate::support::until_now("it is back", || client.health()[0].is_connected());
    }
    assert_eq!(scene.old.asked("ping"), 1);
}

/// It may be another release that comes back. One that knows `ping` may be asked on each connection.
#[tokio::test]
async fn a_server_that_was_away_is_asked_again() {
    let mut scene = Scene::set(OLD, true).await;
    let builder = scene.builder().keepalive(Duration::from_millis(50));
    let client = builder.connect().await.unwrap();
    for times in [2, 3] {
        scene.old.away().await;
        // Its end was noticed after it took no more connections, so this is about one that it did not take.
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
        assert_eq!(scene.old.asked("ping"), times);
        guard.release().await.unwrap();
    }
    until("it is kept alive by what it knows now", || scene.old.asked("ping") > 5).await;
}

/// A server that knew `ping` is followed by one that closes the connection over it: no lease pays for that.
#[tokio::test]
async fn a_release_that_knew_ping_may_be_followed_by_one_that_does_not() {
    let scene = Scene::set(NEW, false).await;
    let builder = scene.builder().keepalive(Duration::from_millis(50));
    let client = builder.connect().await.unwrap();
    use_everything(&scene, &client).await;
    scene.old.become_another(OLD, true);
    scene.cut(&client).await;
    let asked = scene.old.asked("ping");
    // One by the pipelined connection, one that was won over a connection of its own.
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
    let renewals = scene.old.asked("n");
    until("both are kept alive for a while", || {
        scene.old.asked("n") > renewals + 20
    })
    .await;
    assert!(held.is_held() && won.is_held());
    assert_eq!(scene.old.asked("ping"), asked);
}

/// Behind one connection, too, another release may take over, where a proxy stands between.
#[tokio::test]
async fn a_ping_that_is_refused_on_a_connection_is_the_last_one_there() {
    let scene = Scene::set(NEW, false).await;
    let builder = scene.builder().keepalive(Duration::from_millis(50));
    let client = builder.connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let asked = scene.old.asked("ping");
    until("it is kept alive by pings", || scene.old.asked("ping") > asked + 2).await;
    scene.old.become_another(OLD, false);
    until("it is kept alive by renewals", || scene.old.asked("n") > 10).await;
    let asked = scene.old.asked("ping");
    let renewed = scene.old.asked("n");
    until("it goes on so", || scene.old.asked("n") > renewed + 10).await;
    assert_eq!(scene.old.asked("ping"), asked);
    assert!(guard.is_held());
}

/// Where the connection is closed over it, that is the loss of the connection, and the next one is asked before anything depends on it.
#[tokio::test]
async fn a_connection_that_is_closed_over_a_ping_is_lost_and_the_next_one_is_not() {
    let scene = Scene::set(NEW, false).await;
    let builder = scene.builder().keepalive(Duration::from_millis(50));
    let client = builder.connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    scene.old.become_another(OLD, true);
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    let again = client.lock("again").unwrap().acquire().await.unwrap();
    let (asked, renewed) = (scene.old.asked("ping"), scene.old.asked("n"));
    until("it is kept alive by renewals", || scene.old.asked("n") > renewed + 20).await;
    assert_eq!(scene.old.asked("ping"), asked);
    assert!(again.is_held());
}

/// A client that emits goes on trying to connect for signals. The server is not asked each time.
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
    until("it was tried several times", || {
        recorded.value("connects_total", &refused) > 5.0
    })
    .await;
    assert_eq!((scene.old.asked("unlisten"), scene.old.asked("ping")), (1, 1));
    let alone = SignalConn::connect(&scene.old.address).await.unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::Unsupported, "{alone}");
}

/// A connection over which nothing was answered yet carries no wait: the server may be full.
#[tokio::test]
async fn a_wait_is_sent_only_to_a_server_that_has_answered_on_its_connection() {
    for (unknown, proof) in [(NEW, "ping"), (OLD, "n")] {
        let scene = Scene::set(unknown, true).await;
        let client = scene.builder().connect().await.unwrap();
        let held = client.lock("k").unwrap().acquire().await.unwrap();
        let asked = scene.old.asked(proof);
        let waiting = tokio::spawn({
            let lock = client.lock("k").unwrap();
            async move { lock.acquire().await }
        });
        until("it waits", || {
            scene.server.stats().locks.iter().any(|lock| lock.waiters == 1)
        })
        .await;
        assert_eq!(scene.old.asked(proof), asked + 1, "{proof}");
        held.release().await.unwrap();
        drop(waiting.await.unwrap().unwrap());
    }
}
