//! A client with several pipelined connections: which requests each connection carries, and which leases are lost with
//! a connection.

use std::time::Duration;

use crate::support::cluster::{ClusterScene, patient, soon};
use crate::support::pair::{PRIMARY, Pair};
use crate::support::proxy::Proxy;
use crate::support::recorder::Recorded;
use crate::support::until;
use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Client, LockGuard, LostReason};

const CONNECTIONS: usize = 4;
const KEYS: usize = 64;

async fn acquire_all(client: &Client) -> Vec<LockGuard> {
    let mut guards = Vec::new();
    for index in 0..KEYS {
        guards.push(client.lock(format!("k{index}")).unwrap().acquire().await.unwrap());
    }
    guards
}

fn held(guards: &[LockGuard]) -> usize {
    guards.iter().filter(|guard| guard.is_held()).count()
}

#[tokio::test]
async fn a_connection_that_is_cut_costs_its_own_leases_only_and_is_opened_again() {
    let server = Server::builder().port(0).start().await.unwrap();
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let client = Client::builder()
        .servers([&proxy.address])
        .pipelined_connections(CONNECTIONS)
        .reconnect(soon())
        .connect()
        .await
        .unwrap();
    until("all connections are up", || {
        server.stats().connections == CONNECTIONS as u64
    })
    .await;
    let guards = acquire_all(&client).await;
    assert_eq!((held(&guards), proxy.accepted()), (KEYS, CONNECTIONS));
    for cut in 0..CONNECTIONS {
        let before = held(&guards);
        proxy.change(|treatment| treatment.cut_one = Some(cut));
        until("the leases are lost", || held(&guards) < before).await;
        until("the connection is replaced", || {
            server.stats().connections == CONNECTIONS as u64
        })
        .await;
        let lost = before - held(&guards);
        assert!(
            (1..=KEYS / 2).contains(&lost),
            "connection {cut} had {lost} of {KEYS} leases"
        );
        assert!(client.health()[0].is_connected());
    }
    assert_eq!(held(&guards), 0, "each lease belonged to one connection");
    for guard in &guards {
        assert_eq!(guard.lost().await, LostReason::Disconnected);
    }
    drop(guards);
    let again = acquire_all(&client).await;
    assert_eq!(held(&again), KEYS);
    let report = client.shutdown(Duration::from_secs(10)).await;
    assert_eq!((report.released, report.unreleased.len()), (KEYS, 0));
    until("no connection is left", || server.stats().connections == 0).await;
}

#[tokio::test]
async fn each_connection_is_kept_alive() {
    let server = Server::builder()
        .port(0)
        .read_timeout(Duration::from_millis(1500))
        .start()
        .await
        .unwrap();
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        .pipelined_connections(CONNECTIONS)
        .server_read_timeout(Duration::from_millis(1500))
        .keepalive(Duration::from_millis(200))
        .reply_timeout(Duration::from_millis(200))
        .lease_ttl(Duration::from_secs(600))
        .connect()
        .await
        .unwrap();
    until("all connections are up", || {
        server.stats().connections == CONNECTIONS as u64
    })
    .await;
    let guards = acquire_all(&client).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(held(&guards), KEYS);
    assert_eq!(server.stats().locks.len(), KEYS);
}

#[tokio::test]
async fn callers_of_one_key_take_turns_over_all_connections() {
    let server = Server::builder().port(0).record_events(true).start().await.unwrap();
    let recorded = Recorded::default();
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        .pipelined_connections(CONNECTIONS)
        .metrics_recorder(recorded.clone())
        .connect()
        .await
        .unwrap();
    let tasks: Vec<_> = (0..40)
        .map(|task| {
            let lock = client.lock(format!("k{}", task % 8)).unwrap();
            tokio::spawn(async move {
                for _ in 0..20 {
                    lock.acquire().await.unwrap().release().await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let events = server.events();
    let count = |kind| events.iter().filter(|event| event.kind == kind).count();
    assert_eq!((count(EventKind::Granted), count(EventKind::Released)), (800, 800));
    let up = recorded.value("connections", &[("shard", "0"), ("kind", "pipelined"), ("state", "up")]);
    assert_eq!(up, CONNECTIONS as f64);
}

#[tokio::test]
async fn the_leases_of_all_connections_survive_a_change_or_death_of_the_leader() {
    let scene = ClusterScene::set(patient()).await;
    let client = scene
        .builder()
        .pipelined_connections(CONNECTIONS)
        .connect()
        .await
        .unwrap();
    let guards = acquire_all(&client).await;
    for dies in [false, true] {
        let leader = scene.cluster.leader().unwrap();
        if dies {
            scene.cluster.stop(leader).await.unwrap();
        }
        let next = (leader + 1) % scene.cluster.addresses().len();
        scene.cluster.move_leader(next).unwrap();
        until("another leads", || client.health()[0].failovers == 1 + u64::from(dies)).await;
        until("all leases are confirmed", || held_by_state(&guards) == KEYS).await;
    }
    for guard in guards {
        guard.release().await.unwrap();
    }
    scene.until_free().await;
    scene.judge();
}

#[tokio::test]
async fn a_standby_gets_as_many_connections() {
    let mut pair = Pair::start().await;
    let shard = pair.shard().takeover_delay(Duration::from_millis(200));
    let client = Client::builder()
        .shards([shard])
        .pipelined_connections(CONNECTIONS)
        .reconnect(soon())
        .acquire_timeout(Duration::from_secs(30))
        .connect()
        .await
        .unwrap();
    let guards = acquire_all(&client).await;
    pair.kill(PRIMARY).await;
    for guard in &guards {
        assert_eq!(guard.lost().await, LostReason::Disconnected);
    }
    let again = acquire_all(&client).await;
    assert_eq!(held(&again), KEYS);
    let standby = pair.server(crate::support::pair::STANDBY);
    until("all connections are up", || {
        standby.stats().connections == CONNECTIONS as u64
    })
    .await;
}

/// Returns the number of leases that are held and not suspect.
fn held_by_state(guards: &[LockGuard]) -> usize {
    let state = dflockd_client::LeaseState::Held;
    guards.iter().filter(|guard| guard.state() == state).count()
}
