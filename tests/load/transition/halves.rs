//! Both halves of a key that moves are one lease. The lease is lost as soon as one half is lost. The client renews both
//! halves, and each half has the fence of its server.

use std::time::Duration;

use dflockd_client::{Client, ErrorKind, Fencing, LeaseState, LockGuard, LostReason};

use super::LONG;
use super::fleet::{Fleet, MOVES, STAYS};
use crate::support::until;

const SECOND: Duration = Duration::from_secs(1);

fn assert_lost(guard: &LockGuard, why: LostReason) {
    assert_eq!(guard.state(), LeaseState::Lost(why));
    assert!(!guard.is_held() && guard.remaining().is_zero());
}

#[tokio::test]
async fn a_lease_is_lost_with_either_half_and_dropping_it_releases_the_other() {
    for (cut, other) in [(0, 2), (2, 0)] {
        let fleet = Fleet::start().await;
        let client = fleet.both().connect().await.unwrap();
        let guard = client.lock(MOVES).unwrap().acquire().await.unwrap();
        let token = guard.cancellation_token();
        let lost = tokio::spawn(guard.lost());
        fleet.proxies[cut].cut();
        assert_eq!(lost.await.unwrap(), LostReason::Disconnected);
        assert_lost(&guard, LostReason::Disconnected);
        assert!(token.is_cancelled() && guard.cancellation_token().is_cancelled());
        assert_eq!(
            guard.lost().await,
            LostReason::Disconnected,
            "a loss is reported after the fact, too"
        );
        let error = guard.run(std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LeaseLost);
        assert_eq!(
            fleet.load(other),
            (1, 0),
            "the other half stays until its holder drops the guard"
        );
        let error = guard.release().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
        fleet.until_free().await;
    }
}

/// A guard of several keys or slots is lost as soon as one half of one lease is lost.
#[tokio::test]
async fn several_leases_are_lost_with_any_half() {
    for cut in [0, 2] {
        let fleet = Fleet::start().await;
        let client = fleet.both().connect().await.unwrap();
        let guards = client.lock_all([MOVES, STAYS]).unwrap().acquire().await.unwrap();
        let permits = client.semaphore(MOVES, 5).unwrap().acquire_many(2).await.unwrap();
        let (token, slots) = (guards.cancellation_token(), permits.cancellation_token());
        let lost = guards.lost();
        assert!(guards.is_held() && permits.is_held() && !token.is_cancelled() && !slots.is_cancelled());
        fleet.proxies[cut].cut();
        let (key, reason) = lost.await;
        assert_eq!((key.as_str(), reason), (MOVES, LostReason::Disconnected));
        token.cancelled().await;
        slots.cancelled().await;
        assert!(!guards.is_held() && !permits.is_held());
        drop((guards, permits));
        fleet.until_free().await;
    }
}

/// After the loss of one half, the client does not renew the other half. So the other half ends after its TTL, even if
/// the caller still has the guard.
#[tokio::test]
async fn the_other_half_of_a_lost_lease_is_not_renewed() {
    let fleet = Fleet::start().await;
    let [old, both, _new] = fleet.clients().await;
    let lock = both.lock(MOVES).unwrap().lease_ttl(SECOND);
    let guard = lock.acquire().await.unwrap();
    fleet.proxies[2].cut();
    guard.lost().await;
    let next = old.lock(MOVES).unwrap().acquire_timeout(LONG).acquire().await.unwrap();
    assert_lost(&guard, LostReason::Disconnected);
    // Now the other half has expired, but the guard reports the reason of the first loss.
    until("both halves have ended", || fleet.load(2) == (0, 0)).await;
    tokio::time::sleep(2 * SECOND).await;
    assert_lost(&guard, LostReason::Disconnected);
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    drop(guard);
    assert!(next.is_held());
}

/// The previous half is lost with its connection. The current half expires later.
#[tokio::test]
async fn the_reason_is_that_of_the_half_that_is_lost_first() {
    let fleet = Fleet::start().await;
    let [_old, both, new] = fleet.clients().await;
    let guard = both.lock(MOVES).unwrap().lease_ttl(SECOND).acquire().await.unwrap();
    fleet.proxies[0].cut();
    guard.lost().await;
    let next = new.lock(MOVES).unwrap().acquire_timeout(LONG).acquire().await.unwrap();
    assert_lost(&guard, LostReason::Disconnected);
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    drop((guard, next));
}

#[tokio::test]
async fn both_halves_are_renewed_and_the_first_also_during_the_wait_for_the_other() {
    let fleet = Fleet::start().await;
    let [_old, both, new] = fleet.clients().await;
    let held = new.lock(MOVES).unwrap().acquire().await.unwrap();
    // An acquire renews the previous half until it has the current half, even with `renew(false)` or with a short
    // `max_hold`.
    let lock = both.lock(MOVES).unwrap().lease_ttl(SECOND).acquire_timeout(LONG);
    let locks = [
        lock.clone().renew(false),
        lock.clone().max_hold(Duration::from_millis(200)),
        lock,
    ];
    let mut waiting = Vec::new();
    for lock in locks {
        waiting.push(tokio::spawn(async move {
            let guard = lock.acquire().await.unwrap();
            assert!(guard.is_held());
            guard
        }));
        let waiters = waiting.len() - 1;
        until("it waits", || fleet.load(0) == (1, waiters)).await;
        if waiters == 0 {
            fleet.until_load([(1, 0), (0, 0), (1, 1)]).await;
        }
    }
    tokio::time::sleep(3 * SECOND).await;
    assert!(waiting.iter().all(|waits| !waits.is_finished()));
    held.release().await.unwrap();
    let mut waiting = waiting.into_iter();
    // The leases of the first two acquires expire. Each time, the next acquire gets the key.
    for _ in 0..2 {
        let guard = waiting.next().unwrap().await.unwrap();
        assert_eq!(guard.lost().await, LostReason::Expired);
        drop(guard);
    }
    let guard = waiting.next().unwrap().await.unwrap();
    tokio::time::sleep(3 * SECOND).await;
    assert!(guard.is_held(), "{:?}", guard.state());
    guard.release().await.unwrap();
    fleet.until_free().await;
}

/// The previous half is lost while the acquire waits for the current half. The acquire fails, and can be repeated.
#[tokio::test]
async fn a_wait_ends_with_its_first_half() {
    let fleet = Fleet::start().await;
    let [_old, both, new] = fleet.clients().await;
    let held = new.lock(MOVES).unwrap().acquire().await.unwrap();
    let lock = both.lock(MOVES).unwrap().acquire_timeout(LONG);
    let again = lock.clone();
    let waiting = tokio::spawn(async move { lock.acquire().await });
    fleet.until_load([(1, 0), (0, 0), (1, 1)]).await;
    fleet.proxies[0].cut();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    assert!(error.is_retryable(), "{error}");
    held.release().await.unwrap();
    again.acquire().await.unwrap().release().await.unwrap();
    fleet.until_free().await;
}

#[tokio::test]
async fn a_moving_key_has_the_fences_of_both_servers_and_no_single_one() {
    let fleet = Fleet::start().await;
    let [old, both, new] = fleet.clients().await;
    let fence = async |client: &Client| {
        let guard = client.lock(MOVES).unwrap().acquire().await.unwrap();
        let fence = guard.require_fence().unwrap();
        guard.release().await.unwrap();
        fence
    };
    // The first grant over a connection may have no fence.
    for client in [&old, &both, &new] {
        loop {
            let guard = client.lock(MOVES).unwrap().acquire().await.unwrap();
            let is_known = guard.fence().is_some() || guard.transition_fences().is_some();
            guard.release().await.unwrap();
            if is_known {
                break;
            }
        }
    }
    let (before, after) = (fence(&old).await, fence(&new).await);
    let guard = both.lock(MOVES).unwrap().acquire().await.unwrap();
    let fences = guard.transition_fences().unwrap();
    assert!(fences.previous > before && fences.current > after);
    assert_eq!(guard.fence(), None);
    let error = guard.require_fence().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("transition_fences"), "{error}");
    guard.release().await.unwrap();
    assert!(fence(&old).await > fences.previous && fence(&new).await > fences.current);
    let stays = both.lock(STAYS).unwrap();
    drop(stays.acquire().await.unwrap());
    let guard = stays.acquire().await.unwrap();
    assert!(guard.fence().is_some() && guard.transition_fences().is_none());
    let error = fleet.both().fencing(Fencing::Required).build().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("transition_fences"), "{error}");
}

/// `on_lost` reports the loss of a half with the shard of this half.
#[tokio::test]
async fn each_half_counts_as_a_lease_of_its_shard() {
    let fleet = Fleet::start().await;
    let (tell, told) = std::sync::mpsc::channel();
    let client = fleet
        .both()
        .on_lost(move |lost| tell.send((lost.shard, lost.reason)).unwrap_or_default())
        .connect()
        .await
        .unwrap();
    let guard = client.lock(MOVES).unwrap().acquire().await.unwrap();
    fleet.proxies[2].cut();
    guard.lost().await;
    drop(guard);
    until("the previous half is free", || fleet.load(0) == (0, 0)).await;
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [(2, LostReason::Disconnected)]);
}
