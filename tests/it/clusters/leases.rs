//! What holders learn about their leases, and how many log entries an idle client causes in a cluster.

use std::time::Duration;

use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Client, ClientBuilder, Shard};
use tokio::time::{Instant, sleep_until, timeout};

use crate::support::cluster::{ClusterScene, Cut, LONG, SOON_SEEN, patient, patiently, queued, soon};
use crate::support::raw::RawConnection;
use crate::support::until;

#[tokio::test]
async fn a_ticket_that_is_collected_late_has_the_requested_ttl_and_not_that_of_its_answer() {
    let ttl = Duration::from_secs(4);
    let scene = super::forgetful().await;
    let holder = scene.client().await;
    let client = scene.client().await;
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let lock = client.lock("k").unwrap().lease_ttl(ttl).renew(false);
    let ticket = queued(&lock).await;
    held.release().await.unwrap();
    until("the ticket is granted", || scene.count(EventKind::Granted) == 2).await;
    // Waits until less than one second of the lease is left. The server then answers with its default TTL of 33 s,
    // because no whole second is left.
    sleep_until(Instant::now() + ttl.mul_f64(0.8)).await;
    let guard = timeout(LONG, ticket.wait(LONG)).await.unwrap().unwrap();
    assert!(guard.is_held());
    assert!(guard.remaining() <= ttl, "{:?}", guard.remaining());
    assert!(
        guard.remaining() > ttl / 4,
        "the client renewed the lease with the requested TTL"
    );
    timeout(LONG, guard.lost()).await.unwrap();
    assert_eq!(
        scene.count(EventKind::Expired),
        0,
        "the holder learns of the loss before the key is free"
    );
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 2);
}

fn last_log_index(stats: &str) -> u64 {
    let stats: serde_json::Value = serde_json::from_str(stats.strip_prefix("ok ").unwrap()).unwrap();
    stats["cluster"]["last_log_index"].as_u64().unwrap()
}

#[tokio::test]
async fn an_idle_client_costs_the_cluster_no_entry_of_its_log() {
    let scene = ClusterScene::set(patient()).await;
    let keepalive = Duration::from_millis(50);
    let client = scene.builder().keepalive(keepalive).connect().await.unwrap();
    let long = Duration::from_secs(600);
    let lock = client.lock("held").unwrap().lease_ttl(long);
    let held = lock.acquire().await.unwrap();
    let wait = tokio::spawn({
        let lock = scene.client().await.lock("held").unwrap().acquire_timeout(LONG);
        async move { lock.acquire().await.map(drop) }
    });
    scene.until_waiters(1).await;
    let ticket = queued(&lock).await;
    let mut observer = RawConnection::open(&scene.cluster.addresses()[1]).await;
    // The waiter's try came before its wait, so the cluster has already logged this try.
    let mut entries = last_log_index(&observer.request("stats", "_", "_").await);
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < keepalive * 20 {
        tokio::time::sleep(keepalive).await;
        let now = last_log_index(&observer.request("stats", "_", "_").await);
        assert!(now <= entries + 1, "{now} entries after {entries}");
        if now > entries {
            (entries, quiet_since) = (now, Instant::now());
        }
    }
    assert!(held.is_held());
    wait.abort();
    drop(ticket);
}

/// Configures a client that soon notices that a member does not answer.
fn notices_soon(builder: ClientBuilder) -> ClientBuilder {
    let patience = Duration::from_secs(1);
    builder
        .reconnect(soon())
        .keepalive(SOON_SEEN)
        .reply_timeout(patience)
        .connect_timeout(patience)
}

/// Starts a cluster, and a client that reaches each member through a proxy. The tests then isolate the leader, so that
/// it loses its majority.
async fn cluster_behind_proxies() -> (ClusterScene, Cut, Client) {
    // The server's read and write timeouts are longer than any test.
    let options = Server::builder()
        .read_timeout(Duration::from_secs(600))
        .write_timeout(Duration::from_secs(600));
    let scene = ClusterScene::set(options).await;
    let cut = Cut::of(&scene).await;
    let shard = Shard::cluster(cut.proxies.iter().map(|proxy| proxy.address.clone()));
    let client = Client::builder().shards([shard]).lease_ttl(Duration::from_secs(2));
    let client = notices_soon(client).connect().await.unwrap();
    (scene, cut, client)
}

#[tokio::test]
async fn holders_at_a_leader_without_a_majority_give_up_before_another_client_is_granted() {
    let (scene, cut, client) = cluster_behind_proxies().await;
    let held = client.lock("k").unwrap().acquire().await.unwrap();
    let other = notices_soon(scene.builder()).connect().await.unwrap();
    let lock = patiently(&other, "k");
    for proxy in &cut.proxies[1..] {
        proxy.change(|treatment| treatment.refuse = true);
    }
    scene.cluster.isolate(0).unwrap();
    scene.cluster.move_leader(1).unwrap();
    let got = timeout(LONG, lock.acquire()).await.unwrap().unwrap();
    assert!(!held.is_held(), "another client has the key: {:?}", held.state());
    got.release().await.unwrap();
    // A caller at the isolated leader gets an error at the caller's timeout (1 s), not at the leader's timeout (600 s).
    let lock = client.lock("free").unwrap().acquire_timeout(Duration::from_secs(1));
    timeout(LONG, lock.acquire()).await.unwrap().unwrap_err();
    assert_eq!(scene.judge().grants, 2);
}

#[tokio::test]
async fn clients_of_a_leader_without_a_majority_find_the_one_that_has_it() {
    let (scene, _cut, client) = cluster_behind_proxies().await;
    scene.cluster.isolate(0).unwrap();
    scene.cluster.move_leader(1).unwrap();
    let guard = timeout(LONG, patiently(&client, "k").acquire()).await.unwrap().unwrap();
    guard.release().await.unwrap();
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 1);
}
