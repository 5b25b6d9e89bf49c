//! Builds of the server that do less, or more, than the newest.

use std::time::Duration;

use dflockd_client::server::{Cluster, EventKind, Server};
use dflockd_client::{Client, ErrorKind, LockGuard};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::cluster::{ClusterScene, LONG, patient, patiently, queued, until_served_by};

/// For so long what earlier builds leave behind is granted to no caller.
const SHORT: Duration = Duration::from_secs(1);

/// A renewal does not move a lease from the connection that was granted it, so the lease ends with that, and its holder hears so at the
/// next renewal, or when it releases.
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
async fn at_earlier_builds_a_wait_goes_on_at_the_end_of_the_queue_and_what_it_leaves_runs_out() {
    let builder = Cluster::builder().earlier_builds(true);
    let scene = ClusterScene::of(builder, Server::builder()).await;
    let holder = scene.client().await;
    let client = short_leases(&scene).await;
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    // The try that begins an acquire left a place, too.
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
async fn at_earlier_builds_nothing_is_held_twice_and_all_come_to_an_end_whatever_leaders_do() {
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
async fn builds_that_close_idle_connections_find_none_of_a_client_that_holds_and_waits() {
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
