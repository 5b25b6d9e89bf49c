//! The documents list exactly the metrics, spans and log lines of the client. The dashboard and the alerts use only
//! these metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::fake::FakeServer;
use crate::support::proxy::Proxy;
use crate::support::recorder::Recorded;
use crate::support::sources::sources;
use crate::support::spans::{Spans, observe};
use crate::support::until;
use dflockd_client::protocol::{LineBuffer, RequestDecoder};
use dflockd_client::server::{Cluster, Server};
use dflockd_client::{
    AcquireRequest, Client, ClientBuilder, ErrorKind, FailoverReason, LeaseState, LostReason, Pattern, ReconnectPolicy,
    Shard, SignalEvent, SignalOptions, SubscribeRequest, Target,
};
use metrics::Unit;

const SOON: Duration = Duration::from_secs(20);

/// A client with a metrics recorder, which is connected through a proxy to an embedded server.
struct Scene {
    server: Server,
    proxy: Proxy,
    client: Client,
    recorded: Recorded,
}

impl Scene {
    async fn set(recorded: &Recorded) -> Self {
        Self::set_with(recorded, |builder| builder).await
    }

    async fn set_with(recorded: &Recorded, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        let with_signals = Server::builder().release("1.16");
        let server = with_signals.port(0).start().await.unwrap();
        let proxy = Proxy::start(&server.local_addr().to_string()).await;
        let builder = builder(recorded).servers([&proxy.address]);
        Self {
            client: change(builder).connect().await.unwrap(),
            server,
            proxy,
            recorded: recorded.clone(),
        }
    }

    async fn until_value(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        until_value(&self.recorded, name, labels, wanted).await;
    }
}

/// Configures a client with a metrics recorder and with short pauses between attempts to connect.
fn builder(recorded: &Recorded) -> ClientBuilder {
    let pauses = ReconnectPolicy::exponential(Duration::from_millis(5), Duration::from_millis(20));
    Client::builder().reconnect(pauses).metrics_recorder(recorded.clone())
}

async fn until_value(recorded: &Recorded, name: &str, labels: &[(&str, &str)], wanted: f64) {
    until(&format!("{name} {labels:?} is {wanted}"), || {
        recorded.value(name, labels) == wanted
    })
    .await;
}

async fn requests_and_leases(recorded: &Recorded) {
    let scene = Scene::set(recorded).await;
    let lock = scene.client.lock("secret-key").unwrap();
    let first = lock.acquire().await.unwrap();
    assert!(lock.try_acquire().await.unwrap().is_none());
    scene.until_value("leases_held", &[("kind", "lock")], 1.0).await;
    let waiting = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap() }
    });
    scene.until_value("waiters", &[("state", "server")], 1.0).await;
    let token = first.token().as_str().to_owned();
    first.release().await.unwrap();
    let second = waiting.await.unwrap();
    assert!(second.was_contended());
    scene.until_value("waiters", &[], 0.0).await;
    second.release().await.unwrap();
    let permit = scene.client.semaphore("s", 2).unwrap().acquire().await.unwrap();
    scene.until_value("leases_held", &[("kind", "semaphore")], 1.0).await;
    drop(permit);
    scene.until_value("leases_held", &[], 0.0).await;
    scene.client.stats().await.unwrap();

    let requests = |operation, outcome| {
        let labels = [("shard", "0"), ("operation", operation), ("outcome", outcome)];
        let total = recorded.value("requests_total", &labels);
        assert_eq!(
            total,
            recorded.samples("request_duration_seconds", &labels).len() as f64
        );
        total
    };
    assert_eq!(requests("acquire", "granted"), 3.0);
    assert_eq!(requests("try_acquire", "busy"), 1.0);
    assert_eq!(requests("release", "released"), 2.0);
    assert_eq!(requests("stats", "answered"), 1.0);
    let waits = |state| recorded.samples("acquire_wait_seconds", &[("state", state)]).len();
    assert_eq!((waits("uncontended"), waits("contended")), (2, 1));
    let holds = recorded.samples("hold_duration_seconds", &[("outcome", "released")]);
    assert_eq!(holds.len(), 3);
    assert_eq!(recorded.value("waiters_limit", &[]), 65_536.0);
    assert!(!recorded.samples("batch_size", &[]).is_empty());
    assert!(
        recorded
            .samples("pipeline_depth", &[])
            .iter()
            .all(|depth| *depth >= 1.0)
    );
    for value in recorded.label_values() {
        assert!(!value.contains("secret") && !value.contains(&token[8..]), "{value}");
    }
}

#[tokio::test]
async fn requests_and_leases_are_counted() {
    requests_and_leases(&Recorded::default()).await;
}

async fn more_waiters_than_connections(recorded: &Recorded) {
    let scene = Scene::set_with(recorded, |builder| builder.exclusive_connections(1)).await;
    let lock = scene.client.lock("k").unwrap();
    let held = lock.acquire().await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let lock = lock.clone();
        waiting.spawn(async move { lock.acquire().await.unwrap().release().await.unwrap() });
    }
    scene.until_value("waiters", &[("state", "local")], 2.0).await;
    scene.until_value("waiters", &[("state", "server")], 1.0).await;
    let exhausted = |reason| recorded.value("wait_connections_exhausted_total", &[("reason", reason)]);
    assert_eq!(
        exhausted("limit"),
        0.0,
        "no other key needs a connection, so the limit is not counted"
    );
    let other = scene.client.lock("other").unwrap();
    let held_too = other.acquire().await.unwrap();
    waiting.spawn(async move { other.acquire().await.unwrap().release().await.unwrap() });
    scene.until_value("waiters", &[("state", "local")], 3.0).await;
    scene
        .until_value("wait_connections_exhausted_total", &[("reason", "limit")], 1.0)
        .await;
    // One caller waits for `other` in the client. After this release, the client sends a try for this caller.
    held_too.release().await.unwrap();
    scene
        .until_value("wait_tries_total", &[("outcome", "granted")], 1.0)
        .await;
    held.release().await.unwrap();
    waiting.join_all().await;
    assert_eq!(exhausted("server_full") + exhausted("not_established"), 0.0);
    scene.until_value("waiters", &[], 0.0).await;
}

#[tokio::test]
async fn waiters_are_counted_by_where_they_wait() {
    more_waiters_than_connections(&Recorded::default()).await;
}

async fn renewals_and_losses(recorded: &Recorded) {
    let scene = Scene::set(recorded).await;
    let one_second = |key: &str| scene.client.lock(key).unwrap().lease_ttl(Duration::from_secs(1));
    let kept = one_second("kept").acquire().await.unwrap();
    until("two renewals were confirmed", || {
        recorded.value("renewals_total", &[("outcome", "renewed")]) >= 2.0
    })
    .await;
    let headroom = recorded.samples("renewal_headroom_seconds", &[]);
    // The client renews the lease 450 ms to 500 ms after the grant. It would report the lease lost 66 ms before the end
    // of the TTL, which is 1 s.
    assert!(headroom.iter().all(|left| *left > 0.0 && *left < 0.6), "{headroom:?}");
    let ratios = recorded.samples("renewal_headroom_ratio", &[]);
    assert!(
        ratios
            .iter()
            .zip(&headroom)
            .all(|(ratio, left)| (ratio - left).abs() < 0.001),
        "{ratios:?}"
    );
    kept.release().await.unwrap();

    let expires = one_second("expires").renew(false).acquire().await.unwrap();
    assert_eq!(expires.lost().await, LostReason::Expired);
    scene
        .until_value("leases_lost_total", &[("reason", "expired")], 1.0)
        .await;

    // Another connection releases the lease by its token.
    let rejected = one_second("rejected").acquire().await.unwrap();
    let mut wire = dflockd_client::protocol::functions::Wire::new(
        tokio::net::TcpStream::connect(scene.server.local_addr()).await.unwrap(),
    );
    dflockd_client::protocol::functions::release(&mut wire, rejected.key(), rejected.token())
        .await
        .unwrap();
    assert_eq!(rejected.lost().await, LostReason::Rejected);
    scene
        .until_value("leases_lost_total", &[("reason", "rejected")], 1.0)
        .await;
    assert_eq!(recorded.value("renewals_total", &[("outcome", "rejected")]), 1.0);

    let cut = scene.client.lock("cut").unwrap().acquire().await.unwrap();
    scene.proxy.cut();
    assert_eq!(cut.lost().await, LostReason::Disconnected);
    scene
        .until_value("leases_lost_total", &[("reason", "disconnected")], 1.0)
        .await;
    scene.until_value("reconnects_total", &[], 1.0).await;

    let last = scene.client.lock("last").unwrap().acquire().await.unwrap();
    let report = scene.client.shutdown(SOON).await;
    assert_eq!(report.released, 1);
    assert_eq!(last.lost().await, LostReason::Shutdown);
    assert_eq!(recorded.value("leases_lost_total", &[("reason", "shutdown")]), 1.0);
    assert_eq!(
        recorded.samples("hold_duration_seconds", &[("outcome", "lost")]).len(),
        4
    );
    scene.until_value("leases_held", &[], 0.0).await;
}

#[tokio::test]
async fn renewals_and_losses_are_counted() {
    renewals_and_losses(&Recorded::default()).await;
}

async fn unanswered_renewals(recorded: &Recorded) {
    let scene = Scene::set_with(recorded, |builder| builder.survives_disconnect(true)).await;
    let lock = scene.client.lock("k").unwrap().lease_ttl(Duration::from_secs(2));
    let guard = lock.acquire().await.unwrap();
    scene.proxy.change(|treatment| treatment.stall_down = true);
    until("a renewal is on its way", || {
        recorded.samples("batch_size", &[]).len() == 2
    })
    .await;
    scene.proxy.change(|treatment| treatment.refuse = true);
    scene.proxy.cut();
    scene
        .until_value("renewals_total", &[("outcome", "unanswered")], 1.0)
        .await;
    drop(guard);
}

#[tokio::test]
async fn an_unanswered_renewal_is_counted() {
    unanswered_renewals(&Recorded::default()).await;
}

async fn connections(recorded: &Recorded) {
    let scene = Scene::set(recorded).await;
    scene.until_value("shards_connected", &[], 1.0).await;
    scene
        .until_value("connections", &[("kind", "pipelined"), ("state", "up")], 1.0)
        .await;
    assert_eq!(
        recorded.value("connects_total", &[("kind", "pipelined"), ("outcome", "connected")]),
        1.0
    );
    assert_eq!(
        recorded.value("reconnects_total", &[]),
        0.0,
        "the first connection is not a reconnect"
    );
    scene.client.stats().await.unwrap();
    assert_eq!(
        recorded.value("connections", &[("kind", "disposable"), ("state", "up")]),
        1.0
    );

    scene.proxy.change(|treatment| treatment.refuse = true);
    scene.proxy.cut();
    scene.until_value("shards_connected", &[], 0.0).await;
    let lock = scene.client.lock("k").unwrap();
    let kept = tokio::spawn(async move { lock.acquire().await.map(drop) });
    scene.until_value("requests_queued", &[], 1.0).await;
    until("attempts have failed", || {
        recorded.value("connects_total", &[("kind", "pipelined"), ("outcome", "connect")]) >= 2.0
    })
    .await;
    let lost = [("kind", "pipelined"), ("reason", "disconnected")];
    assert_eq!(recorded.value("disconnects_total", &lost), 1.0);
    scene.proxy.pass_everything();
    kept.await.unwrap().unwrap();
    scene.until_value("requests_queued", &[], 0.0).await;
    assert_eq!(
        (
            recorded.value("shards_connected", &[]),
            recorded.value("reconnects_total", &[])
        ),
        (1.0, 1.0)
    );

    assert_eq!(
        recorded.value("build_info", &[("version", dflockd_client::VERSION)]),
        1.0
    );
    drop(scene.client);
    until("all gauges are back at zero", || {
        ["build_info", "shards_connected", "connections"]
            .iter()
            .all(|name| recorded.value(name, &[]) == 0.0)
    })
    .await;
}

#[tokio::test]
async fn connections_are_counted() {
    connections(&Recorded::default()).await;
}

async fn orphans(recorded: &Recorded) {
    let scene = Scene::set(recorded).await;
    let lock = scene.client.lock("k").unwrap();
    scene.proxy.change(|treatment| treatment.stall_down = true);
    let acquiring = tokio::spawn(async move { lock.acquire().await.map(drop) });
    until("the server has granted the key", || {
        !scene.server.stats().locks.is_empty()
    })
    .await;
    acquiring.abort();
    assert!(acquiring.await.unwrap_err().is_cancelled());
    scene.proxy.pass_everything();
    scene
        .until_value("orphan_grants_released_total", &[("kind", "lock")], 1.0)
        .await;
    assert_eq!(
        recorded.value("requests_total", &[("operation", "acquire"), ("outcome", "dropped")]),
        1.0
    );
    until("the key is free", || scene.server.stats().locks.is_empty()).await;
}

#[tokio::test]
async fn orphans_are_counted() {
    orphans(&Recorded::default()).await;
}

async fn redirects(recorded: &Recorded) {
    let server = FakeServer::start(|mut connection, _| async move {
        connection.handshake().await;
        while let Some([command, ..]) = connection.request().await {
            let answer = if command == "ping" {
                "ok\n"
            } else {
                "error_not_leader 10.0.0.1:6388\n"
            };
            connection.say(answer).await;
        }
    })
    .await;
    let builder = Client::builder()
        .servers([&server.address])
        .metrics_recorder(recorded.clone());
    let client = builder.connect().await.unwrap();
    let error = client.lock("k").unwrap().acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotLeader, "{error}");
    assert_eq!(recorded.value("redirects_total", &[("shard", "0")]), 1.0);
    let outcome = [("operation", "acquire"), ("outcome", "not_leader")];
    assert_eq!(recorded.value("requests_total", &outcome), 1.0);
}

#[tokio::test]
async fn redirects_are_counted() {
    redirects(&Recorded::default()).await;
}

async fn a_transition(recorded: &Recorded) {
    let (first, second) = (
        Scene::set(&Recorded::default()).await,
        Scene::set(&Recorded::default()).await,
    );
    let both = [&first.proxy.address, &second.proxy.address].map(String::as_str);
    let builder = Client::builder().servers(both).metrics_recorder(recorded.clone());
    let of_now = builder.clone().connect().await.unwrap();
    assert_eq!(recorded.value("transitions", &[]), 0.0);
    let moves = builder
        .previous_servers([both[0]])
        .previous_sharding_strategy(dflockd_client::stable_hash_shard);
    let client = moves.connect().await.unwrap();
    let shown = ["transitions", "build_info"].map(|name| recorded.value(name, &[]));
    assert_eq!(shown, [1.0, 2.0]);
    let labels = &recorded.touched()["dflockd_client_transitions"];
    assert!(labels.iter().eq(["lists"]), "{labels:?}");
    drop(client);
    until("the gauge is back at zero", || {
        recorded.value("transitions", &[]) == 0.0
    })
    .await;
    drop(of_now);
}

#[tokio::test]
async fn clients_whose_keys_move_are_counted() {
    a_transition(&Recorded::default()).await;
}

/// Returns the `serving` gauge of shard 0 for each of these addresses.
fn serving<const N: usize>(recorded: &Recorded, addresses: [&str; N]) -> [f64; N] {
    addresses.map(|address| recorded.value("serving", &[("shard", "0"), ("endpoint", address)]))
}

/// Returns how often another server has taken over, for each reason: the previous server was lost, the previous server
/// was deposed, or the change was requested.
fn failovers(recorded: &Recorded) -> [f64; 3] {
    ["lost", "deposed", "requested"]
        .map(|reason| recorded.value("failovers_total", &[("shard", "0"), ("reason", reason)]))
}

/// The leadership of a cluster moves to another member. Then this member is stopped.
async fn leaders_that_change(recorded: &Recorded) {
    let kept = Duration::from_secs(600);
    let each = Server::builder().orphan_ttl(kept);
    let cluster = Cluster::builder().options(each).start().await.unwrap();
    let addresses = cluster.addresses();
    let [a, b, c] = [0, 1, 2].map(|member| addresses[member].as_str());
    let client = builder(recorded).shards([Shard::cluster([a, b, c]).orphan_ttl(kept)]);
    let client = client.connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    until("the first leads", || serving(recorded, [a, b, c]) == [1.0, 0.0, 0.0]).await;
    assert_eq!(failovers(recorded), [0.0, 0.0, 0.0]);
    assert!(
        ["deposed", "requested"]
            .iter()
            .all(|reason| recorded.label_values().contains(*reason)),
        "the counters start at 0, so that the first failover is an increase"
    );
    assert_eq!(recorded.value("redirects_total", &[]), 0.0);

    cluster.move_leader(1).unwrap();
    let probe = client.lock("probe").unwrap().acquire().await.unwrap();
    probe.release().await.unwrap();
    assert_eq!(failovers(recorded), [0.0, 1.0, 0.0]);
    assert_eq!(recorded.value("redirects_total", &[("shard", "0")]), 1.0);
    until("the second leads", || serving(recorded, [a, b, c]) == [0.0, 1.0, 0.0]).await;

    cluster.stop(1).await.unwrap();
    until("no member leads", || serving(recorded, [a, b, c]) == [0.0, 0.0, 0.0]).await;
    cluster.move_leader(2).unwrap();
    until("the third leads", || serving(recorded, [a, b, c]) == [0.0, 0.0, 1.0]).await;
    assert_eq!(failovers(recorded), [1.0, 1.0, 0.0]);
    until("the lease is renewed", || guard.state() == LeaseState::Held).await;
    assert_eq!(recorded.value("leases_lost_total", &[]), 0.0);
    client.barrier().await.unwrap();
    let answered = [("shard", "0"), ("operation", "barrier"), ("outcome", "answered")];
    assert_eq!(recorded.value("requests_total", &answered), 1.0);
    guard.release().await.unwrap();
    drop(client);
    until("the gauge is back at zero", || recorded.value("serving", &[]) == 0.0).await;
}

/// The standby takes over, and the primary serves again on request. The client loses its leases at both changes, even
/// though the servers keep a lease whose connection has ended.
async fn a_standby_that_takes_over(recorded: &Recorded) {
    let options = Server::builder().port(0).auto_release_on_disconnect(false);
    let (primary, standby) = (options.clone().start().await.unwrap(), options.start().await.unwrap());
    let proxy = Proxy::start(&primary.local_addr().to_string()).await;
    let reserve = standby.local_addr().to_string();
    let (a, b) = (proxy.address.as_str(), reserve.as_str());
    let shard = Shard::standby([a, b]).takeover_delay(Duration::from_millis(1));
    let client = builder(recorded).shards([shard]).survives_disconnect(true);
    let client = client.connect().await.unwrap();
    let lock = client.lock("k").unwrap();
    let first = lock.acquire().await.unwrap();

    proxy.change(|treatment| treatment.refuse = true);
    proxy.cut();
    assert_eq!(first.lost().await, LostReason::Disconnected);
    until("the standby serves", || serving(recorded, [a, b]) == [0.0, 1.0]).await;
    assert_eq!(failovers(recorded), [1.0, 0.0, 0.0]);

    let second = lock.acquire().await.unwrap();
    proxy.pass_everything();
    client.failback(0).await.unwrap();
    assert_eq!(second.lost().await, LostReason::Failback);
    until("the primary serves", || serving(recorded, [a, b]) == [1.0, 0.0]).await;
    assert_eq!(failovers(recorded), [1.0, 0.0, 1.0]);
    let lost = |reason| recorded.value("leases_lost_total", &[("shard", "0"), ("reason", reason)]);
    assert_eq!((lost("disconnected"), lost("failback")), (1.0, 1.0));
    let answered = [("shard", "0"), ("operation", "failback"), ("outcome", "answered")];
    assert_eq!(recorded.value("requests_total", &answered), 1.0);
}

#[tokio::test]
async fn failovers_are_counted_by_reason_and_the_serving_server_is_shown() {
    leaders_that_change(&Recorded::default()).await;
    a_standby_that_takes_over(&Recorded::default()).await;
}

#[tokio::test]
async fn a_standalone_server_has_no_failovers_to_count() {
    let recorded = Recorded::default();
    let scene = Scene::set(&recorded).await;
    until("it serves", || serving(&recorded, [&scene.proxy.address]) == [1.0]).await;
    assert!(!recorded.label_values().contains("deposed"));
}

async fn signals(recorded: &Recorded) {
    let scene = Scene::set(recorded).await;
    let options = SignalOptions::default().buffer(2);
    let share = SubscribeRequest::new(Pattern::new("a.*").unwrap()).options(options);
    let mut conn = scene.client.subscribe_with(share).await.unwrap();
    scene.until_value("signal_subscriptions", &[], 1.0).await;
    assert_eq!(
        recorded.value("connections", &[("kind", "signals"), ("state", "up")]),
        1.0
    );
    for number in 0..5 {
        assert_eq!(scene.client.emit("a.b", number.to_string()).await.unwrap(), 1);
    }
    scene
        .until_value("signals_received_total", &[("shard", "0")], 5.0)
        .await;
    assert_eq!(recorded.value("signals_dropped_total", &[]), 3.0);
    let emitted = [("operation", "emit"), ("outcome", "delivered"), ("shard", "0")];
    assert_eq!(recorded.value("requests_total", &emitted), 5.0);
    let subscribed = [("operation", "subscribe"), ("outcome", "subscribed")];
    assert_eq!(recorded.value("requests_total", &subscribed), 1.0);
    scene.proxy.cut();
    while !matches!(conn.next_event().await.unwrap(), SignalEvent::Restored { .. }) {}
    // The cut also ended the connection over which the client emits. This connection has no gap, because it receives
    // no signals.
    assert_eq!(recorded.value("signal_gaps_total", &[]), 1.0);
    drop(conn);
    scene.until_value("signal_subscriptions", &[], 0.0).await;
}

#[tokio::test]
async fn signals_are_counted() {
    signals(&Recorded::default()).await;
}

#[tokio::test]
async fn keys_have_classes_on_request_and_clients_of_one_recorder_add_up() {
    let recorded = Recorded::default();
    let classes = |builder: ClientBuilder| builder.key_class(|key| key.split('/').next().unwrap_or("other"));
    let (a, b) = (
        Scene::set_with(&recorded, classes).await,
        Scene::set_with(&recorded, classes).await,
    );
    let _guards = [
        a.client.lock("orders/1").unwrap().acquire().await.unwrap(),
        a.client.lock("orders/2").unwrap().acquire().await.unwrap(),
        b.client.lock("users/1").unwrap().acquire().await.unwrap(),
    ];
    assert_eq!(recorded.value("requests_total", &[("key_class", "orders")]), 2.0);
    assert_eq!(
        recorded
            .samples("acquire_wait_seconds", &[("key_class", "users")])
            .len(),
        1
    );
    a.until_value("leases_held", &[], 3.0).await;
    assert_eq!(
        (
            recorded.value("build_info", &[]),
            recorded.value("shards_connected", &[])
        ),
        (2.0, 2.0)
    );
}

/// Returns the rows of the tables whose first column has this heading. A row's key in the map is the name in backquotes
/// in its first cell, and its value is the other cells.
fn documented(heading: &str) -> BTreeMap<String, Vec<String>> {
    let mut rows = BTreeMap::new();
    let mut inside = false;
    for line in document("docs/guide/src/observability-reference.md").lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        match line.starts_with('|') {
            false => inside = false,
            true if cells[0] == heading => inside = true,
            true if inside && cells[0].starts_with('`') => {
                let name = cells[0].trim_matches('`').to_owned();
                let rest = cells[1..].iter().map(|cell| (*cell).to_owned()).collect();
                assert!(rows.insert(name, rest).is_none(), "twice: {line}");
            }
            true => {}
        }
    }
    assert!(!rows.is_empty(), "no table of {heading}");
    rows
}

fn document(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns all texts in backquotes in this cell.
fn words(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_metrics_and_recorded_metrics_are_the_same() {
    let recorded = Recorded::default();
    requests_and_leases(&recorded).await;
    // Every other scenario has a recorder of its own, because it expects counts from 0. The test merges the metrics.
    let mut touched = recorded.touched();
    let mut run = async |scenario: &str| {
        let recorded = Recorded::default();
        match scenario {
            "waiters" => more_waiters_than_connections(&recorded).await,
            "losses" => renewals_and_losses(&recorded).await,
            "connections" => connections(&recorded).await,
            "orphans" => orphans(&recorded).await,
            "signals" => signals(&recorded).await,
            "leaders" => leaders_that_change(&recorded).await,
            "standby" => a_standby_that_takes_over(&recorded).await,
            "transition" => a_transition(&recorded).await,
            _ => redirects(&recorded).await,
        }
        for (name, labels) in recorded.touched() {
            touched.entry(name).or_default().extend(labels);
        }
    };
    for scenario in [
        "waiters",
        "losses",
        "connections",
        "orphans",
        "signals",
        "redirects",
        "leaders",
        "standby",
        "transition",
    ] {
        run(scenario).await;
    }
    let documented = documented("metric");
    let labels: BTreeMap<String, BTreeSet<String>> = documented
        .iter()
        .map(|(name, cells)| (name.clone(), words(&cells[1])))
        .collect();
    assert_eq!(touched, labels);
    let explained = self::documented("label");
    for label in labels.values().flatten() {
        assert!(explained.contains_key(label), "no document explains the label {label}");
    }

    let described = recorded.descriptions();
    assert_eq!(
        described.keys().collect::<Vec<_>>(),
        documented.keys().collect::<Vec<_>>(),
        "all metrics are described"
    );
    for (name, description) in &described {
        assert_eq!(description.kind, documented[name][0], "{name}");
        assert_eq!(
            description.unit == Some(Unit::Seconds),
            name.ends_with("_seconds"),
            "{name}"
        );
        assert!(!description.help.is_empty());
    }
}

#[test]
fn every_label_value_for_an_error_or_a_loss_is_documented() {
    let labels = documented("label");
    let outcomes = words(&labels["outcome"][0]);
    for outcome in ["granted", "dropped", "not_leader", "layer", "shutdown", "lease_lost"] {
        assert!(outcomes.contains(outcome), "{outcome}");
    }
    let reasons = words(&labels["reason"][0]);
    for reason in [
        LostReason::Expired,
        LostReason::Rejected,
        LostReason::Disconnected,
        LostReason::ServerDraining,
        LostReason::ShardGone,
        LostReason::Shutdown,
        LostReason::Failback,
    ] {
        assert!(reasons.contains(reason.as_str()), "{reason:?}");
    }
    for reason in [FailoverReason::Lost, FailoverReason::Deposed, FailoverReason::Requested] {
        assert!(reasons.contains(reason.as_str()), "{reason:?}");
    }
    let operations = words(&labels["operation"][0]);
    for operation in documented("span")
        .keys()
        .filter_map(|span| span.strip_prefix("dflockd."))
    {
        let is_request = !["wait", "renew", "reconnect"].contains(&operation);
        assert_eq!(operations.contains(operation), is_request, "{operation}");
    }
}

/// Returns the names of this crate's metrics in a query, without the suffixes of a histogram's series.
fn metrics_in(query: &str) -> BTreeSet<String> {
    let histograms = ["_bucket", "_sum", "_count"];
    query
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("dflockd_client_"))
        .map(|word| {
            let suffix = histograms.iter().find_map(|suffix| word.strip_suffix(suffix));
            suffix.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn dashboard_and_alerts_use_existing_metrics() {
    let known = documented("metric");
    let dashboard: serde_json::Value = serde_json::from_str(&document("docs/grafana/dflockd-client.json")).unwrap();
    let mut queries = Vec::new();
    let mut panels = vec![&dashboard];
    while let Some(value) = panels.pop() {
        match value {
            serde_json::Value::Object(fields) => {
                queries.extend(fields.get("expr").and_then(|expr| expr.as_str()).map(str::to_owned));
                panels.extend(fields.values());
            }
            serde_json::Value::Array(values) => panels.extend(values),
            _ => {}
        }
    }
    assert!(queries.len() >= 10, "{queries:?}");
    let alerts = document("docs/prometheus/alerts.yml");
    let mut used = BTreeSet::new();
    for query in queries.iter().map(String::as_str).chain([alerts.as_str()]) {
        let names = metrics_in(query);
        assert!(!names.is_empty(), "this query uses no metric of this crate: {query}");
        used.extend(names);
    }
    for name in &used {
        assert!(known.contains_key(name), "there is no {name}");
        // If the metric is a histogram, the queries name its series. Otherwise they name the metric itself.
        let by_series = queries
            .iter()
            .map(String::as_str)
            .chain([alerts.as_str()])
            .any(|query| {
                ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|suffix| query.contains(&format!("{name}{suffix}")))
            });
        assert_eq!(by_series, known[name][0] == "histogram", "{name}");
    }
    for topic in [
        "leases_lost_total",
        "acquire_wait_seconds",
        "requests_total",
        "renewal_headroom_ratio",
        "leases_held",
        "request_duration_seconds",
        "waiters",
        "waiters_limit",
        "connections",
        "connects_total",
        "reconnects_total",
        "redirects_total",
        "failovers_total",
        "serving",
    ] {
        assert!(
            used.contains(&format!("dflockd_client_{topic}")),
            "no panel and no alert uses {topic}"
        );
    }
    let page = document("docs/guide/src/observability-reference.md");
    for (alert, cells) in &documented("alert") {
        assert!(alerts.contains(&format!("- alert: {alert}\n")), "{alert}");
        let (_, rule) = alerts.split_once(&format!("- alert: {alert}\n")).unwrap();
        let severity = format!("          severity: {}\n", cells[0]);
        let runbook = format!(
            "          runbook_url: docs/guide/src/observability-reference.md#{}\n",
            alert.to_lowercase()
        );
        let rule = rule.split("- alert: ").next().unwrap();
        assert!(rule.contains(&severity) && rule.contains(&runbook), "{alert}: {rule}");
        assert!(
            page.contains(&format!("\n### {alert}\n")),
            "no section says what to do about {alert}"
        );
    }
    assert_eq!(alerts.matches("- alert: ").count(), documented("alert").len());
}

#[test]
fn the_dashboard_filters_by_client_shard_and_key_class() {
    let dashboard: serde_json::Value = serde_json::from_str(&document("docs/grafana/dflockd-client.json")).unwrap();
    let variables: Vec<_> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        variables,
        ["datasource", "job", "instance", "client", "shard", "key_class"]
    );
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for target in panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten() {
        let query = target["expr"].as_str().unwrap();
        for selector in query.split("dflockd_client_").skip(1) {
            let (name, rest) = selector.split_once('{').unwrap();
            let conditions = rest.split_once('}').unwrap().0;
            assert!(conditions.contains("client=~\"$client\", shard=~\"$shard\""), "{query}");
            let is_classed = ["requests_", "request_duration_", "acquire_wait_"]
                .iter()
                .any(|start| name.starts_with(start))
                && name != "requests_queued";
            assert_eq!(conditions.contains("key_class=~\"$key_class\""), is_classed, "{query}");
        }
    }
}

/// The test runs on one thread, so that the subscriber of this thread sees all spans and log lines.
#[tokio::test(flavor = "current_thread")]
async fn spans_and_lines_match_the_document_and_contain_no_secret() {
    let spans = Spans::default();
    let _installed = spans.install();
    let recorded = Recorded::default();
    let scene = Scene::set_with(&recorded, |builder| builder.name("tester")).await;
    let lock = scene.client.lock("k").unwrap().lease_ttl(Duration::from_secs(1));
    let guard = lock.acquire().await.unwrap();
    let token = guard.token().as_str().to_owned();
    assert!(lock.try_acquire().await.unwrap().is_none());
    let dflockd_client::Enqueued::Queued(ticket) = lock.enqueue().await.unwrap() else {
        panic!("it is held");
    };
    until("the lease is renewed", || {
        spans.closed("dflockd.renew").contains("outcome=renewed")
    })
    .await;
    guard.release().await.unwrap();
    let guard = ticket.wait(SOON).await.unwrap();
    scene.client.stats().await.unwrap();
    let signals = scene.client.subscribe("orders.*").await.unwrap();
    scene.client.emit("orders.42", "paid").await.unwrap();
    scene.proxy.cut();
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    drop((guard, signals));
    until("the client is connected again", || {
        spans.closed("dflockd.reconnect").contains("attempts=1")
    })
    .await;
    leaders_that_change(&Recorded::default()).await;
    a_standby_that_takes_over(&Recorded::default()).await;

    let acquired = spans.closed("dflockd.acquire");
    assert!(acquired.contains("client=tester"), "{acquired}");
    for field in ["shard=0", "key=k", "kind=lock", "contended=false", "outcome=granted"] {
        assert!(acquired.contains(field), "{field}: {acquired}");
    }
    assert!(spans.closed("dflockd.collect").contains("contended=true"));
    assert!(spans.closed("dflockd.try_acquire").contains("outcome=busy"));
    assert!(
        spans
            .closed("dflockd.emit")
            .contains("dflockd.channel=orders.42 dflockd.outcome=delivered")
    );
    assert!(
        spans
            .closed("dflockd.subscribe")
            .contains("dflockd.pattern=orders.* dflockd.outcome=subscribed")
    );
    assert!(
        spans
            .closed("dflockd.renew")
            .contains(&format!("token={}…", &token[..8]))
    );

    let documented_spans = documented("span");
    let seen = spans.fields();
    assert_eq!(
        seen.keys().collect::<Vec<_>>(),
        documented_spans.keys().collect::<Vec<_>>(),
        "exactly the documented spans were opened"
    );
    let attributes = documented("attribute");
    let of_all = attributes.iter().filter(|(_, cells)| cells[0] == "requests");
    let common: BTreeSet<String> = of_all.map(|(name, _)| name.clone()).collect();
    let mut used = BTreeSet::new();
    for (name, (level, fields)) in &seen {
        let [documented_level, documented_fields, ..] = documented_spans[name].as_slice() else {
            panic!("{name}");
        };
        assert_eq!(level, documented_level, "{name}");
        let mut documented = words(documented_fields);
        if fields.contains("otel.kind") {
            documented.extend(common.iter().cloned());
        }
        assert_eq!(fields, &documented, "{name}");
        used.extend(fields.iter().cloned());
    }
    assert_eq!(used, attributes.into_keys().collect());
    assert!(spans.closed("dflockd.barrier").contains("outcome=answered"));
    assert!(spans.closed("dflockd.failback").contains("outcome=answered"));
    let everything = spans.everything();
    for line in [
        "connected",
        "leases lost",
        "another server took over",
        "leases lost: another server took over",
    ] {
        assert!(everything.contains(&format!("message={line} ")), "{line}: {everything}");
    }
    for reason in ["lost", "deposed", "requested"] {
        assert!(
            everything.contains(&format!("reason={reason} ")),
            "{reason}: {everything}"
        );
    }
    assert!(!everything.contains(&token[8..]), "a line contains a whole token");
    assert!(spans.foreign().is_empty(), "{:?}", spans.foreign());
}

/// The test runs on one thread, so that the subscriber of this thread sees all spans and log lines.
#[tokio::test(flavor = "current_thread")]
async fn the_name_of_a_client_is_in_its_lines_spans_and_metrics() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("info,dflockd_client=debug")
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let _installed = observe(subscriber.finish());
    let recorded = Recorded::default();
    let scene = Scene::set_with(&recorded, |builder| builder.name("billing")).await;
    let mut signals = scene.client.subscribe("a").await.unwrap();
    let guard = scene.client.lock("k").unwrap().acquire().await.unwrap();
    scene.proxy.cut();
    guard.lost().await;
    until("the client is connected again", || {
        scene.client.health()[0].is_connected()
    })
    .await;
    assert!(matches!(signals.next_event().await, Some(SignalEvent::Lost { .. })));
    drop(guard);
    scene
        .client
        .lock("k")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();

    let told = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let named = "dflockd_client{client=\"billing\"}:";
    for line in [
        ": connected shard=0",
        "connected for signals",
        "leases lost",
        "not connected shard=0",
        "not connected for signals",
        ": granted",
    ] {
        let line = told
            .lines()
            .find(|told| told.contains(line))
            .unwrap_or_else(|| panic!("{line}: {told}"));
        assert!(line.contains(named), "{line}");
    }
    for (name, labels) in recorded.touched() {
        assert!(labels.iter().any(|label| label == "client"), "{name}: {labels:?}");
    }
    let labels = [("client", "billing"), ("operation", "acquire"), ("outcome", "granted")];
    assert_eq!(recorded.value("requests_total", &labels), 2.0);
}

/// Returns the last string literal before the parenthesis that ends the call.
fn last_literal(call: &str) -> Option<&str> {
    let (mut depth, mut last, mut rest) = (1, None, call);
    loop {
        let at = rest.find(['(', ')', '"'])?;
        let (found, behind) = (&rest[at..=at], &rest[at + 1..]);
        rest = behind;
        match found {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {
                let end = behind.find('"')?;
                last = Some(&behind[..end]);
                rest = &behind[end + 1..];
            }
        }
        if depth == 0 {
            return last;
        }
    }
}

/// The document lists every line that the source can log, with its level, and no other lines.
#[test]
fn every_log_line_is_documented() {
    let mut in_source = BTreeMap::new();
    // The document does not list the lines of the embedded server. It describes them in one sentence.
    let all = sources();
    for (path, source) in all.iter().filter(|(path, _)| !path.starts_with("server/")) {
        for level in ["error", "warn", "info", "debug", "trace"] {
            for call in source.split(&format!("tracing::{level}!(")).skip(1) {
                let message = last_literal(call).unwrap_or_else(|| panic!("{path}: {call:.200}"));
                in_source.insert(message.to_owned(), level.to_owned());
            }
        }
    }
    let documented: BTreeMap<String, String> = documented("line")
        .into_iter()
        .map(|(line, cells)| (line, cells[0].clone()))
        .collect();
    assert_eq!(in_source, documented);
}

/// `Debug` output shows keys, times, states and addresses. It shows neither secrets nor internals.
#[tokio::test]
async fn debug_output_shows_keys_times_states_and_addresses() {
    let scene = Scene::set(&Recorded::default()).await;
    let client = &scene.client;
    let (lock, semaphore) = (client.lock("k").unwrap(), client.semaphore("s", 3).unwrap());
    let both = client.lock_all(["a", "b"]).unwrap();
    let (guard, permit) = (lock.acquire().await.unwrap(), semaphore.acquire().await.unwrap());
    let guards = both.acquire().await.unwrap();
    let place = lock.enqueue().await.unwrap();
    let signals = client.subscribe("a.>").await.unwrap();
    let wanted = AcquireRequest::new(Target::Lock, lock.key().clone());
    let mut decoder = RequestDecoder::default();
    decoder.read_space().extend_from_slice(b"auth\n_\nsecret");
    let mut lines = LineBuffer::default();
    lines.read_space().extend_from_slice(b"ok secret");
    let address = &scene.proxy.address;
    let shown = [
        (
            format!("{client:?}"),
            format!("Client {{ shards: [\"{address} connected\"], .. }}"),
        ),
        (
            format!("{lock:?}"),
            "Lock { key: \"k\", acquire_timeout: 10s, lease_ttl: None, renew_policy: RenewPolicy { renew: true, ratio: 0.5, jitter: 0.1, max_hold: None }, .. }".to_owned(),
        ),
        (
            format!("{semaphore:?}"),
            "Semaphore { key: \"s\", limit: 3, acquire_timeout: 10s, lease_ttl: None, renew_policy: RenewPolicy { renew: true, ratio: 0.5, jitter: 0.1, max_hold: None }, .. }".to_owned(),
        ),
        (
            format!("{both:?}"),
            "MultiLock { locks: [Lock { key: \"a\", ".to_owned(),
        ),
        (
            format!("{guard:?}"),
            "LockGuard(Lease { key: \"k\", kind: Lock, token: Token(".to_owned(),
        ),
        (
            format!("{permit:?}"),
            "SemaphorePermit(Lease { key: \"s\", kind: Semaphore, token: Token(".to_owned(),
        ),
        (
            format!("{guards:?}"),
            "MultiGuard([LockGuard(Lease { key: \"a\", ".to_owned(),
        ),
        (format!("{place:?}"), "Queued(Ticket { key: \"k\", .. })".to_owned()),
        (
            format!("{signals:?}"),
            "SignalConn { waiting: 0, dropped: 0, .. }".to_owned(),
        ),
        (
            format!("{wanted:?}"),
            "AcquireRequest { target: Lock, key: \"k\", acquire_timeout: 0ns, lease_ttl: None, renew_policy: None, .. }".to_owned(),
        ),
        (
            format!("{:?}", client.health()[0]),
            format!(
                "ShardHealth {{ shard: 0, endpoint: \"{address}\", failovers: 0, last_failover: None, state: Connected, for: "
            ),
        ),
        (
            format!("{decoder:?}"),
            "RequestDecoder { lines: 0, unread_bytes: 13, .. }".to_owned(),
        ),
        (format!("{lines:?}"), "LineBuffer { unread_bytes: 9, .. }".to_owned()),
    ];
    for (shown, expected) in shown {
        assert!(shown.starts_with(&expected), "{shown}");
    }
}
