//! A cluster whose leader changes: what happens to waits and to the queue positions of tickets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::cluster::{ClusterScene, Cut, LONG, health, patient, patiently, queued, soon, until_served_by};
use crate::support::fake::FakeServer;
use crate::support::until;
use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Client, ClientBuilder, ErrorKind, Lock, OnUnavailable, Shard};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// The order in which the waiters acquired the lock.
type Order = Arc<Mutex<Vec<usize>>>;

/// Starts `count` callers that wait for a held key, in the order of their numbers. The first `at_server` callers wait
/// at the server, and all later callers wait in the client. Each caller acquires the lock, adds its number to `order`,
/// and releases the lock.
async fn queue_up(scene: &ClusterScene, lock: &Lock, count: usize, at_server: usize, order: &Order) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let (lock, order) = (lock.clone(), Arc::clone(order));
        tasks.spawn(async move {
            let guard = lock.acquire().await.unwrap();
            order.lock().unwrap().push(number);
            guard.release().await.unwrap();
        });
        // The runtime has one thread, so each caller sends its acquire before the next caller starts. If callers of
        // this client already wait for the key, a new caller joins them at once, without a try.
        tokio::task::yield_now().await;
        scene.until_waiters((number + 1).min(at_server) as u64).await;
    }
    tasks
}

/// How the cluster loses its leader.
#[derive(Clone, Copy)]
enum Loss {
    /// The leader stays.
    Never,
    /// The old leader keeps its connections and names the new leader.
    Deposed,
    /// No member leads for a moment. Then another member leads.
    Vacant,
    /// No member leads for a moment. Then the old leader leads again.
    Again,
    /// The leader is stopped, and all its connections end.
    Dead,
}

impl ClusterScene {
    async fn lose_the_leader(&self, how: Loss) {
        match how {
            Loss::Never => return,
            Loss::Deposed => {}
            Loss::Vacant => self.cluster.depose(),
            Loss::Again => {
                self.cluster.depose();
                return self.cluster.move_leader(0).unwrap();
            }
            Loss::Dead => self.cluster.stop(0).await.unwrap(),
        }
        self.cluster.move_leader(1).unwrap();
    }
}

/// Fifty callers wait while the leader is lost. They acquire the key in the order in which they came.
async fn fifty_keep_their_order(how: Loss, configure: fn(ClientBuilder) -> ClientBuilder, at_server: usize) {
    let scene = ClusterScene::set(patient()).await;
    let holder = scene.client().await;
    let client = configure(scene.builder()).connect().await.unwrap();
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let order = Order::default();
    let waiters = queue_up(&scene, &patiently(&client, "k"), 50, at_server, &order).await;
    scene.lose_the_leader(how).await;
    let leader = scene.cluster.leader().unwrap();
    until_served_by(&client, &scene.cluster.addresses()[leader]).await;
    assert!(order.lock().unwrap().is_empty(), "the key is held");
    held.release().await.unwrap();
    timeout(LONG, waiters.join_all()).await.unwrap();
    assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    scene.until_free().await;
    let verdict = scene.judge();
    assert_eq!(
        (verdict.grants, verdict.held),
        (51, 0),
        "each waiter was granted the key once"
    );
}

/// Allows enough connections for all fifty callers to wait at the server.
fn wide(builder: ClientBuilder) -> ClientBuilder {
    builder.exclusive_connections(64).exclusive_connections_per_key(64)
}

#[tokio::test]
async fn fifty_keep_their_order_when_the_leader_is_deposed() {
    fifty_keep_their_order(Loss::Deposed, wide, 50).await;
}

#[tokio::test]
async fn fifty_keep_their_order_when_no_member_leads_for_a_while() {
    fifty_keep_their_order(Loss::Vacant, wide, 50).await;
}

#[tokio::test]
async fn fifty_keep_their_order_when_the_same_member_leads_again() {
    fifty_keep_their_order(Loss::Again, wide, 50).await;
}

#[tokio::test]
async fn fifty_keep_their_order_when_the_leader_dies() {
    fifty_keep_their_order(Loss::Dead, wide, 50).await;
}

#[tokio::test]
async fn fifty_keep_their_order_when_most_of_them_have_no_connection_yet() {
    fifty_keep_their_order(Loss::Dead, |builder| builder.exclusive_connections_per_key(4), 4).await;
}

#[tokio::test]
async fn fifty_keep_their_order_when_most_of_them_have_no_connection_and_the_leader_is_deposed() {
    fifty_keep_their_order(Loss::Deposed, |builder| builder.exclusive_connections_per_key(4), 4).await;
}

#[tokio::test]
async fn fifty_keep_their_order_when_the_leader_stays_and_connections_come_and_go() {
    fifty_keep_their_order(Loss::Never, |builder| builder.exclusive_connections_per_key(4), 4).await;
}

#[tokio::test]
async fn waits_for_many_keys_and_for_semaphores_continue_too() {
    let scene = ClusterScene::set(patient()).await;
    let holder = scene.client().await;
    let client = scene.client().await;
    let mut held = Vec::new();
    let mut waits: Vec<JoinHandle<()>> = Vec::new();
    for key in 0..10 {
        held.push(holder.lock(format!("k{key}")).unwrap().acquire().await.unwrap());
        let lock = patiently(&client, &format!("k{key}"));
        waits.push(tokio::spawn(async move {
            lock.acquire().await.unwrap().release().await.unwrap()
        }));
    }
    let mut permits = Vec::new();
    let semaphore = holder.semaphore("s", 3).unwrap();
    for _ in 0..3 {
        permits.push(semaphore.acquire().await.unwrap());
    }
    for _ in 0..5 {
        let semaphore = client.semaphore("s", 3).unwrap().acquire_timeout(LONG);
        waits.push(tokio::spawn(async move {
            semaphore.acquire().await.unwrap().release().await.unwrap();
        }));
    }
    scene.until_waiters(15).await;
    scene.cluster.stop(0).await.unwrap();
    scene.cluster.move_leader(2).unwrap();
    for guard in held {
        guard.release().await.unwrap();
    }
    for permit in permits {
        permit.release().await.unwrap();
    }
    for wait in waits {
        timeout(LONG, wait).await.unwrap().unwrap();
    }
    scene.ends_with_grants(28).await;
}

#[tokio::test]
async fn tickets_keep_their_queue_positions_through_changes_of_leader() {
    for how in [Loss::Deposed, Loss::Vacant, Loss::Again, Loss::Dead] {
        let scene = ClusterScene::set(patient()).await;
        let holder = scene.client().await;
        let client = scene.client().await;
        let held = holder.lock("k").unwrap().acquire().await.unwrap();
        let lock = client.lock("k").unwrap();
        let first = queued(&lock).await;
        let second = queued(&lock).await;
        let third = queued(&lock).await;
        // The test waits at the first ticket before the leader changes, and at the two other tickets afterwards.
        let first = tokio::spawn(first.wait(LONG));
        tokio::task::yield_now().await;
        scene.lose_the_leader(how).await;
        let leader = scene.cluster.leader().unwrap();
        until_served_by(&client, &scene.cluster.addresses()[leader]).await;
        let third = tokio::spawn(third.wait(LONG));
        held.release().await.unwrap();
        let first = timeout(LONG, first).await.unwrap().unwrap().unwrap();
        assert!(!third.is_finished());
        first.release().await.unwrap();
        let second = timeout(LONG, second.wait(LONG)).await.unwrap().unwrap();
        assert!(!third.is_finished());
        second.release().await.unwrap();
        let third = timeout(LONG, third).await.unwrap().unwrap().unwrap();
        third.release().await.unwrap();
        scene.until_free().await;
        assert_eq!(scene.judge().grants, 4);
    }
}

#[tokio::test]
async fn tickets_and_waits_that_are_dropped_without_a_leader_leave_nothing_behind() {
    let scene = ClusterScene::set(patient()).await;
    let holder = scene.client().await;
    let client = scene.client().await;
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let lock = patiently(&client, "k");
    let tickets = [queued(&lock).await, queued(&lock).await, queued(&lock).await];
    let waits: Vec<_> = (0..3)
        .map(|_| {
            let lock = lock.clone();
            tokio::spawn(async move { lock.acquire().await.map(drop) })
        })
        .collect();
    scene.until_waiters(6).await;
    scene.cluster.depose();
    let noticed = client.lock("other").unwrap();
    let noticed = tokio::spawn(async move { noticed.acquire().await.unwrap().release().await });
    until("the client is disconnected", || !health(&client).is_connected()).await;
    drop(tickets);
    waits.iter().for_each(JoinHandle::abort);
    scene.cluster.move_leader(2).unwrap();
    timeout(LONG, noticed).await.unwrap().unwrap().unwrap();
    held.release().await.unwrap();
    scene.until_free().await;
    scene.judge();
    assert_eq!(scene.count(EventKind::Expired), 0, "no lease expired");
}

#[tokio::test]
async fn grants_without_a_connection_reach_their_callers_after_the_reconnect() {
    let (scene, cut) = Cut::of_patient().await;
    let client = cut.client().await;
    let held = scene.hold("k").await;
    let lock = patiently(&client, "k");
    let ticket = queued(&lock).await;
    let wait = tokio::spawn(async move { lock.acquire().await });
    scene.until_waiters(2).await;
    cut.off();
    until("the cluster keeps the ticket's position and not the wait's", || {
        scene.count(EventKind::Orphaned) == 1 && scene.count(EventKind::Left) == 1
    })
    .await;
    held.release().await.unwrap();
    until("the key is granted to the ticket", || {
        scene.count(EventKind::Granted) == 2
    })
    .await;
    cut.on();
    let first = timeout(LONG, ticket.wait(LONG)).await.unwrap().unwrap();
    assert_eq!(Some(*first.token()), scene.events(EventKind::Granted)[1].token);
    assert!(!wait.is_finished());
    first.release().await.unwrap();
    timeout(LONG, wait)
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .release()
        .await
        .unwrap();
    scene.ends_with_grants(3).await;
}

#[tokio::test]
async fn grants_without_a_connection_are_released_if_their_callers_have_gone() {
    let (scene, cut) = Cut::of_patient().await;
    let client = cut.client().await;
    let held = [scene.hold("k").await, scene.hold("l").await];
    let lock = patiently(&client, "k");
    let ticket = queued(&lock).await;
    let lock = patiently(&client, "l");
    let wait = tokio::spawn(async move { lock.acquire().await.map(drop) });
    scene.until_waiters(2).await;
    cut.off();
    until("the cluster keeps the ticket's position and not the wait's", || {
        scene.count(EventKind::Orphaned) == 1 && scene.count(EventKind::Left) == 1
    })
    .await;
    for guard in held {
        guard.release().await.unwrap();
    }
    until("the key is granted to the ticket", || {
        scene.count(EventKind::Granted) == 3
    })
    .await;
    wait.abort();
    drop(ticket);
    cut.on();
    // The client releases each grant by its token. No grant ends with its connection.
    until("all grants are released", || {
        let released = scene.count(EventKind::Released);
        released >= 3 && released == scene.count(EventKind::Granted)
    })
    .await;
    scene.until_free().await;
    scene.judge();
}

#[tokio::test]
async fn a_leader_that_has_forgotten_queue_positions_gives_new_ones() {
    let scene = ClusterScene::set(patient()).await;
    let holder = scene.client().await;
    let client = scene.client().await;
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let order = Order::default();
    let waiters = queue_up(&scene, &patiently(&client, "k"), 10, 10, &order).await;
    scene.cluster.forgets_refs(true);
    scene.cluster.move_leader(1).unwrap();
    until("all wait again", || {
        scene.count(EventKind::Queued) == 20 && scene.waiters() == 10
    })
    .await;
    held.release().await.unwrap();
    timeout(LONG, waiters.join_all()).await.unwrap();
    let mut got = order.lock().unwrap().clone();
    got.sort_unstable();
    assert_eq!(got, (0..10).collect::<Vec<_>>(), "each was granted, in any order");
    scene.ends_with_grants(11).await;
}

#[tokio::test]
async fn without_sessions_a_try_ends_with_its_leader_and_is_not_repeated() {
    // A member of the previous release, which does not know the command `stable-ref` that names a session.
    let member = |hangs_up: bool| {
        let waits = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&waits);
        let server = FakeServer::start(move |mut connection, _| {
            let waits = Arc::clone(&waits);
            async move {
                while let Some([command, ..]) = connection.request().await {
                    match command.as_str() {
                        "stable-ref" | "n" => connection.say("error\n").await,
                        "stats" => connection.say("ok {\"cluster\":{}}\n").await,
                        "l" => {
                            *waits.lock().unwrap() += 1;
                            if hangs_up {
                                return;
                            }
                            connection.say("timeout\n").await;
                        }
                        _ => connection.say("ok\n").await,
                    }
                }
            }
        });
        async move { (server.await, seen) }
    };
    let (first, at_first) = member(true).await;
    let (second, at_second) = member(false).await;
    let shard = Shard::cluster([first.address.clone(), second.address.clone()]);
    let client = Client::builder()
        .shards([shard])
        .reconnect(soon())
        .connect()
        .await
        .unwrap();
    // The first member closes the connection at the first `l`. The client cannot know whether the server granted the
    // lock, so it sends the `l` to no member again.
    let error = timeout(LONG, patiently(&client, "k").acquire())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
    assert_eq!((*at_first.lock().unwrap(), *at_second.lock().unwrap()), (1, 0));
}

#[tokio::test]
async fn a_shutdown_without_a_leader_does_not_wait_for_leases_and_positions() {
    let scene = ClusterScene::set(patient()).await;
    let holder = scene.client().await;
    let client = scene.client().await;
    let _held = holder.lock("k").unwrap().acquire().await.unwrap();
    let own = client.lock("own").unwrap().acquire().await.unwrap();
    let lock = patiently(&client, "k");
    let ticket = queued(&lock).await;
    let wait = tokio::spawn(async move { lock.acquire().await.map(drop) });
    scene.until_waiters(2).await;
    scene.cluster.depose();
    let report = timeout(LONG, client.shutdown(Duration::from_millis(200)))
        .await
        .unwrap();
    assert_eq!((report.released, report.unreleased.len()), (0, 1));
    assert_eq!(wait.await.unwrap().unwrap_err().kind(), ErrorKind::Shutdown);
    drop(ticket);
    assert!(!own.is_held());
}

#[tokio::test]
async fn orphans_are_lost_to_a_client_that_comes_back_after_the_orphan_ttl() {
    let scene = ClusterScene::set(Server::builder().orphan_ttl(Duration::from_millis(50))).await;
    let holder = scene.client().await;
    let cut = Cut::of(&scene).await;
    let client = cut.client().await;
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let lock = patiently(&client, "k");
    let wait = tokio::spawn(async move { lock.acquire().await });
    scene.until_waiters(1).await;
    cut.off();
    until("the orphan has left the queue", || scene.count(EventKind::Left) == 1).await;
    cut.on();
    scene.until_waiters(1).await;
    held.release().await.unwrap();
    assert!(timeout(LONG, wait).await.unwrap().unwrap().unwrap().is_held());
    scene.judge();
}

#[tokio::test]
async fn a_wait_that_failed_without_a_leader_leaves_the_queue_of_the_next() {
    let scene = ClusterScene::set(patient()).await;
    let holder = scene.client().await;
    let client = scene.builder().on_unavailable(OnUnavailable::FailFast);
    let client = client.connect().await.unwrap();
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let lock = patiently(&client, "k");
    let ticket = queued(&patiently(&scene.client().await, "k")).await;
    let wait = tokio::spawn(async move { lock.acquire().await.map(drop) });
    scene.until_waiters(2).await;
    scene.cluster.stop(0).await.unwrap();
    let error = timeout(LONG, wait).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    scene.cluster.move_leader(2).unwrap();
    // The client has ended the queue position of the failed wait. The ticket keeps its own queue position.
    until("the wait has left the queue", || {
        scene.count(EventKind::Left) == 1 && scene.waiters() == 1
    })
    .await;
    held.release().await.unwrap();
    let held = timeout(LONG, ticket.wait(LONG)).await.unwrap().unwrap();
    held.release().await.unwrap();
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 2, "every grant had a caller");
}

#[tokio::test]
async fn a_dropped_wait_gives_up_its_queue_position_and_its_connection() {
    let scene = ClusterScene::set(patient()).await;
    let holder = scene.client().await;
    let client = scene.builder().exclusive_connections(1).connect().await.unwrap();
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let other = holder.lock("other").unwrap().acquire().await.unwrap();
    let lock = patiently(&client, "k");
    let wait = tokio::spawn(async move { lock.acquire().await.map(drop) });
    scene.until_waiters(1).await;
    wait.abort();
    scene.until_waiters(0).await;
    let ticket = queued(&patiently(&client, "other")).await;
    let collect = tokio::spawn(ticket.wait(LONG));
    scene.until_waiters(1).await;
    collect.abort();
    scene.until_waiters(0).await;
    held.release().await.unwrap();
    other.release().await.unwrap();
    scene.ends_with_grants(2).await;
}

#[tokio::test]
async fn leases_that_are_not_renewed_do_not_keep_others_from_waiting() {
    let scene = ClusterScene::set(patient()).await;
    let holder = scene.client().await;
    let client = scene.builder().exclusive_connections(2).connect().await.unwrap();
    let mut kept = Vec::new();
    for key in 0..6 {
        let key = format!("k{key}");
        let held = holder.lock(&key).unwrap().acquire().await.unwrap();
        let lock = patiently(&client, &key).renew(false);
        let wait = tokio::spawn(async move { lock.acquire().await });
        scene.until_waiters(1).await;
        held.release().await.unwrap();
        kept.push(timeout(LONG, wait).await.unwrap().unwrap().unwrap());
    }
    assert!(kept.iter().all(|guard| guard.is_held()));
    drop(kept);
    scene.ends_with_grants(12).await;
}

#[tokio::test]
async fn a_shutdown_gives_up_all_queue_positions() {
    let scene = ClusterScene::set(patient()).await;
    let holder = scene.client().await;
    let client = scene.client().await;
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let lock = patiently(&client, "k");
    let ticket = queued(&lock).await;
    let wait = tokio::spawn(async move { lock.acquire().await.map(drop) });
    scene.until_waiters(2).await;
    timeout(LONG, client.shutdown(LONG)).await.unwrap();
    scene.until_waiters(0).await;
    assert_eq!(wait.await.unwrap().unwrap_err().kind(), ErrorKind::Shutdown);
    drop(ticket);
    held.release().await.unwrap();
    assert_eq!(scene.judge().grants, 1);
}

#[tokio::test]
async fn a_client_with_only_a_ticket_follows_the_next_leader_too() {
    let scene = ClusterScene::set(patient()).await;
    let holder = scene.client().await;
    let client = scene.builder().keepalive(Duration::from_millis(100));
    let client = client.connect().await.unwrap();
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let ticket = queued(&client.lock("k").unwrap()).await;
    scene.cluster.move_leader(1).unwrap();
    until_served_by(&client, &scene.cluster.addresses()[1]).await;
    until("the queue position is reclaimed", || {
        scene.count(EventKind::Reclaimed) == 1
    })
    .await;
    held.release().await.unwrap();
    timeout(LONG, ticket.wait(LONG))
        .await
        .unwrap()
        .unwrap()
        .release()
        .await
        .unwrap();
    assert_eq!(scene.judge().grants, 2);
}
