//! The leader is deposed while a request is under way. The cluster commits the request, but answers it with
//! `error_not_leader`.

use dflockd_client::server::EventKind;
use tokio::time::timeout;

use super::forgetful;
use crate::support::cluster::{LONG, health, patiently};
use crate::support::until;

#[tokio::test]
async fn a_try_whose_grant_was_not_answered_reclaims_it_and_gets_no_second_grant() {
    let scene = forgetful().await;
    let client = scene.client().await;
    scene.cluster.move_leader_in_flight(Some(1)).unwrap();
    let guard = timeout(LONG, client.lock("k").unwrap().try_acquire()).await.unwrap();
    let guard = guard.unwrap().expect("the key was free");
    assert_eq!(
        (scene.count(EventKind::Granted), scene.count(EventKind::Reclaimed)),
        (1, 1)
    );
    assert!(guard.is_held());
    let other = scene.client().await;
    assert!(
        other.lock("k").unwrap().try_acquire().await.unwrap().is_none(),
        "the first client holds the key"
    );
    guard.release().await.unwrap();
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 1);
}

#[tokio::test]
async fn a_try_whose_queue_position_was_not_answered_leaves_the_queue() {
    let scene = forgetful().await;
    let holder = scene.client().await;
    let client = scene.client().await;
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    scene.cluster.move_leader_in_flight(Some(1)).unwrap();
    let guard = timeout(LONG, client.lock("k").unwrap().try_acquire()).await.unwrap();
    assert!(guard.unwrap().is_none(), "the key is held");
    assert_eq!(
        scene.count(EventKind::Queued),
        1,
        "the try was committed before the answer"
    );
    scene.until_waiters(0).await;
    held.release().await.unwrap();
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 1, "every grant had a caller");
}

#[tokio::test]
async fn an_acquire_whose_grant_was_not_answered_holds_one_grant() {
    let scene = forgetful().await;
    let client = scene.client().await;
    scene.cluster.move_leader_in_flight(Some(1)).unwrap();
    let guard = timeout(LONG, patiently(&client, "k").acquire()).await.unwrap().unwrap();
    assert_eq!(scene.count(EventKind::Granted), 1);
    guard.release().await.unwrap();
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 1);
}

#[tokio::test]
async fn a_wait_whose_queue_position_was_not_answered_keeps_it_and_takes_no_other() {
    let scene = forgetful().await;
    let holder = scene.client().await;
    let client = scene.client().await;
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let lock = patiently(&client, "k");
    let first = tokio::spawn(async move { lock.acquire().await?.release().await });
    scene.until_waiters(1).await;
    // The key already has a waiter, so the client does not try first: its next request is the wait.
    scene.cluster.move_leader_in_flight(Some(1)).unwrap();
    let lock = patiently(&client, "k");
    let second = tokio::spawn(async move { lock.acquire().await?.release().await });
    until("both have their queue positions", || {
        scene.count(EventKind::Reclaimed) == 2
    })
    .await;
    assert_eq!((scene.count(EventKind::Queued), scene.waiters()), (2, 2));
    held.release().await.unwrap();
    for wait in [first, second] {
        timeout(LONG, wait).await.unwrap().unwrap().unwrap();
    }
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 3);
}

#[tokio::test]
async fn a_release_that_was_committed_without_an_answer_succeeds() {
    let scene = forgetful().await;
    let client = scene.client().await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    scene.cluster.move_leader_in_flight(Some(1)).unwrap();
    timeout(LONG, guard.release()).await.unwrap().unwrap();
    assert_eq!((scene.count(EventKind::Released), health(&client).failovers), (1, 1));
    scene.until_free().await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    guard.release().await.unwrap();
    assert_eq!(scene.judge().grants, 2);
}

#[tokio::test]
async fn repeated_losses_of_leadership_with_requests_under_way_leave_nothing_behind() {
    let scene = forgetful().await;
    let client = scene.builder().max_redirects(1000).connect().await.unwrap();
    for _ in 0..30 {
        let leader = scene.cluster.leader().expect("a member leads");
        scene.cluster.move_leader_in_flight(Some((leader + 1) % 3)).unwrap();
        let guard = timeout(LONG, patiently(&client, "k").acquire()).await.unwrap().unwrap();
        scene.cluster.move_leader_in_flight(None).unwrap();
        let (released, ()) = tokio::join!(guard.release(), async {
            until("no member leads", || scene.cluster.leader().is_none()).await;
            scene.cluster.move_leader((leader + 2) % 3).unwrap();
        });
        released.unwrap();
    }
    scene.until_free().await;
    let verdict = scene.judge();
    assert_eq!((verdict.grants, verdict.held), (30, 0));
}
