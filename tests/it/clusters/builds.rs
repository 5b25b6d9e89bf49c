//! The client with earlier builds of the cluster, and with builds whose members close idle connections.

use std::time::Duration;

use dflockd_client::server::{Cluster, EventKind, Server};
use dflockd_client::{Client, ErrorKind, LockGuard};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::cluster::{ClusterScene, LONG, patient, patiently, queued, until_served_by};

/// The lease TTL of the clients. In earlier builds, an ended connection may leave behind a lease, which blocks the key
/// for this time.
const SHORT: Duration = Duration::from_secs(1);

/// Releases a guard whose lease may be lost. In earlier builds, a lease ends when the leader sees the end of the
/// connection that acquired it, even if another connection has renewed the lease. The holder learns of the loss at the
/// next renewal, or at the release.
async fn given_back(guard: LockGuard) {
    if let Err(error) = guard.release().await {
        assert_eq!(error.kind(), ErrorKind::NotHeld, "{error}");
    }
}

async fn short_leases(scene: &ClusterScene) -> Client {
    let builder = scene.builder().lease_ttl(SHORT).max_redirects(1000);
    builder.connect().await.unwrap()
}

#[tokio::test]
async fn at_earlier_builds_a_wait_continues_at_the_end_of_the_queue_and_its_old_position_expires() {
    let builder = Cluster::builder().earlier_builds(true);
    let scene = ClusterScene::of(builder, Server::builder()).await;
    let holder = scene.client().await;
    let client = short_leases(&scene).await;
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    // An acquire begins with a try. In earlier builds, the try leaves a queue position, and so does the wait.
    let lock = patiently(&client, "k");
    let wait = tokio::spawn(async move { lock.acquire().await });
    scene.until_waiters(2).await;
    scene.cluster.move_leader(1).unwrap();
    until_served_by(&client, &scene.cluster.addresses()[1]).await;
    scene.until_waiters(3).await;
    held.release().await.unwrap();
    given_back(timeout(LONG, wait).await.unwrap().unwrap().unwrap()).await;
    scene.until_free().await;
    scene.judge();
}

#[tokio::test]
async fn at_earlier_builds_no_key_is_held_twice_and_every_wait_ends_whatever_leaders_do() {
    for each in [Server::builder(), patient()] {
        let scene = ClusterScene::of(Cluster::builder().earlier_builds(true), each).await;
        let mut working = JoinSet::new();
        for _ in 0..2 {
            let client = short_leases(&scene).await;
            for task in 0..2 {
                let lock = patiently(&client, &format!("k{task}"));
                working.spawn(async move {
                    for _ in 0..2 {
                        given_back(lock.acquire().await.unwrap()).await;
                    }
                });
            }
        }
        for flap in 1..=4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            scene.cluster.move_leader(flap % 3).unwrap();
        }
        timeout(LONG, working.join_all()).await.unwrap();
        scene.until_free().await;
        assert!(scene.judge().grants >= 8);
    }
}

#[tokio::test]
async fn a_client_that_holds_and_waits_keeps_its_connections_at_builds_that_close_idle_ones() {
    let patience = Duration::from_millis(600);
    let builder = Cluster::builder().closes_idle_connections(true);
    let scene = ClusterScene::of(builder, Server::builder().read_timeout(patience)).await;
    let quick = || scene.builder().keepalive(patience / 6).reply_timeout(patience / 2);
    let client = quick().server_read_timeout(patience).connect().await.unwrap();
    let lock = client.lock("k").unwrap().lease_ttl(LONG).acquire_timeout(LONG);
    let held = lock.acquire().await.unwrap();
    let ticket = queued(&lock).await;
    let wait = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await }
    });
    scene.until_waiters(2).await;
    tokio::time::sleep(patience * 3).await;
    assert!(held.is_held());
    let lost = scene.count(EventKind::Disconnected) + scene.count(EventKind::Left);
    assert_eq!((lost, scene.waiters()), (0, 2));
    held.release().await.unwrap();
    let second = timeout(LONG, ticket.wait(LONG)).await.unwrap().unwrap();
    second.release().await.unwrap();
    let third = timeout(LONG, wait).await.unwrap().unwrap().unwrap();
    third.release().await.unwrap();
    assert_eq!(scene.judge().grants, 3);
}
