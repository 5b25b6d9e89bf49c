//! Waits whose callers drop them before the grant.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Client, Lock, LockGuard};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::{LONG, SOON, Scene, address, pass_through};
use crate::support::until;

/// Spawns a task that acquires the lock.
fn spawn_acquire(lock: &Lock) -> JoinHandle<LockGuard> {
    let lock = lock.clone();
    tokio::spawn(async move { lock.acquire().await.unwrap() })
}

/// Runs tasks for 4 s. Each task begins a wait, drops the wait after 20 ms, and begins the next wait. The
/// server must be of release 1.10, which does not notice a closed connection during a wait. Checks how many connections
/// the client made. Returns the greatest number of connections and the greatest number of waiters at the server.
async fn flood(scene: &Scene, client: &Client, tasks: usize, keys: usize) -> (u64, u64) {
    let mut held = Vec::new();
    for key in 0..keys {
        held.push(scene.holder.lock(format!("k{key}")).unwrap().acquire().await.unwrap());
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (client, over) = (client.clone(), Arc::clone(&over));
        running.spawn(async move {
            let mut number = task;
            while !over.load(Ordering::SeqCst) {
                let lock = client.lock(format!("k{}", number % keys)).unwrap();
                let acquired = timeout(Duration::from_millis(20), lock.acquire()).await;
                assert!(acquired.is_err(), "the key is held");
                number += tasks;
            }
        });
    }
    let (mut connections, mut waiters) = (0, 0);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        connections = connections.max(scene.server.stats().connections);
        waiters = waiters.max(scene.waiters());
        sleep(Duration::from_millis(10)).await;
    }
    over.store(true, Ordering::SeqCst);
    running.join_all().await;
    let rate = scene.connects() / started.elapsed().as_secs_f64();
    println!(
        "{connections} connections, {waiters} waiters, {} connects, {rate:.0} a second",
        scene.connects()
    );
    assert!(
        scene.connects() <= 40.0 + 150.0 * started.elapsed().as_secs_f64(),
        "{rate:.0} connects a second"
    );
    (connections, waiters)
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_drop_their_waits_on_few_keys_reuse_each_others_queue_positions() {
    let scene = Scene::of(Server::builder().release("1.10")).await;
    let client = scene
        .builder()
        .acquire_timeout(Duration::from_secs(10))
        .connect()
        .await
        .unwrap();
    let (connections, waiters) = flood(&scene, &client, 100, 30).await;
    // There are 100 callers at a time, so the client needs far fewer connections than its default limit of 1,024.
    assert!(
        connections <= 400 && waiters <= 400,
        "{connections} connections, {waiters} waiters"
    );
}

/// Each of the 100 tasks waits for ten of the 1,000 keys in turn. No other task waits for these ten keys. So the next
/// caller for a key comes only after nine other waits of the same task.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_waits_for_a_thousand_keys_stay_within_twice_the_bound() {
    let scene = Scene::of(Server::builder().release("1.10")).await;
    let client = scene
        .builder()
        .exclusive_connections(60)
        .acquire_timeout(Duration::from_secs(10));
    let client = client.connect().await.unwrap();
    let (connections, waiters) = flood(&scene, &client, 100, 1_000).await;
    assert!(waiters <= 120, "{waiters} waiters");
    assert!(connections <= 120 + 2, "{connections} connections");
}

#[tokio::test]
async fn the_next_caller_takes_the_queue_position_over_whatever_its_ttl() {
    let scene = Scene::start().await;
    let client = scene.builder().connect().await.unwrap();
    let held = scene.holder.lock("k").unwrap().acquire().await.unwrap();
    let first = spawn_acquire(&client.lock("k").unwrap().lease_ttl(Duration::from_secs(5)));
    scene.until_waiters(1).await;
    let behind = spawn_acquire(&scene.holder.lock("k").unwrap());
    scene.until_waiters(2).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let next = spawn_acquire(&client.lock("k").unwrap().lease_ttl(Duration::from_secs(50)));
    scene.until_waiting("server", 1).await;
    held.release().await.unwrap();
    let guard = timeout(SOON, next).await.unwrap().unwrap();
    assert!(
        !behind.is_finished(),
        "this caller is behind the position that was taken over"
    );
    assert_eq!(guard.ttl().as_secs(), 50);
    let lock = &scene.server.stats().locks[0];
    assert!(lock.lease_expires_in_s > 40, "{lock:?}");
    assert_eq!(scene.events(EventKind::Queued, "k").len(), 2);
    assert_eq!(
        scene.events(EventKind::Renewed, "k").len(),
        1,
        "the lease was renewed once, with the new caller's TTL"
    );
    guard.release().await.unwrap();
    behind.await.unwrap().release().await.unwrap();
}

/// A caller without a TTL takes a queue position over from a caller with a TTL of 5 s. It gets the default TTL of the
/// server, which the client knows from an earlier grant.
#[tokio::test]
async fn the_next_caller_gets_the_servers_ttl_if_it_asks_for_none() {
    let scene = Scene::of(Server::builder().default_lease_ttl(dflockd_client::Ttl::from_secs(20).unwrap())).await;
    let client = scene.builder().connect().await.unwrap();
    let known = client.lock("known").unwrap().acquire().await.unwrap();
    let held = scene.holder.lock("k").unwrap().acquire().await.unwrap();
    let first = spawn_acquire(&client.lock("k").unwrap().lease_ttl(Duration::from_secs(5)));
    scene.until_waiters(1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let next = spawn_acquire(&client.lock("k").unwrap());
    scene.until_waiting("server", 1).await;
    held.release().await.unwrap();
    let guard = timeout(SOON, next).await.unwrap().unwrap();
    assert_eq!((known.ttl().as_secs(), guard.ttl().as_secs()), (20, 20));
}

#[tokio::test]
async fn callers_of_one_key_keep_their_order_when_some_of_them_go() {
    let scene = Scene::start().await;
    let client = scene
        .builder()
        .exclusive_connections_per_key(2)
        .connect()
        .await
        .unwrap();
    let lock = client.lock("k").unwrap();
    let held = scene.holder.lock("k").unwrap().acquire().await.unwrap();
    let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut callers = Vec::new();
    let spawn_caller = |number: usize| {
        let (lock, done) = (lock.clone(), done.clone());
        tokio::spawn(async move {
            let guard = lock.acquire().await.unwrap();
            done.send(number).unwrap();
            guard.release().await.unwrap();
        })
    };
    for number in 0..6 {
        callers.push(spawn_caller(number));
        until("it waits", || {
            scene.recorded.value("waiters", &[]) == (number + 1) as f64
        })
        .await;
    }
    for gone in [0, 3] {
        callers[gone].abort();
    }
    until("both callers are gone", || {
        callers[0].is_finished() && callers[3].is_finished()
    })
    .await;
    callers.push(spawn_caller(6));
    until("the other callers wait", || scene.recorded.value("waiters", &[]) == 5.0).await;
    assert_eq!(scene.waiters(), 2);
    held.release().await.unwrap();
    let mut got = Vec::new();
    for _ in 0..5 {
        got.push(timeout(SOON, order.recv()).await.unwrap().unwrap());
    }
    assert_eq!(got, [1, 2, 4, 5, 6]);
    assert_eq!(
        scene.events(EventKind::Granted, "k").len(),
        6,
        "every grant had a caller"
    );
}

/// A wait at the server ends with the timeout of the caller that began it. A caller that took this wait over and has
/// more time begins a new wait.
#[tokio::test]
async fn a_caller_with_more_time_than_the_wait_that_it_took_over_continues() {
    let scene = Scene::start().await;
    let client = scene.builder().connect().await.unwrap();
    let held = scene.holder.lock("k").unwrap().acquire().await.unwrap();
    let short = client.lock("k").unwrap().acquire_timeout(Duration::from_millis(900));
    let first = spawn_acquire(&short);
    scene.until_waiters(1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let next = spawn_acquire(&client.lock("k").unwrap());
    until("the second wait is queued", || {
        scene.events(EventKind::Queued, "k").len() == 2
    })
    .await;
    assert!(!next.is_finished());
    held.release().await.unwrap();
    timeout(SOON, next).await.unwrap().unwrap().release().await.unwrap();
    assert_eq!(scene.events(EventKind::Left, "k").len(), 1);
}

#[tokio::test]
async fn a_queue_position_without_a_caller_is_given_up_after_a_while() {
    let scene = Scene::start().await;
    let client = scene.builder().connect().await.unwrap();
    let _held = scene.holder.lock("k").unwrap().acquire().await.unwrap();
    let slots = scene.holder.semaphore("s", 1).unwrap();
    let _slot = slots.acquire().await.unwrap();
    let lock = spawn_acquire(&client.lock("k").unwrap());
    let slots = client.semaphore("s", 1).unwrap();
    let slot = tokio::spawn(async move { slots.acquire().await.unwrap() });
    let dflockd_client::Enqueued::Queued(ticket) = client.lock("k").unwrap().enqueue().await.unwrap() else {
        panic!("the key is held");
    };
    let collect = tokio::spawn(ticket.wait(LONG));
    scene.until_waiters(3).await;
    lock.abort();
    slot.abort();
    collect.abort();
    scene.until_waiters(0).await;
    assert_eq!(scene.server.stats().connections, 2, "and the connections are closed");
}

/// The client releases a grant at once if the caller has dropped the wait and no other caller wants the key.
#[tokio::test]
async fn the_grant_of_a_dropped_wait_is_released() {
    let scene = Scene::start().await;
    let client = scene.builder().connect().await.unwrap();
    let held = scene.holder.lock("k").unwrap().acquire().await.unwrap();
    let dropped = spawn_acquire(&client.lock("k").unwrap());
    scene.until_waiters(1).await;
    let behind = tokio::spawn(pass_through(scene.holder.lock("k").unwrap()));
    scene.until_waiters(2).await;
    dropped.abort();
    held.release().await.unwrap();
    timeout(SOON, behind).await.unwrap().unwrap();
    scene.until_free().await;
}

#[tokio::test]
async fn the_next_caller_takes_the_queue_position_over_in_a_cluster() {
    use crate::support::cluster::{ClusterScene, patient};

    let scene = ClusterScene::set(patient()).await;
    let (holder, client) = (scene.client().await, scene.client().await);
    let held = holder.lock("k").unwrap().acquire().await.unwrap();
    let first = spawn_acquire(&client.lock("k").unwrap().acquire_timeout(LONG));
    scene.until_waiters(1).await;
    let behind = spawn_acquire(&holder.lock("k").unwrap().acquire_timeout(LONG));
    scene.until_waiters(2).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let next = spawn_acquire(&client.lock("k").unwrap().acquire_timeout(LONG));
    // Gives the next caller time to try the key and to take the queue position over.
    sleep(Duration::from_millis(50)).await;
    scene.cluster.move_leader(1).unwrap();
    held.release().await.unwrap();
    let guard = timeout(SOON, next).await.unwrap().unwrap();
    assert!(!behind.is_finished());
    guard.release().await.unwrap();
    timeout(SOON, behind).await.unwrap().unwrap().release().await.unwrap();
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 3);
}

/// The limit of exclusive connections applies to each shard separately.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_waits_on_several_shards_stay_within_the_bound_of_each() {
    let scene = Scene::of(Server::builder().release("1.10")).await;
    let other = Server::builder().release("1.10").max_locks(100_000).port(0);
    let other = other.start().await.unwrap();
    let servers = [address(&scene.server), address(&other)];
    let holder = Client::builder().servers(servers.clone()).connect().await.unwrap();
    let client = scene.builder().servers(servers).exclusive_connections(20);
    let client = client.acquire_timeout(Duration::from_secs(10)).connect().await.unwrap();
    let mut held = Vec::new();
    for key in 0..200 {
        held.push(holder.semaphore(format!("k{key}"), 1).unwrap().acquire().await.unwrap());
    }
    let mut most = [0, 0];
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        let mut running = JoinSet::new();
        for key in 0..200 {
            let semaphore = client.semaphore(format!("k{key}"), 1).unwrap();
            running.spawn(timeout(Duration::from_millis(20), async move {
                semaphore.acquire().await.map(drop)
            }));
        }
        running.join_all().await;
        for (most, server) in most.iter_mut().zip([&scene.server, &other]) {
            let stats = server.stats();
            let waiters: u64 = stats.semaphores.iter().map(|semaphore| semaphore.waiters).sum();
            *most = waiters.max(*most).max(stats.connections.saturating_sub(3));
        }
    }
    println!("{most:?}");
    assert!(most.iter().all(|most| *most <= 40), "{most:?}");
}
