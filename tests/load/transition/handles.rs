//! Each kind of handle acquires both halves of a key that moves.

use std::time::Duration;

use dflockd_client::{AcquireRequest, DistributedLock, Election, Key, Request, Response, Target};
use tower::{Service, ServiceExt};

use super::fleet::{Fleet, MOVES, MOVES_BACK, STAYS};

/// The expected holders and waiters on the three servers while both halves of [`MOVES`] are held.
const BOTH: [(usize, usize); 3] = [(1, 0), (0, 0), (1, 0)];

#[tokio::test]
async fn several_locks_are_acquired_on_all_their_servers() {
    let fleet = Fleet::start().await;
    let [old, both, new] = fleet.clients().await;
    let keys = [STAYS, MOVES, MOVES_BACK];
    let guard = both.lock_all(keys).unwrap().acquire().await.unwrap();
    fleet.until_load([(2, 0), (2, 0), (1, 0)]).await;
    for client in [&old, &new] {
        for key in keys {
            assert!(client.lock(key).unwrap().try_acquire().await.unwrap().is_none());
        }
    }
    guard.release().await.unwrap();
    fleet.until_free().await;
}

/// All callers acquire the keys in the same order, and for each key the previous half first.
#[tokio::test]
async fn acquires_of_several_moving_locks_never_deadlock() {
    let fleet = Fleet::start().await;
    let clients = fleet.clients().await;
    let mut tasks = tokio::task::JoinSet::new();
    for neighbours in [[0, 1], [1, 2]] {
        for number in 0..12 {
            let client = clients[neighbours[number % 2]].clone();
            tasks.spawn(async move {
                for round in 0..8 {
                    let mut keys = [MOVES, MOVES_BACK, STAYS, "01/key", "00/key"];
                    keys.rotate_left((number + round) % 5);
                    let locks = client.lock_all(&keys[..3]).unwrap().acquire_timeout(super::LONG);
                    locks.acquire().await.unwrap().release().await.unwrap();
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
    fleet.until_free().await;
}

#[tokio::test]
async fn several_slots_are_acquired_on_both_servers() {
    let fleet = Fleet::start().await;
    let clients = fleet.clients().await;
    let slots = clients[1].semaphore(MOVES, 4).unwrap();
    let permits = slots.acquire_many(4).await.unwrap();
    fleet.until_load([(4, 0), (0, 0), (4, 0)]).await;
    for client in [&clients[0], &clients[2]] {
        let others = client.semaphore(MOVES, 4).unwrap();
        assert!(others.try_acquire_many(2).await.unwrap().is_none());
    }
    permits.release().await.unwrap();
    fleet.until_free().await;
}

#[tokio::test]
async fn elections_objects_and_requests_acquire_both_halves() {
    let fleet = Fleet::start().await;
    let client = fleet.both().connect().await.unwrap();

    let leadership = Election::new(client.lock(MOVES).unwrap()).campaign().await.unwrap();
    fleet.until_load(BOTH).await;
    assert_eq!(leadership.term(), None);
    leadership.resign().await.unwrap();

    let mut object = DistributedLock::with_options(MOVES, fleet.both()).unwrap();
    assert!(object.acquire().await.unwrap());
    fleet.until_load(BOTH).await;
    assert!(object.is_held() && object.token().is_some());
    object.release().await.unwrap();
    let mut stays = DistributedLock::with_options(STAYS, fleet.both()).unwrap();
    assert!(stays.acquire().await.unwrap());
    fleet.until_load([(0, 0), (1, 0), (0, 0)]).await;
    stays.release().await.unwrap();

    let mut service = client.clone();
    let request = AcquireRequest::new(Target::Lock, Key::new(MOVES).unwrap()).acquire_timeout(Duration::from_secs(5));
    let answer = service.ready().await.unwrap().call(Request::Acquire(request)).await;
    let Response::Granted(lease) = answer.unwrap() else {
        panic!("the key is free");
    };
    fleet.until_load(BOTH).await;
    let answer = service.ready().await.unwrap().call(Request::Release(lease)).await;
    assert!(matches!(answer, Ok(Response::Released)));
    fleet.until_free().await;
}

#[cfg(feature = "blocking")]
#[test]
fn threads_acquire_both_halves() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fleet = runtime.block_on(Fleet::start());
    let client = fleet.both().connect_blocking().unwrap();
    let guard = client.lock(MOVES).unwrap().acquire().unwrap();
    runtime.block_on(fleet.until_load(BOTH));
    assert!(guard.is_held());
    guard.release().unwrap();
    drop(client.lock(MOVES).unwrap().acquire().unwrap());
    runtime.block_on(fleet.until_free());
    drop(client);
}
