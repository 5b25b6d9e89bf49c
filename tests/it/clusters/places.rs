//! Queue positions that the client must end because the cluster does not. Some of them are ghosts: a ghost is the queue
//! position of a connection whose end the leader has not seen.

use std::time::Duration;

use dflockd_client::ErrorKind;
use dflockd_client::server::EventKind;
use tokio::time::timeout;

use super::{LONG_KEEPALIVE, forgetful};
use crate::support::cluster::{ClusterScene, Cut, LONG, patiently, queued, until_served_by};
use crate::support::until;

/// A caller waits for a held key for two seconds, and the leader changes during this wait.
async fn wait_during_change_of_leaders(keepalive: Duration) -> (ClusterScene, LeftAndReclaimed) {
    let scene = forgetful().await;
    let client = scene.builder().keepalive(keepalive).connect().await.unwrap();
    let held = scene.hold("k").await;
    let lock = client.lock("k").unwrap().acquire_timeout(Duration::from_secs(2));
    let wait = tokio::spawn(async move { lock.acquire().await.map(drop) });
    scene.until_waiters(1).await;
    scene.cluster.move_leader(1).unwrap();
    let error = timeout(LONG, wait).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    until("the wait has left the queue", || scene.waiters() == 0).await;
    let counts = (scene.count(EventKind::Left), scene.count(EventKind::Reclaimed));
    held.release().await.unwrap();
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 1, "every grant had a caller");
    (scene, counts)
}

/// The number of waiters that left the queue, and the number of queue positions that were reclaimed.
type LeftAndReclaimed = (usize, usize);

#[tokio::test]
async fn a_repeated_wait_that_times_out_leaves_the_queue() {
    // The client soon sees that another member leads, and reclaims its queue position there.
    let (scene, (left, reclaimed)) = wait_during_change_of_leaders(Duration::from_millis(200)).await;
    assert_eq!((left, reclaimed), (1, 1));
    assert_eq!(scene.count(EventKind::Queued), 1, "the wait kept its queue position");
}

#[tokio::test]
async fn a_wait_that_times_out_at_a_deposed_leader_leaves_the_queue_of_the_next() {
    // After the change of leaders, the first answer that the client gets is the `timeout` of its wait.
    let (_, (left, _)) = wait_during_change_of_leaders(LONG_KEEPALIVE).await;
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_ticket_that_times_out_after_a_change_of_leaders_leaves_the_queue() {
    let scene = forgetful().await;
    let client = scene.client().await;
    let held = scene.hold("k").await;
    let ticket = queued(&client.lock("k").unwrap()).await;
    scene.cluster.move_leader(1).unwrap();
    let error = timeout(LONG, ticket.wait(Duration::from_secs(1)))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    scene.until_waiters(0).await;
    held.release().await.unwrap();
    scene.ends_with_grants(1).await;
}

#[tokio::test]
async fn a_ticket_that_is_dropped_after_its_reclaim_leaves_the_queue() {
    let scene = forgetful().await;
    let client = scene.client().await;
    let held = scene.hold("k").await;
    let ticket = queued(&client.lock("k").unwrap()).await;
    scene.cluster.move_leader(1).unwrap();
    client.barrier().await.unwrap();
    until("the queue position is reclaimed", || {
        scene.count(EventKind::Reclaimed) == 1
    })
    .await;
    // To give up a queue position, the client sends a wait (`w`) with a timeout of 0. If the queue position was
    // reclaimed with an enqueue (`e`), the first such wait does not end it, so the client sends a second one.
    drop(ticket);
    scene.until_waiters(0).await;
    held.release().await.unwrap();
    scene.ends_with_grants(1).await;
}

#[tokio::test]
async fn a_wait_behind_its_own_ghost_goes_on_when_the_leader_sees_that_the_connection_has_ended() {
    let (scene, cut) = Cut::of_patient().await;
    let client = cut.client().await;
    let held = scene.hold("k").await;
    let lock = patiently(&client, "k");
    let wait = tokio::spawn(async move { lock.acquire().await });
    scene.until_waiters(1).await;
    scene.cluster.overlooks_ends(true);
    for proxy in &cut.proxies {
        proxy.cut();
    }
    scene.until_waiters(2).await;
    scene.cluster.overlooks_ends(false);
    scene.until_waiters(1).await;
    held.release().await.unwrap();
    let guard = timeout(LONG, wait).await.unwrap().unwrap().unwrap();
    guard.release().await.unwrap();
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 2, "the ghost got no grant");
}

#[tokio::test]
async fn a_ghost_whose_end_is_never_seen_is_granted_a_lease_and_the_wait_is_granted_when_that_lease_expires() {
    let (scene, cut) = Cut::of_patient().await;
    let client = cut.builder().lease_ttl(Duration::from_secs(1)).connect().await.unwrap();
    let held = scene.hold("k").await;
    let lock = patiently(&client, "k");
    let wait = tokio::spawn(async move { lock.acquire().await });
    scene.until_waiters(1).await;
    // The client sent its wait to member 0. This member does not lead when the connection ends. It leads again before
    // the client repeats the wait.
    scene.cluster.depose();
    cut.off();
    until("the connections have ended", || scene.cluster.stats().connections <= 2).await;
    scene.cluster.move_leader(0).unwrap();
    cut.on();
    scene.until_waiters(2).await;
    held.release().await.unwrap();
    let guard = timeout(LONG, wait).await.unwrap().unwrap().unwrap();
    assert_eq!(
        scene.count(EventKind::Expired),
        1,
        "the lease that was granted to the ghost expired"
    );
    guard.release().await.unwrap();
    scene.ends_with_grants(3).await;
}

#[tokio::test]
async fn waits_at_a_deposed_leader_are_found_by_keepalives_and_keep_their_order() {
    let scene = forgetful().await;
    let client = scene.client().await;
    let held = scene.hold("k").await;
    let mut waits = Vec::new();
    for count in 1..=3 {
        let lock = patiently(&client, "k");
        waits.push(tokio::spawn(async move { lock.acquire().await }));
        scene.until_waiters(count).await;
    }
    scene.cluster.move_leader(1).unwrap();
    until_served_by(&client, &scene.cluster.addresses()[1]).await;
    until("all queue positions are reclaimed", || {
        scene.count(EventKind::Reclaimed) >= 3
    })
    .await;
    held.release().await.unwrap();
    for wait in waits {
        let guard = timeout(LONG, wait).await.unwrap().unwrap().unwrap();
        guard.release().await.unwrap();
    }
    scene.ends_with_grants(4).await;
}
