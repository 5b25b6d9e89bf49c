//! The orderly shutdown of a leader.

use dflockd_client::server::EventKind;
use dflockd_client::{LostReason, Shard};
use tokio::time::timeout;

use super::forgetful;
use crate::support::cluster::{ClusterScene, LONG, patient, patiently, queued};
use crate::support::raw::{Heard, RawConnection};
use crate::support::until;

#[tokio::test]
async fn an_orderly_shutdown_costs_no_waiter_and_no_release() {
    for at_server in [5, 2] {
        shut_down_with_waits(at_server).await;
    }
}

/// Five callers wait, and `at_server` of them wait at the server. A sixth caller waits with a ticket.
async fn shut_down_with_waits(at_server: usize) {
    let scene = ClusterScene::set(patient()).await;
    let holder = scene.client().await;
    let client = scene.builder().exclusive_connections_per_key(at_server);
    let client = client.connect().await.unwrap();
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let mut waits = Vec::new();
    for count in 1..=5 {
        let lock = patiently(&client, "k");
        waits.push(tokio::spawn(async move { lock.acquire().await?.release().await }));
        tokio::task::yield_now().await;
        scene.until_waiters(at_server.min(count) as u64).await;
    }
    let collected = queued(&patiently(&holder, "k")).await;
    waits.push(tokio::spawn(async move { collected.wait(LONG).await?.release().await }));
    scene.until_waiters(at_server as u64 + 1).await;
    let next = async {
        until("the waits are ended", || scene.count(EventKind::Left) >= at_server).await;
        let release = tokio::spawn(held.release());
        until("no member leads", || scene.cluster.leader().is_none()).await;
        scene.cluster.move_leader(1).unwrap();
        timeout(LONG, release).await.unwrap().unwrap().unwrap();
    };
    let (shut_down, ()) = tokio::join!(scene.cluster.shutdown(0), next);
    shut_down.unwrap();
    for wait in waits {
        timeout(LONG, wait).await.unwrap().unwrap().unwrap();
    }
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 7);
}

#[tokio::test]
async fn a_leader_that_keeps_nothing_takes_leases_with_it_and_their_holders_learn_of_it() {
    let scene = forgetful().await;
    let shard = Shard::cluster(scene.cluster.addresses());
    let client = scene.builder().shards([shard]).connect().await.unwrap();
    let held = client.lock("k").unwrap().acquire().await.unwrap();
    let lock = patiently(&client, "other");
    let next = async {
        let mut waits = RawConnection::open(&scene.cluster.addresses()[0]).await;
        waits.send("l\nk\n60 60\n").await;
        assert_eq!(waits.hear(LONG).await, Heard::Line("error".to_owned()), "it drains");
        let other = tokio::spawn(async move { lock.acquire().await });
        let why = timeout(LONG, held.lost()).await.unwrap();
        assert_eq!(why, LostReason::ServerDraining);
        drop(waits);
        until("no member leads", || scene.cluster.leader().is_none()).await;
        scene.cluster.move_leader(1).unwrap();
        timeout(LONG, other).await.unwrap().unwrap().unwrap()
    };
    let shutdown = async {
        scene.until_waiters(1).await;
        scene.cluster.shutdown(0).await
    };
    let (shut_down, other) = tokio::join!(shutdown, next);
    shut_down.unwrap();
    other.release().await.unwrap();
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 2);
}
