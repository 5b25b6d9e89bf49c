//! Clients whose callers need more exclusive connections than the limit allows.

use std::time::Duration;

use dflockd_client::{Enqueued, ErrorKind, LockGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{SOON, Scene, pass_through};
use crate::support::until;

/// Each task acquires two locks. Tasks that hold one lock and wait for the second lock must not starve behind tasks
/// that wait for their first lock.
async fn eighty_tasks_take_two_locks_each(exclusive_connections: Option<usize>) {
    let scene = Scene::start().await;
    let mut builder = scene.builder().acquire_timeout(Duration::from_secs(30));
    if let Some(connections) = exclusive_connections {
        builder = builder.exclusive_connections(connections);
    }
    let client = builder.connect().await.unwrap();
    // At first another client holds the second lock of each pair.
    let mut held = Vec::new();
    for pair in 0..4 {
        held.push(scene.holder.lock(format!("b/{pair}")).unwrap().acquire().await.unwrap());
    }
    let started = Instant::now();
    let mut running = JoinSet::new();
    for task in 0..80 {
        let pair = task % 4;
        let locks = client.lock_all([format!("a/{pair}"), format!("b/{pair}")]).unwrap();
        running.spawn(async move { locks.acquire().await.unwrap().release().await.unwrap() });
    }
    // Four of the tasks hold their first lock and wait for their second.
    until("all wait", || scene.recorded.value("waiters", &[]) == 80.0).await;
    held.clear();
    timeout(SOON, running.join_all()).await.unwrap();
    println!("with {exclusive_connections:?} connections in {:?}", started.elapsed());
    scene.until_free().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_of_one_lock_get_the_second_on_eight_connections() {
    eighty_tasks_take_two_locks_each(Some(8)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_of_one_lock_get_the_second_on_one_connection() {
    eighty_tasks_take_two_locks_each(Some(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_of_one_lock_get_the_second_by_default() {
    eighty_tasks_take_two_locks_each(None).await;
}

#[tokio::test]
async fn four_hot_keys_do_not_starve_others() {
    let scene = Scene::start().await;
    let client = scene.builder().exclusive_connections(64).connect().await.unwrap();
    let mut held = Vec::new();
    for key in ["hot/0", "hot/1", "hot/2", "hot/3", "cold", "colder"] {
        held.push(scene.holder.lock(key).unwrap().acquire().await.unwrap());
    }
    let mut hot = JoinSet::new();
    for number in 0..80 {
        hot.spawn(pass_through(client.lock(format!("hot/{}", number % 4)).unwrap()));
    }
    scene.until_waiting("server", 64).await;
    let cold = tokio::spawn(pass_through(client.lock("cold").unwrap()));
    let gave_up = client
        .lock("colder")
        .unwrap()
        .acquire_timeout(Duration::from_millis(200));
    let error = gave_up.acquire().await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(error.to_string().contains("exclusive_connections"), "{error}");
    scene.until_waiting("local", 17).await;
    drop(held.split_off(4));
    timeout(SOON, cold).await.unwrap().unwrap();
    // The acquire of a free key does not wait for a connection.
    let guard = client.lock("free").unwrap().acquire().await.unwrap();
    assert!(!guard.was_contended());
    held.clear();
    timeout(SOON, hot.join_all()).await.unwrap();
    let tries = |outcome| scene.recorded.value("wait_tries_total", &[("outcome", outcome)]);
    assert!(tries("granted") >= 1.0 && tries("refused") + tries("unanswered") == 0.0);
}

#[tokio::test]
async fn tickets_on_all_connections_block_no_wait_and_further_tickets_are_an_error() {
    let scene = Scene::start().await;
    let client = scene
        .builder()
        .exclusive_connections(4)
        .exclusive_connections_per_key(4)
        .request_timeout(Duration::from_millis(400))
        .connect()
        .await
        .unwrap();
    let _held = scene.holder.lock("hot").unwrap().acquire().await.unwrap();
    let lock = client.lock("hot").unwrap();
    let mut tickets = Vec::new();
    for _ in 0..4 {
        match lock.enqueue().await.unwrap() {
            Enqueued::Queued(ticket) => tickets.push(ticket),
            Enqueued::Acquired(guard) => panic!("{guard:?}: the key was free, so the call was not queued"),
        }
    }
    // Tickets occupy all connections, but a wait for another key still gets its key.
    let cold = scene.holder.lock("cold").unwrap().acquire().await.unwrap();
    let waiting = tokio::spawn(pass_through(client.lock("cold").unwrap()));
    scene.until_waiting("local", 1).await;
    cold.release().await.unwrap();
    timeout(SOON, waiting).await.unwrap().unwrap();
    // The enqueue of a free key needs no exclusive connection.
    let free = client.lock("cold").unwrap();
    let mut attempts = 0;
    let guard: LockGuard = loop {
        match free.enqueue().await {
            Ok(Enqueued::Acquired(guard)) => break guard,
            Ok(Enqueued::Queued(ticket)) => panic!("{ticket:?} was held"),
            // The request timeout of 400 ms may end before the client has tried the key.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout, "{error}"),
        }
        attempts += 1;
        assert!(attempts < 20, "the free key is acquired soon");
    };
    // A ticket for a held key needs an exclusive connection.
    let error = lock.enqueue().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("exclusive_connections"), "{error}");
    // The drop of one ticket frees its connection for the next ticket.
    drop(tickets.pop());
    let ticket = lock.enqueue().await.unwrap();
    assert!(matches!(ticket, Enqueued::Queued(_)));
    drop((guard, ticket, tickets));
    scene.until_waiters(0).await;
}

/// A connection that owns leases and carries no wait does not count towards the limit of connections for waits.
#[tokio::test]
async fn leases_do_not_use_up_the_connections_for_waits() {
    let scene = Scene::start().await;
    let client = scene.builder().exclusive_connections(3).connect().await.unwrap();
    let mut kept = Vec::new();
    for number in 0..10 {
        let key = format!("k{number}");
        let held = scene.holder.lock(&key).unwrap().acquire().await.unwrap();
        let lock = client.lock(&key).unwrap();
        let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
        scene.until_waiters(1).await;
        held.release().await.unwrap();
        kept.push(timeout(SOON, waiting).await.unwrap().unwrap());
    }
    assert!(kept.iter().all(|guard| guard.is_held()));
    let connections = scene.server.stats().connections;
    assert!(
        (3..=8).contains(&connections),
        "{connections}: the holder's, the client's and at most six for waits"
    );
    drop(kept);
    scene.until_free().await;
}

/// After a caller drops its wait, the client usually closes the wait's connection to end the wait at the server. But it
/// does not close a connection that owns leases. If leases survive a disconnect, it closes no connection at all. In
/// both cases each free key must still be available.
async fn a_wait_that_cannot_be_cut(survives_disconnect: bool) {
    let scene =
        Scene::of(dflockd_client::server::Server::builder().auto_release_on_disconnect(!survives_disconnect)).await;
    let client = scene
        .builder()
        .exclusive_connections(1)
        .survives_disconnect(survives_disconnect)
        .connect()
        .await
        .unwrap();
    let holder = &scene.holder;
    // The connection of a wait owns the lease that the wait gets. If leases survive a disconnect, no connection owns a
    // lease, so the test acquires none here.
    let mut kept = Vec::new();
    for key in ["own/0", "own/1"].iter().take(if survives_disconnect { 0 } else { 2 }) {
        let held = holder.lock(key).unwrap().acquire().await.unwrap();
        let lock = client.lock(key).unwrap();
        let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
        scene.until_waiters(1).await;
        held.release().await.unwrap();
        kept.push(timeout(SOON, waiting).await.unwrap().unwrap());
    }
    let dropped = holder.lock("dropped").unwrap().acquire().await.unwrap();
    let other = holder.lock("other").unwrap().acquire().await.unwrap();
    let lock = client.lock("dropped").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await.map(drop) });
    scene.until_waiters(1).await;
    waiting.abort();
    // The client acquires another key although the dropped wait occupies the only connection for waits.
    let waiting = tokio::spawn(pass_through(client.lock("other").unwrap()));
    scene.until_waiting("local", 1).await;
    other.release().await.unwrap();
    timeout(SOON, waiting).await.unwrap().unwrap();
    // The next caller for the key takes the queue position over.
    let next = client.lock("dropped").unwrap();
    let next = tokio::spawn(async move { next.acquire().await.unwrap() });
    scene.until_waiting("server", 1).await;
    assert_eq!(scene.waiters(), 1);
    dropped.release().await.unwrap();
    let guard = timeout(SOON, next).await.unwrap().unwrap();
    guard.release().await.unwrap();
    // Without a next caller, the client releases the grant at once.
    let dropped = holder.lock("dropped").unwrap().acquire().await.unwrap();
    let lock = client.lock("dropped").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await.map(drop) });
    scene.until_waiters(1).await;
    waiting.abort();
    let behind = tokio::spawn(pass_through(holder.lock("dropped").unwrap()));
    scene.until_waiters(2).await;
    dropped.release().await.unwrap();
    timeout(SOON, behind).await.unwrap().unwrap();
    drop(kept);
    scene.until_free().await;
}

#[tokio::test]
async fn a_dropped_wait_on_a_connection_that_owns_leases_blocks_no_key() {
    a_wait_that_cannot_be_cut(false).await;
}

#[tokio::test]
async fn a_dropped_wait_blocks_no_key_where_leases_survive() {
    a_wait_that_cannot_be_cut(true).await;
}

#[tokio::test]
async fn a_dropped_wait_without_a_connection_leaves_no_waiter_and_blocks_no_key() {
    let scene = Scene::start().await;
    let client = scene.builder().exclusive_connections(1).max_waiters(50).connect();
    let client = client.await.unwrap();
    let _first = scene.holder.lock("first").unwrap().acquire().await.unwrap();
    let _waiting = tokio::spawn(pass_through(client.lock("first").unwrap()));
    scene.until_waiters(1).await;
    let mut held = Vec::new();
    for number in 0..500 {
        held.push(
            scene
                .holder
                .lock(format!("k{number}"))
                .unwrap()
                .acquire()
                .await
                .unwrap(),
        );
    }
    // `max_waiters` is 50, so each of the 500 dropped waits must free its place.
    for number in 0..500 {
        let lock = client.lock(format!("k{number}")).unwrap();
        let acquiring = tokio::spawn(async move { lock.acquire().await.map(drop) });
        let waits = || scene.recorded.value("waiters", &[("state", "local")]) >= 1.0 || acquiring.is_finished();
        until("it waits", waits).await;
        acquiring.abort();
    }
    scene.until_waiting("local", 0).await;
    held.clear();
    scene.until_free_but(&["first"]).await;
    // The keys are free, so the first try acquires each key.
    let before = Instant::now();
    for number in 0..500 {
        let lock = client.lock(format!("k{number}")).unwrap();
        let guard = timeout(SOON, lock.acquire()).await.unwrap().unwrap();
        assert!(!guard.was_contended(), "k{number}");
        guard.release().await.unwrap();
    }
    println!("500 in {:?}", before.elapsed());
    sleep(Duration::ZERO).await;
}
