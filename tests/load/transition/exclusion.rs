//! Shows which generations of clients (see `mod.rs`) exclude each other, and which servers their clients use.

use std::time::{Duration, Instant};

use dflockd_client::{Client, ErrorKind, rendezvous_hash_shard, stable_hash_shard};

use super::LONG;
use super::fleet::{Fleet, MOVES, MOVES_BACK, STAYS};
use crate::support::until;

async fn is_free(client: &Client, key: &str) -> bool {
    client.lock(key).unwrap().try_acquire().await.unwrap().is_some()
}

#[tokio::test]
async fn a_key_that_moves_is_held_on_both_servers_and_others_on_one() {
    let fleet = Fleet::start().await;
    let client = fleet.both().connect().await.unwrap();
    for (key, loads) in [
        (MOVES, [(1, 0), (0, 0), (1, 0)]),
        (MOVES_BACK, [(1, 0), (1, 0), (0, 0)]),
        (STAYS, [(0, 0), (1, 0), (0, 0)]),
    ] {
        let guard = client.lock(key).unwrap().acquire().await.unwrap();
        assert_eq!([0, 1, 2].map(|server| fleet.load(server)), loads, "{key}");
        assert!(guard.is_held() && !guard.remaining().is_zero() && !guard.was_contended());
        guard.release().await.unwrap();
        assert_eq!([0, 1, 2].map(|server| fleet.load(server)), [(0, 0); 3], "{key}");
        drop(client.lock(key).unwrap().acquire().await.unwrap());
        fleet.until_free().await;
    }
    let stats = client.stats().await.unwrap();
    assert!(stats.locks.is_empty() && client.health().len() == 3);
}

#[tokio::test]
async fn neighbouring_generations_exclude_each_other_and_the_outer_two_do_not() {
    let fleet = Fleet::start().await;
    let clients = fleet.clients().await;
    for key in [MOVES, MOVES_BACK, STAYS] {
        for (holder, free_to) in [(0, [false, false, true]), (1, [false; 3]), (2, [true, false, false])] {
            let held = clients[holder].lock(key).unwrap().acquire().await.unwrap();
            for (other, client) in clients.iter().enumerate() {
                let expected = free_to[other] && key != STAYS;
                assert_eq!(
                    is_free(client, key).await,
                    expected,
                    "{key}: {holder} holds, {other} tries"
                );
            }
            fleet
                .until_load(match (holder, key) {
                    (_, STAYS) => [(0, 0), (1, 0), (0, 0)],
                    (0, MOVES) | (2, MOVES_BACK) => [(1, 0), (0, 0), (0, 0)],
                    (0, _) => [(0, 0), (1, 0), (0, 0)],
                    (1, MOVES) => [(1, 0), (0, 0), (1, 0)],
                    (1, _) => [(1, 0), (1, 0), (0, 0)],
                    (_, _) => [(0, 0), (0, 0), (1, 0)],
                })
                .await;
            held.release().await.unwrap();
        }
    }
}

/// The acquire waits at one server at a time. While it waits for the current half, it holds the previous half.
#[tokio::test]
async fn an_acquire_takes_the_previous_half_first_and_holds_it_while_it_waits() {
    let fleet = Fleet::start().await;
    let [old, both, new] = fleet.clients().await;
    let previous_held = old.lock(MOVES).unwrap().acquire().await.unwrap();
    let current_held = new.lock(MOVES).unwrap().acquire().await.unwrap();
    let lock = both.lock(MOVES).unwrap().acquire_timeout(LONG);
    let waiting = tokio::spawn(async move { lock.acquire().await });
    fleet.until_load([(1, 1), (0, 0), (1, 0)]).await;
    previous_held.release().await.unwrap();
    fleet.until_load([(1, 0), (0, 0), (1, 1)]).await;
    assert!(!is_free(&old, MOVES).await && !waiting.is_finished());
    current_held.release().await.unwrap();
    let guard = waiting.await.unwrap().unwrap();
    assert!(guard.is_held() && guard.was_contended());
    assert!(!is_free(&old, MOVES).await && !is_free(&new, MOVES).await);
    guard.release().await.unwrap();
    fleet.until_free().await;
}

/// The previous server serves waiters of the previous generation and waiters in the transition in one order.
#[tokio::test]
async fn waiters_are_served_in_the_order_of_the_previous_server() {
    let fleet = Fleet::start().await;
    let [old, both, _new] = fleet.clients().await;
    let held = old.lock(MOVES).unwrap().acquire().await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for (number, client) in [&both, &old, &both, &old, &both].into_iter().enumerate() {
        let (lock, tell) = (client.lock(MOVES).unwrap().acquire_timeout(LONG), tell.clone());
        tokio::spawn(async move {
            let guard = lock.acquire().await.unwrap();
            tell.send(number).unwrap();
            guard.release().await.unwrap();
        });
        until("it waits", || fleet.load(0).1 == number + 1).await;
    }
    held.release().await.unwrap();
    for number in 0..5 {
        assert_eq!(told.recv().await, Some(number));
    }
}

/// The acquire waits 3 s for the previous half, and has 3 s left for the current half. If the timeout of 6 s restarted
/// for the current half, the acquire would take 9 s.
#[tokio::test]
async fn the_timeout_of_an_acquire_covers_both_halves() {
    let fleet = Fleet::start().await;
    let [old, both, new] = fleet.clients().await;
    let previous_held = old.lock(MOVES).unwrap().acquire().await.unwrap();
    let _current_held = new.lock(MOVES).unwrap().acquire().await.unwrap();
    let (wait, share) = (Duration::from_secs(6), Duration::from_secs(3));
    let lock = both.lock(MOVES).unwrap().acquire_timeout(wait);
    let began = Instant::now();
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(share).await;
    previous_held.release().await.unwrap();
    fleet.until_load([(1, 0), (0, 0), (1, 1)]).await;
    let error = waiting.await.unwrap().unwrap_err();
    assert!(began.elapsed() < wait + share, "{:?}", began.elapsed());
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("6s"), "the whole timeout: {error}");
    fleet.until_load([(0, 0), (0, 0), (1, 0)]).await;
}

#[tokio::test]
async fn a_try_whose_second_half_is_refused_releases_the_first() {
    let fleet = Fleet::start().await;
    let [_old, both, new] = fleet.clients().await;
    let _held = new.lock(MOVES).unwrap().acquire().await.unwrap();
    assert!(both.lock(MOVES).unwrap().try_acquire().await.unwrap().is_none());
    fleet.until_load([(0, 0), (0, 0), (1, 0)]).await;
}

#[tokio::test]
async fn a_semaphore_has_no_more_holders_than_its_limit_in_neighbouring_generations() {
    let fleet = Fleet::start().await;
    let clients = fleet.clients().await;
    let slot = async |client: &Client| client.semaphore(MOVES, 3).unwrap().try_acquire().await.unwrap();
    for neighbours in [[0, 1], [1, 2]] {
        let mut held = Vec::new();
        for number in [0, 1, 1] {
            held.push(slot(&clients[neighbours[number]]).await.expect("there is room"));
        }
        for client in neighbours {
            assert!(slot(&clients[client]).await.is_none());
        }
        for permit in held {
            permit.release().await.unwrap();
        }
        fleet.until_free().await;
    }
}

/// An acquire of several slots of a semaphore first acquires a lock. So only one acquire collects slots at a time, even
/// if the clients belong to neighbouring generations.
#[tokio::test]
async fn acquires_of_several_slots_in_neighbouring_generations_never_deadlock() {
    let fleet = Fleet::start().await;
    let clients = fleet.clients().await;
    for neighbours in [[0, 1], [1, 2]] {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..8 {
            let client = clients[neighbours[number % 2]].clone();
            tasks.spawn(async move {
                let slots = client.semaphore(MOVES, 4).unwrap().acquire_timeout(LONG);
                for _ in 0..5 {
                    match number < 2 {
                        true => slots.acquire().await.unwrap().release().await.unwrap(),
                        false => slots.acquire_many(3).await.unwrap().release().await.unwrap(),
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        fleet.until_free().await;
    }
}

/// While a server is down, only the keys that must be held on this server are unavailable.
#[tokio::test]
async fn a_server_that_is_down_costs_the_keys_that_move_to_it_or_from_it() {
    for (down, other) in [(2, 0), (0, 2)] {
        let fleet = Fleet::start().await;
        let client = fleet
            .both()
            .request_timeout(Duration::from_millis(300))
            .connect()
            .await
            .unwrap();
        fleet.proxies[down].change(|treatment| treatment.refuse = true);
        fleet.proxies[down].cut();
        until("the client is disconnected", || !client.health()[down].is_connected()).await;
        let lock = client.lock(MOVES).unwrap().acquire_timeout(Duration::from_millis(300));
        for error in [lock.acquire().await.unwrap_err(), lock.try_acquire().await.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            let names_it = error.to_string().contains(&format!("shard {down}"));
            assert!(names_it, "{error}");
        }
        until("no lease is left on the other server", || fleet.load(other) == (0, 0)).await;
        assert!(client.lock(STAYS).unwrap().try_acquire().await.unwrap().is_some());
        fleet.proxies[down].pass_everything();
        let lock = lock.acquire_timeout(LONG);
        lock.acquire().await.unwrap().release().await.unwrap();
    }
}

/// Clients with the previous list do not use the new server. While the new server is down, a client in the transition
/// does not acquire the previous half, so it does not block these clients.
#[tokio::test]
async fn a_new_server_that_is_down_costs_clients_of_the_previous_list_nothing() {
    let fleet = Fleet::start().await;
    let [old, both, _new] = fleet.clients().await;
    fleet.proxies[2].change(|treatment| treatment.refuse = true);
    fleet.proxies[2].cut();
    until("the client is disconnected", || !both.health()[2].is_connected()).await;
    let lock = both.lock(MOVES).unwrap().acquire_timeout(LONG);
    let tried = lock.clone();
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(async move { lock.acquire().await.map(drop) });
    waiting.spawn(async move { tried.enqueue().await.map(drop) });
    for _ in 0..20 {
        assert!(old.lock(MOVES).unwrap().try_acquire().await.unwrap().is_some());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fleet.proxies[2].pass_everything();
    while let Some(done) = waiting.join_next().await {
        done.unwrap().unwrap();
    }
    fleet.until_free().await;
}

/// A key is held on two servers if the two lists place it on different servers. Rendezvous hashing does this for about
/// one key in three. The client makes only one connection to a server that is in both lists.
#[tokio::test]
async fn exactly_the_keys_that_move_are_held_on_two_servers() {
    let fleet = Fleet::start().await;
    let client = fleet
        .both()
        .sharding_strategy(rendezvous_hash_shard)
        .previous_sharding_strategy(rendezvous_hash_shard)
        .connect()
        .await
        .unwrap();
    let keys: Vec<String> = (0..90).map(|number| format!("orders/{number}")).collect();
    let mut guards = Vec::new();
    for key in &keys {
        guards.push(client.lock(key).unwrap().acquire().await.unwrap());
    }
    let moved = keys.iter().filter(|key| rendezvous_hash_shard(key, 3) == 2).count();
    for key in &keys {
        let (shard, previous) = (client.shard_of(key).unwrap(), client.previous_shard_of(key).unwrap());
        assert_eq!(previous, (shard == 2).then(|| rendezvous_hash_shard(key, 2)), "{key}");
    }
    assert_eq!(fleet.load(2).0, moved);
    assert_eq!(
        (0..3).map(|server| fleet.load(server).0).sum::<usize>(),
        keys.len() + moved
    );
    assert!((18..=42).contains(&moved), "{moved} of 90");
    assert_eq!(
        fleet.proxies.iter().map(|proxy| proxy.accepted()).collect::<Vec<_>>(),
        [1, 1, 1]
    );
    let by_remainder = |key: &&String| stable_hash_shard(key, 2) != stable_hash_shard(key, 3);
    assert!(keys.iter().filter(by_remainder).count() >= 45);
}
