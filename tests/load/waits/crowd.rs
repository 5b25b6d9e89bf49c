//! Clients with far more waits than connections.

use dflockd_client::server::Server;
use dflockd_client::{Client, LockGuard, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{SOON, Scene, address, pass_through};
use crate::support::{until, until_now};

/// The number of keys that one client holds and another client waits for.
const MANY: usize = 10_000;

enum Held {
    Lock(LockGuard),
    Slot(SemaphorePermit),
}

impl Held {
    async fn release(self) {
        match self {
            Self::Lock(guard) => guard.release().await.unwrap(),
            Self::Slot(permit) => permit.release().await.unwrap(),
        }
    }
}

/// Acquires a lock if the number is even, and a slot of a semaphore if it is odd.
async fn acquire(client: &Client, number: usize) -> Held {
    if number % 2 == 0 {
        Held::Lock(client.lock(format!("k{number}")).unwrap().acquire().await.unwrap())
    } else {
        let semaphore = client.semaphore(format!("k{number}"), 1).unwrap();
        Held::Slot(semaphore.acquire().await.unwrap())
    }
}

/// Each of 10,000 locks and semaphores on two shards has one waiter. Of every forty keys, the test
/// releases two: a lock, and a slot of a semaphore.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_becomes_free_is_acquired_soon_however_many_waits_there_are() {
    let scene = Scene::start().await;
    let other = Server::builder().max_locks(100_000).port(0).start().await.unwrap();
    let servers = [address(&scene.server), address(&other)];
    let holder = Client::builder().servers(servers.clone()).connect().await.unwrap();
    let client = scene.builder().servers(servers).exclusive_connections(256);
    let client = client.connect().await.unwrap();
    let mut held = Vec::new();
    for number in 0..MANY {
        held.push(acquire(&holder, number).await);
    }
    let mut waiting: JoinSet<(usize, Instant)> = JoinSet::new();
    for number in 0..MANY {
        let client = client.clone();
        waiting.spawn(async move {
            let held = acquire(&client, number).await;
            let at = Instant::now();
            held.release().await;
            (number, at)
        });
    }
    scene.until_waiting("server", 512).await;
    scene.until_waiting("local", MANY - 512).await;
    let mut released = std::collections::HashMap::new();
    for (number, held) in held.into_iter().enumerate() {
        if number % 40 < 2 {
            released.insert(number, Instant::now());
            held.release().await;
        } else {
            std::mem::forget(held);
        }
    }
    let mut took = Vec::new();
    while took.len() < released.len() {
        let (number, at) = timeout(SOON, waiting.join_next()).await.unwrap().unwrap().unwrap();
        took.push(at - released[&number]);
    }
    took.sort();
    println!(
        "half of them within {:?}, all within {:?}",
        took[took.len() / 2],
        took.last()
    );
    assert!(scene.recorded.value("wait_tries_total", &[("outcome", "granted")]) > 0.0);
    assert!(
        scene
            .recorded
            .value("wait_connections_exhausted_total", &[("reason", "limit")])
            >= 1.0
    );
}

/// The client has the default limit of 1,024 exclusive connections.
#[tokio::test(flavor = "multi_thread")]
async fn the_waiters_for_the_released_half_of_two_thousand_keys_acquire_them() {
    let scene = Scene::start().await;
    let client = scene.builder().connect().await.unwrap();
    let mut held = Vec::new();
    for number in 0..2_000 {
        held.push(acquire(&scene.holder, number).await);
    }
    let mut waiting = JoinSet::new();
    for number in 0..2_000 {
        let client = client.clone();
        waiting.spawn(async move { acquire(&client, number).await });
    }
    let all = || scene.recorded.value("waiters", &[]) == 2_000.0;
    until("all callers wait, at the server or in the client", all).await;
    let kept = held.split_off(1_000);
    for held in held {
        held.release().await;
    }
    let mut got = Vec::new();
    while got.len() < 1_000 {
        got.push(timeout(SOON, waiting.join_next()).await.unwrap().unwrap().unwrap());
    }
    assert!(scene.connects() <= 1024.0);
    drop((kept, got));
}

/// The blocking client has 40 waits and four exclusive connections.
#[test]
fn threads_acquire_free_keys_too() {
    const KEYS: usize = 40;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let scene = runtime.block_on(Scene::start());
    let servers = [address(&scene.server)];
    let holder = Client::builder().servers(servers).connect_blocking().unwrap();
    let client = scene.builder().exclusive_connections(4).connect_blocking().unwrap();
    let held = (0..KEYS).map(|number| holder.lock(format!("k{number}")).unwrap().acquire().unwrap());
    let held: Vec<_> = held.collect();
    let waiting = (0..KEYS).map(|number| {
        let client = client.clone();
        std::thread::spawn(move || {
            let lock = client.lock(format!("k{number}")).unwrap();
            lock.acquire().unwrap().release().unwrap();
        })
    });
    let waiting: Vec<_> = waiting.collect();
    until_now("all wait", || scene.recorded.value("waiters", &[]) == KEYS as f64);
    until_now("four of them on the server", || scene.waiters() == 4);
    // The test first releases the keys whose waiters have no connection. The four waiters at the server keep waiting.
    let mut on_server = Vec::new();
    for guard in held {
        let locks = scene.server.stats().locks;
        let waits = |key: &str| locks.iter().any(|lock| lock.key == key && lock.waiters > 0);
        match waits(guard.key().as_str()) {
            true => on_server.push(guard),
            false => guard.release().unwrap(),
        }
    }
    let all_others = || waiting.iter().filter(|thread| thread.is_finished()).count() == KEYS - 4;
    until_now("all other waiters have had their keys", all_others);
    assert_eq!(on_server.len(), 4);
    drop(on_server);
    for thread in waiting {
        thread.join().unwrap();
    }
}

/// All callers use one client and acquire the same eight keys. No other client uses these keys.
#[tokio::test(flavor = "multi_thread")]
async fn waiters_for_keys_of_their_own_client_need_few_tries() {
    let scene = Scene::start().await;
    let client = scene.builder().exclusive_connections(2).connect().await.unwrap();
    let started = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..400 {
        running.spawn(pass_through(client.lock(format!("k{}", number % 8)).unwrap()));
    }
    timeout(SOON, running.join_all()).await.unwrap();
    println!("400 passed through 8 keys in {:?}", started.elapsed());
    // The client tries a key when it has released the key, and not while it holds the key.
    let tries = scene.recorded.value("wait_tries_total", &[]);
    assert!(tries <= 400.0 * 1.5, "{tries} tries");
}
