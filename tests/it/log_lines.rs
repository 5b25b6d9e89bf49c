//! Log lines about leases and connections. The tests in `observability` check that the reference lists all lines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::pair::{PRIMARY, Pair, of};
use crate::support::proxy::Proxy;
use crate::support::spans::{Line, Spans};
use crate::support::until;
use dflockd_client::server::Server;
use dflockd_client::{Client, Election, LockGuard, LockLayer, LostReason, Shard};
use tower::Layer;

/// A terminal that prints this key unescaped clears its screen.
const KEY: &str = "orders/\u{1b}[2J42";
const SHOWN: &str = "orders/\\u{1b}[2J42";

struct Scene {
    spans: Spans,
    server: Server,
    proxy: Proxy,
    client: Client,
}

impl Scene {
    async fn set() -> (Self, impl Sized) {
        let spans = Spans::default();
        let installed = spans.install();
        let server = Server::builder().port(0).start().await.unwrap();
        let proxy = Proxy::start(&server.local_addr().to_string()).await;
        let client = Client::builder()
            .name("tester")
            .servers([&proxy.address])
            .connect()
            .await
            .unwrap();
        let scene = Self {
            spans,
            server,
            proxy,
            client,
        };
        (scene, installed)
    }

    async fn hold(&self, count: usize) -> Vec<LockGuard> {
        let mut guards = Vec::new();
        for number in 0..count {
            guards.push(self.client.lock(format!("k{number}")).unwrap().acquire().await.unwrap());
        }
        guards
    }

    /// Returns the fields of the only line with this message.
    fn only(&self, level: &str, message: &str) -> BTreeMap<String, String> {
        only(&self.spans, level, message)
    }
}

fn only(spans: &Spans, level: &str, message: &str) -> BTreeMap<String, String> {
    assert_eq!(
        spans.nameless(),
        BTreeSet::new(),
        "each line of a client that has a name carries it"
    );
    let lines = spans.lines(message);
    let [line] = lines.as_slice() else {
        panic!("{message}: {lines:?}");
    };
    let Line { level: at, fields, .. } = line;
    assert_eq!(at, level, "{message}");
    fields.clone()
}

/// The test follows a lock, and then a slot of a semaphore, from the grant to the release.
#[tokio::test]
async fn a_grant_a_renewal_and_a_release_have_a_line_each() {
    let (scene, _installed) = Scene::set().await;
    let ttl = Duration::from_secs(1);
    let lock = scene.client.lock(KEY).unwrap().lease_ttl(ttl);
    let guard = lock.acquire().await.unwrap();
    let whole = guard.token().as_str().to_owned();
    let about = BTreeMap::from(
        [
            ("shard", "0"),
            ("endpoint", &*scene.proxy.address),
            ("key", SHOWN),
            ("kind", "lock"),
            ("token", &*format!("{}…", &whole[..8])),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let mut granted = about.clone();
    granted.insert("ttl".to_owned(), "1".to_owned());
    assert_eq!(scene.only("debug", "granted"), granted);
    until("the lease is renewed", || !scene.spans.lines("renewed").is_empty()).await;
    let renewed = scene.spans.lines("renewed").remove(0);
    assert_eq!((&*renewed.level, renewed.fields), ("debug", about.clone()));
    guard.release().await.unwrap();
    assert_eq!(scene.only("debug", "released"), about);

    let permit = scene.client.semaphore("s", 2).unwrap().acquire().await.unwrap();
    permit.release().await.unwrap();
    for message in ["granted", "released"] {
        let last = scene.spans.lines(message).pop().unwrap();
        assert_eq!(last.fields["kind"], "semaphore");
    }
    let everything = scene.spans.everything();
    assert!(
        !everything.contains(&whole) && !everything.contains('\u{1b}'),
        "{everything}"
    );
}

/// The text of the connector's error is in the source of the client's error. The client's error has another text.
#[tokio::test]
async fn the_line_of_a_failed_attempt_has_all_causes() {
    let spans = Spans::default();
    let _installed = spans.install();
    let refuses = async |_| Err::<tokio::net::TcpStream, _>(std::io::Error::other("the tunnel is closed"));
    let builder = Client::builder().name("tester").servers(["locks.internal:6388"]);
    let client = builder.connector(tower::service_fn(refuses)).build().unwrap();
    let subscriber = client.clone();
    tokio::spawn(async move { subscriber.subscribe("orders").await.map(drop) });
    for message in ["not connected", "not connected for signals"] {
        until(message, || !spans.lines(message).is_empty()).await;
        let line = spans.lines(message).remove(0);
        assert!(line.fields["error"].ends_with(": the tunnel is closed"), "{line:?}");
    }
    assert_eq!(spans.nameless(), BTreeSet::new());
}

#[tokio::test]
async fn a_refused_release_has_a_line() {
    let (scene, _installed) = Scene::set().await;
    let guard = scene.hold(1).await.remove(0);
    let mut thief = crate::support::raw::RawConnection::open(&scene.server.local_addr().to_string()).await;
    let token = guard.token().as_str().to_owned();
    assert_eq!(thief.request("r", "k0", &token).await, "ok");
    guard.release().await.unwrap_err();
    let fields = scene.only("debug", "not released");
    assert_eq!((&*fields["key"], &*fields["shard"]), ("k0", "0"));
    assert!(fields["error"].contains("not held"), "{fields:?}");
    assert!(scene.spans.lines("released").is_empty());
}

#[tokio::test]
async fn the_line_of_a_lost_connection_names_its_leases() {
    for count in [1, 3, 12] {
        let (scene, _installed) = Scene::set().await;
        let guards = scene.hold(count).await;
        scene.proxy.cut();
        for guard in &guards {
            assert_eq!(guard.lost().await, LostReason::Disconnected);
        }
        let fields = scene.only("warn", "leases lost");
        assert_eq!(fields["leases"], count.to_string());
        assert_eq!(fields["endpoint"], scene.proxy.address);
        let keys = match count {
            12 => fields["keys"].strip_suffix(" and 7 more").expect("there are more"),
            _ => &fields["keys"],
        };
        let named: BTreeSet<&str> = keys.split(", ").collect();
        assert_eq!(named.len(), count.min(5), "{fields:?}");
        assert!(
            named
                .iter()
                .all(|key| guards.iter().any(|guard| guard.key().as_str() == *key)),
            "{fields:?}"
        );
    }
}

#[tokio::test]
async fn the_line_of_expired_leases_names_them() {
    let (scene, _installed) = Scene::set().await;
    let lock = scene.client.lock(KEY).unwrap().lease_ttl(Duration::from_secs(1));
    let guard = lock.acquire().await.unwrap();
    scene.proxy.change(|treatment| treatment.stall_up = true);
    assert_eq!(guard.lost().await, LostReason::Expired);
    until("the line is there", || !scene.spans.lines("leases expired").is_empty()).await;
    assert_eq!(scene.only("warn", "leases expired")["keys"], SHOWN);
}

#[tokio::test]
async fn the_lines_of_a_takeover_and_a_failback_name_the_lost_leases() {
    let spans = Spans::default();
    let _installed = spans.install();
    let mut pair = Pair::start_with(Server::builder().auto_release_on_disconnect(false)).await;
    let shard = pair.shard().takeover_delay(Duration::from_millis(100));
    let client = of(shard)
        .name("tester")
        .survives_disconnect(true)
        .connect()
        .await
        .unwrap();
    let at_primary = client.lock("first").unwrap().acquire().await.unwrap();
    pair.kill(PRIMARY).await;
    assert_eq!(at_primary.lost().await, LostReason::Disconnected);
    let taken_over = only(&spans, "warn", "leases lost: another server took over");
    assert_eq!((&*taken_over["keys"], &*taken_over["leases"]), ("first", "1"));

    pair.restart(PRIMARY).await;
    until("the standby serves", || client.health()[0].is_connected()).await;
    let at_standby = client.lock("second").unwrap().acquire().await.unwrap();
    client.failback(0).await.unwrap();
    assert_eq!(at_standby.lost().await, LostReason::Failback);
    let back = only(&spans, "warn", "leases lost: the shard goes back to its first server");
    assert_eq!((&*back["keys"], &*back["leases"]), ("second", "1"));
}

#[test]
fn the_line_of_an_ended_runtime_names_its_leases() {
    let spans = Spans::default();
    let _installed = spans.install();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (_server, client, guard) = runtime.block_on(async {
        let server = Server::builder().port(0).start().await.unwrap();
        let shard = Shard::single(server.local_addr().to_string());
        let client = Client::builder()
            .name("tester")
            .shards([shard])
            .connect()
            .await
            .unwrap();
        let guard = client.lock("k").unwrap().acquire().await.unwrap();
        (server, client, guard)
    });
    drop(runtime);
    assert!(!guard.is_held());
    assert_eq!(
        only(&spans, "warn", "leases lost: the shard's actor ended")["keys"],
        "k"
    );
    drop(client);
}

/// Elections, layers and callbacks write log lines, some in tasks of callers and some in tasks of the client.
#[tokio::test]
async fn lines_from_the_tasks_of_callers_have_the_clients_name_too() {
    let spans = Spans::default();
    let _installed = spans.install();
    let server = Server::builder().port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    let proxy = Proxy::start(&address).await;
    let broken = |_: &_| panic!("broken on purpose");
    let builder = Client::builder()
        .name("tester")
        .servers([&proxy.address])
        .on_lost(broken);
    let client = builder.connect().await.unwrap();

    let other = Client::builder()
        .name("other")
        .servers([&address])
        .connect()
        .await
        .unwrap();
    let leader = other.lock("leader").unwrap().acquire().await.unwrap();
    let election = client.lock("leader").unwrap().acquire_timeout(Duration::ZERO);
    let campaign = tokio::spawn(async move { Election::new(election).campaign().await.map(drop) });
    let message = "not elected yet";
    until(message, || !spans.lines(message).is_empty()).await;
    campaign.abort();

    let token: Arc<Mutex<String>> = Arc::default();
    let stolen = Arc::clone(&token);
    let service = tower::service_fn(move |(): ()| {
        let (address, token) = (address.clone(), token.lock().unwrap().clone());
        async move {
            let mut thief = crate::support::raw::RawConnection::open(&address).await;
            assert_eq!(thief.request("r", "k", &token).await, "ok");
            Ok::<_, std::convert::Infallible>(())
        }
    });
    let layer = LockLayer::new(&client, |(): &()| "k");
    let layer = layer.on_acquired(move |(), guard| guard.token().as_str().clone_into(&mut stolen.lock().unwrap()));
    tower::ServiceExt::oneshot(layer.layer(service), ()).await.unwrap();
    only(
        &spans,
        "warn",
        "the lease of a request that was answered could not be released",
    );

    let held = client.lock("k").unwrap().acquire().await.unwrap();
    proxy.cut();
    held.lost().await;
    let message = "a callback for events panicked";
    until(message, || !spans.lines(message).is_empty()).await;
    leader.release().await.unwrap();
    only(&spans, "error", message);
}
