//! The cases of the suite.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dflockd_client::protocol::Enqueued;
use dflockd_client::{ErrorKind, Fencing, Key, LeaseState, Limit, LostReason, Token, Ttl, WaitSecs};

use super::api::Client;
use super::composites::{
    an_enqueue_takes_a_queue_position_and_a_later_wait_acquires, objects_hold_what_they_acquire,
    several_locks_are_taken_all_or_none, work_under_a_lock_keeps_its_own_error,
};
use super::low;
use super::peer::{Ability, Peer, fence_of};
use super::signals::{
    a_client_subscribes_and_emits, a_group_takes_turns, signals_reach_their_listeners_in_order,
    wildcards_stand_for_tokens,
};

pub struct Case {
    pub name: &'static str,
    pub needs: &'static [Ability],
    pub run: fn(Peer) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

macro_rules! cases {
    ($($name:ident $(needs $($need:ident)+)?),* $(,)?) => {
        pub fn all() -> Vec<Case> {
            vec![$(Case {
                name: stringify!($name),
                needs: &[$($(Ability::$need),+)?],
                run: |peer| Box::pin($name(peer)),
            }),*]
        }
    };
}

cases! {
    low_level_acquire_renew_release,
    low_level_try_and_timeout,
    low_level_fifo,
    low_level_token_counts_on_any_connection,
    low_level_wrong_token,
    low_level_two_phase,
    low_level_two_phase_timeout_gives_up_the_queue_position,
    low_level_expiry_goes_to_the_waiter,
    low_level_semaphore needs Semaphores,
    low_level_limit_mismatch needs Semaphores,
    fences_grow needs Fences,
    acquire_and_release,
    a_lock_that_is_held_is_busy,
    a_wait_does_not_end_before_its_own_time_in_milliseconds,
    waiters_are_served_in_order needs Stats,
    the_next_waiter_gets_a_released_lock,
    a_dropped_wait_leaves_no_waiter needs Stats DroppedCalls,
    a_dropped_guard_releases_its_lock,
    mutual_exclusion_under_contention,
    a_lease_outlives_many_ttls_while_it_is_renewed,
    without_renewal_a_lease_is_lost_before_others_get_it,
    a_lock_taken_away_is_reported,
    a_disconnect_frees_the_locks_of_its_connection,
    a_long_ttl_outlives_the_read_timeout,
    a_thousand_leases_over_one_connection,
    a_semaphore_of_two_is_shared_by_three needs Semaphores,
    semaphore_limit_mismatch needs Semaphores,
    locks_and_semaphores_have_names_of_their_own needs Namespaces Semaphores,
    stats_list_holders_and_waiters needs Stats,
    shutdown_releases_everything,
    an_enqueue_takes_a_queue_position_and_a_later_wait_acquires,
    several_locks_are_taken_all_or_none,
    work_under_a_lock_keeps_its_own_error,
    objects_hold_what_they_acquire,
    signals_reach_their_listeners_in_order needs Signals,
    wildcards_stand_for_tokens needs Signals,
    a_group_takes_turns needs Signals,
    a_client_subscribes_and_emits needs Signals,
}

const TRY: WaitSecs = WaitSecs::TRY;

fn ttl(secs: u64) -> Option<Ttl> {
    Ttl::from_secs(secs)
}

fn wait(secs: u64) -> WaitSecs {
    WaitSecs::from_secs(secs).unwrap()
}

fn kind<T>(result: Result<T, dflockd_client::Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// Waits until the server has this many waiters for the lock.
async fn until_waiters(client: &Client, key: &Key, waiters: u64) {
    loop {
        let stats = client.stats().await.unwrap();
        let now = stats
            .locks
            .iter()
            .find(|lock| lock.key == key.as_str())
            .map_or(0, |lock| lock.waiters);
        if now == waiters {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// Cases of the protocol, with one request at a time.

async fn low_level_acquire_renew_release(peer: Peer) {
    let (mut wire, key) = (peer.wire().await, peer.key("k"));
    let grant = low::acquire(&mut wire, &key, TRY, ttl(10)).await.unwrap();
    assert_eq!(grant.ttl.as_secs(), 10);
    let left = low::renew(&mut wire, &key, &grant.token, ttl(20)).await.unwrap();
    // Some servers round the remaining TTL down, and some servers do not return it.
    assert!(left.is_none_or(|left| (19..=20).contains(&left)), "{left:?}");
    low::release(&mut wire, &key, &grant.token).await.unwrap();
    assert_eq!(
        kind(low::release(&mut wire, &key, &grant.token).await),
        Some(ErrorKind::NotHeld)
    );
    assert_eq!(
        kind(low::renew(&mut wire, &key, &grant.token, ttl(20)).await),
        Some(ErrorKind::NotHeld)
    );
}

async fn low_level_try_and_timeout(peer: Peer) {
    let (mut a, mut b, key) = (peer.wire().await, peer.wire().await, peer.key("k"));
    low::acquire(&mut a, &key, TRY, ttl(10)).await.unwrap();
    assert_eq!(
        kind(low::acquire(&mut b, &key, TRY, ttl(10)).await),
        Some(ErrorKind::Timeout)
    );
    let started = Instant::now();
    assert_eq!(
        kind(low::acquire(&mut b, &key, wait(1), ttl(10)).await),
        Some(ErrorKind::Timeout)
    );
    assert!(started.elapsed() >= Duration::from_millis(900));
    assert_eq!(
        kind(low::acquire(&mut a, &key, TRY, ttl(10)).await),
        Some(ErrorKind::Timeout),
        "not reentrant"
    );
}

async fn low_level_fifo(peer: Peer) {
    let key = peer.key("k");
    let mut holder = peer.wire().await;
    let mut grant = low::acquire(&mut holder, &key, TRY, ttl(20)).await.unwrap();
    let mut queue = Vec::new();
    for _ in 0..5 {
        let mut wire = peer.wire().await;
        // The server answers an enqueue after it has queued the waiter, so the order of the queue is certain.
        assert_eq!(low::enqueue(&mut wire, &key, ttl(20)).await.unwrap(), Enqueued::Queued);
        queue.push(wire);
    }
    for wire in &mut queue {
        low::release(&mut holder, &key, &grant.token).await.unwrap();
        grant = low::wait(wire, &key, wait(5)).await.unwrap();
        assert_eq!(
            kind(low::acquire(&mut holder, &key, TRY, ttl(20)).await),
            Some(ErrorKind::Timeout),
            "a newcomer does not overtake"
        );
    }
}

async fn low_level_token_counts_on_any_connection(peer: Peer) {
    let (mut a, mut b, key) = (peer.wire().await, peer.wire().await, peer.key("k"));
    let grant = low::acquire(&mut a, &key, TRY, ttl(10)).await.unwrap();
    low::renew(&mut b, &key, &grant.token, ttl(15)).await.unwrap();
    low::release(&mut b, &key, &grant.token).await.unwrap();
    low::acquire(&mut b, &key, TRY, ttl(10)).await.unwrap();
}

async fn low_level_wrong_token(peer: Peer) {
    let (mut wire, key) = (peer.wire().await, peer.key("k"));
    let grant = low::acquire(&mut wire, &key, TRY, ttl(10)).await.unwrap();
    let wrong = Token::new("0123456789abcdef0123456789abcdef").unwrap();
    assert_eq!(
        kind(low::release(&mut wire, &key, &wrong).await),
        Some(ErrorKind::NotHeld)
    );
    assert_eq!(
        kind(low::renew(&mut wire, &key, &wrong, ttl(10)).await),
        Some(ErrorKind::NotHeld)
    );
    low::release(&mut wire, &key, &grant.token).await.unwrap();
}

async fn low_level_two_phase(peer: Peer) {
    let (mut a, mut b, key) = (peer.wire().await, peer.wire().await, peer.key("k"));
    let Enqueued::Acquired(first) = low::enqueue(&mut a, &key, ttl(10)).await.unwrap() else {
        panic!("the key is free");
    };
    assert_eq!(
        low::wait(&mut a, &key, wait(5)).await.unwrap().token,
        first.token,
        "the same grant again"
    );
    assert_eq!(low::enqueue(&mut b, &key, ttl(10)).await.unwrap(), Enqueued::Queued);
    low::release(&mut a, &key, &first.token).await.unwrap();
    let second = low::wait(&mut b, &key, wait(5)).await.unwrap();
    assert_ne!(second.token, first.token);
    low::release(&mut b, &key, &second.token).await.unwrap();
}

async fn low_level_two_phase_timeout_gives_up_the_queue_position(peer: Peer) {
    let (mut a, mut b, mut c, key) = (peer.wire().await, peer.wire().await, peer.wire().await, peer.key("k"));
    let grant = low::acquire(&mut a, &key, TRY, ttl(10)).await.unwrap();
    assert_eq!(low::enqueue(&mut b, &key, ttl(10)).await.unwrap(), Enqueued::Queued);
    assert_eq!(kind(low::wait(&mut b, &key, wait(1)).await), Some(ErrorKind::Timeout));
    low::release(&mut a, &key, &grant.token).await.unwrap();
    low::acquire(&mut c, &key, TRY, ttl(10)).await.unwrap();
}

async fn low_level_expiry_goes_to_the_waiter(peer: Peer) {
    let (mut a, mut b, key) = (peer.wire().await, peer.wire().await, peer.key("k"));
    let lost = low::acquire(&mut a, &key, TRY, ttl(1)).await.unwrap();
    low::acquire(&mut b, &key, wait(8), ttl(10)).await.unwrap();
    assert_eq!(
        kind(low::renew(&mut a, &key, &lost.token, ttl(5)).await),
        Some(ErrorKind::NotHeld)
    );
}

async fn low_level_semaphore(peer: Peer) {
    let (mut a, mut b, key) = (peer.wire().await, peer.wire().await, peer.key("s"));
    let two = Limit::new(2).unwrap();
    let first = low::sem_acquire(&mut a, &key, TRY, two, ttl(10)).await.unwrap();
    low::sem_acquire(&mut a, &key, TRY, two, ttl(10)).await.unwrap();
    assert_eq!(
        kind(low::sem_acquire(&mut b, &key, TRY, two, ttl(10)).await),
        Some(ErrorKind::Timeout)
    );
    assert_eq!(
        low::sem_enqueue(&mut b, &key, two, ttl(10)).await.unwrap(),
        Enqueued::Queued
    );
    low::sem_renew(&mut a, &key, &first.token, ttl(20)).await.unwrap();
    low::sem_release(&mut a, &key, &first.token).await.unwrap();
    low::sem_wait(&mut b, &key, wait(5)).await.unwrap();
}

async fn low_level_limit_mismatch(peer: Peer) {
    let (mut wire, key) = (peer.wire().await, peer.key("s"));
    let limit = |limit| Limit::new(limit).unwrap();
    low::sem_acquire(&mut wire, &key, TRY, limit(2), ttl(10)).await.unwrap();
    let other = low::sem_acquire(&mut wire, &key, TRY, limit(3), ttl(10)).await;
    assert_eq!(kind(other), Some(ErrorKind::LimitMismatch));
}

/// A guard has the fence of its grant, whether the server's answer contains the fence in the token or in a third field.
/// Before and after each guard, the test acquires the lock without the client. Each fence must be greater than the
/// fence before it.
async fn fences_grow(peer: Peer) {
    let key = peer.key("k");
    let builder = peer.builder().fencing(Fencing::Required);
    let lock = Client::connect(peer.api, builder).await.lock(&key);
    let heard = async || {
        // A closed connection holds the lock until the server notices the end of the connection. So this acquire waits
        // for up to 5 s.
        let answer = peer.ask_alone(&format!("l\n{key}\n5 10\n")).await;
        fence_of(&answer).unwrap_or_else(|| panic!("{answer}"))
    };
    let mut last = heard().await;
    for _ in 0..3 {
        let guard = lock.acquire().await.unwrap();
        let fence = guard.require_fence().unwrap().0;
        guard.release().await.unwrap();
        let next = heard().await;
        assert!(last < fence && fence < next, "{last} {fence} {next}");
        last = next;
    }
}

// Cases of the handles.

async fn acquire_and_release(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let lock = client.lock(&key).lease_ttl(Duration::from_secs(20));
    let guard = lock.acquire().await.unwrap();
    assert_eq!((guard.key(), guard.ttl().as_secs()), (&key, 20));
    assert!(guard.is_held() && guard.state() == LeaseState::Held);
    assert!(guard.remaining() > Duration::from_secs(10) && guard.remaining() < Duration::from_secs(20));
    guard.release().await.unwrap();
    lock.try_acquire()
        .await
        .unwrap()
        .expect("the lock is free again")
        .release()
        .await
        .unwrap();
}

async fn a_lock_that_is_held_is_busy(peer: Peer) {
    let (a, b, key) = (peer.client().await, peer.client().await, peer.key("k"));
    let guard = a.lock(&key).acquire().await.unwrap();
    assert!(b.lock(&key).try_acquire().await.unwrap().is_none());
    assert!(a.lock(&key).try_acquire().await.unwrap().is_none(), "not reentrant");
    guard.release().await.unwrap();
    assert!(b.lock(&key).try_acquire().await.unwrap().is_some());
}

async fn a_wait_does_not_end_before_its_own_time_in_milliseconds(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let guard = client.lock(&key).acquire().await.unwrap();
    let waiting = client.lock(&key).acquire_timeout(Duration::from_millis(300));
    let started = Instant::now();
    let error = waiting.acquire().await.expect_err("the lock is held");
    assert!(
        error.is_timeout() && error.to_string().contains(key.as_str()),
        "{error}"
    );
    assert!(started.elapsed() >= Duration::from_millis(300));
    guard.release().await.unwrap();
    let _again = waiting
        .acquire()
        .await
        .expect("the timed-out wait does not block the lock");
}

async fn waiters_are_served_in_order(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let lock = client.lock(&key);
    let guard = lock.acquire().await.unwrap();
    let mut waiting = Vec::new();
    let order = Arc::new(AtomicU32::new(0));
    for number in 0..8 {
        let (lock, order) = (lock.clone(), Arc::clone(&order));
        waiting.push(tokio::spawn(async move {
            let guard = lock.acquire().await.unwrap();
            let place = order.fetch_add(1, Ordering::SeqCst);
            guard.release().await.unwrap();
            (number, place)
        }));
        until_waiters(&client, &key, u64::from(number) + 1).await;
    }
    guard.release().await.unwrap();
    for waiter in waiting {
        let (number, place) = waiter.await.unwrap();
        assert_eq!(number, place);
    }
}

async fn the_next_waiter_gets_a_released_lock(peer: Peer) {
    let (a, b, key) = (peer.client().await, peer.client().await, peer.key("k"));
    let first = a.lock(&key).acquire().await.unwrap();
    let waiting = tokio::spawn(async move { b.lock(&key).acquire().await.unwrap() });
    // The waiter gets the lock, even if it has not queued before this release.
    first.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
}

async fn a_dropped_wait_leaves_no_waiter(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let lock = client.lock(&key);
    let guard = lock.acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await }
    });
    until_waiters(&client, &key, 1).await;
    waiting.abort();
    until_waiters(&client, &key, 0).await;
    guard.release().await.unwrap();
    assert!(lock.try_acquire().await.unwrap().is_some());
}

async fn a_dropped_guard_releases_its_lock(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let lock = client.lock(&key);
    let guard = lock.acquire().await.unwrap();
    // The thread drops the guard outside of any runtime.
    std::thread::spawn(move || drop(guard)).join().unwrap();
    lock.acquire().await.unwrap().release().await.unwrap();
}

async fn mutual_exclusion_under_contention(peer: Peer) {
    let key = peer.key("k");
    let inside = Arc::new(AtomicU32::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let client = peer.client().await;
        for _ in 0..5 {
            let lock = client.lock(&key).acquire_timeout(Duration::from_secs(30));
            let inside = Arc::clone(&inside);
            tasks.spawn(async move {
                for _ in 0..5 {
                    let guard = lock.acquire().await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "alone");
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    guard.release().await.unwrap();
                }
            });
        }
    }
    assert_eq!(tasks.join_all().await.len(), 20);
}

async fn a_lease_outlives_many_ttls_while_it_is_renewed(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let lock = client.lock(&key).lease_ttl(Duration::from_secs(1));
    let guard = lock.acquire().await.unwrap();
    let held_until = Instant::now() + Duration::from_millis(3500);
    let mut lost = std::pin::pin!(guard.lost());
    while Instant::now() < held_until {
        tokio::select! {
            reason = &mut lost => panic!("lost: {reason}"),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        assert!(lock.try_acquire().await.unwrap().is_none());
    }
    guard.release().await.unwrap();
}

async fn without_renewal_a_lease_is_lost_before_others_get_it(peer: Peer) {
    let (a, b, key) = (peer.client().await, peer.client().await, peer.key("k"));
    let lock = a.lock(&key).lease_ttl(Duration::from_secs(2)).renew(false);
    let guard = lock.acquire().await.unwrap();
    let lost = tokio::spawn({
        let lost = guard.lost();
        async move { (lost.await, Instant::now()) }
    });
    let granted = tokio::spawn(async move {
        let guard = b.lock(&key).acquire().await.unwrap();
        (guard, Instant::now())
    });
    let ((reason, told_at), (_other, granted_at)) = (lost.await.unwrap(), granted.await.unwrap());
    assert_eq!(reason, LostReason::Expired);
    assert!(
        told_at < granted_at,
        "the loss came {:?} after the next grant",
        told_at - granted_at
    );
    assert!(!guard.is_held() && guard.remaining().is_zero());
    assert_eq!(
        guard.lost().await,
        LostReason::Expired,
        "a loss is reported after the fact, too"
    );
    assert_eq!(kind(guard.release().await), Some(ErrorKind::LeaseLost));
}

async fn a_lock_taken_away_is_reported(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let guard = client
        .lock(&key)
        .lease_ttl(Duration::from_secs(2))
        .acquire()
        .await
        .unwrap();
    low::release(&mut peer.wire().await, &key, guard.token()).await.unwrap();
    assert_eq!(guard.lost().await, LostReason::Rejected);
    assert_eq!(guard.state(), LeaseState::Lost(LostReason::Rejected));
}

async fn a_disconnect_frees_the_locks_of_its_connection(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let mut wire = peer.wire().await;
    low::acquire(&mut wire, &key, TRY, ttl(60)).await.unwrap();
    drop(wire);
    client.lock(&key).acquire().await.unwrap().release().await.unwrap();
}

async fn a_long_ttl_outlives_the_read_timeout(peer: Peer) {
    let (client, other, key) = (peer.client().await, peer.client().await, peer.key("k"));
    let lock = client.lock(&key).lease_ttl(Duration::from_secs(120));
    let guard = lock.acquire().await.unwrap();
    // A lease that is granted to a waiter belongs to the connection of the wait. The client must also send keepalives
    // on this connection.
    let second = peer.key("waited");
    let first = other.lock(&second).acquire().await.unwrap();
    let waited = client.lock(&second).lease_ttl(Duration::from_secs(120));
    let waited = tokio::spawn(async move { waited.acquire().await.unwrap() });
    // After 300 ms, the waiter waits at the server.
    tokio::time::sleep(Duration::from_millis(300)).await;
    first.release().await.unwrap();
    let waited = waited.await.unwrap();

    tokio::time::sleep(peer.read_timeout.mul_f64(1.3)).await;
    assert!(guard.is_held() && waited.is_held());
    assert!(
        other.lock(&key).try_acquire().await.unwrap().is_none(),
        "the server still has the lease"
    );
    assert!(other.lock(&second).try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
    waited.release().await.unwrap();
}

async fn a_thousand_leases_over_one_connection(peer: Peer) {
    let client = peer.client().await;
    let mut acquiring = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let lock = client.lock(&peer.key(&format!("k{number}")));
        acquiring.spawn(async move { lock.acquire().await.unwrap() });
    }
    let guards = acquiring.join_all().await;
    assert!(guards.len() == 1000 && guards.iter().all(|guard| guard.is_held()));
    if let Some(server) = &peer.embedded {
        assert_eq!((server.stats().connections, server.stats().locks.len()), (1, 1000));
    }
    for guard in guards {
        guard.release().await.unwrap();
    }
}

async fn a_semaphore_of_two_is_shared_by_three(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("s"));
    let semaphore = client.semaphore(&key, 2);
    let first = semaphore.acquire().await.unwrap();
    let second = semaphore.acquire().await.unwrap();
    assert!(semaphore.try_acquire().await.unwrap().is_none());
    let third = tokio::spawn({
        let semaphore = semaphore.clone();
        async move { semaphore.acquire().await.unwrap() }
    });
    first.release().await.unwrap();
    let third = third.await.unwrap();
    assert_ne!(third.token().as_str(), second.token().as_str());
    second.release().await.unwrap();
    third.release().await.unwrap();
}

async fn semaphore_limit_mismatch(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("s"));
    let _permit = client.semaphore(&key, 2).acquire().await.unwrap();
    let error = client.semaphore(&key, 3).acquire().await.expect_err("another limit");
    assert_eq!(error.kind(), ErrorKind::LimitMismatch);
}

async fn locks_and_semaphores_have_names_of_their_own(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("same"));
    let _lock = client.lock(&key).acquire().await.unwrap();
    let _permit = client.semaphore(&key, 3).acquire().await.unwrap();
}

async fn stats_list_holders_and_waiters(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let lock = client.lock(&key);
    let guard = lock.acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await }
    });
    until_waiters(&client, &key, 1).await;
    let stats = client.stats().await.unwrap();
    let held = stats.locks.iter().find(|lock| lock.key == key.as_str()).unwrap();
    assert!(stats.connections >= 2 && held.waiters == 1 && held.lease_expires_in_s > 0);
    guard.release().await.unwrap();
    waiting.await.unwrap().unwrap().release().await.unwrap();
}

async fn shutdown_releases_everything(peer: Peer) {
    let (client, other) = (peer.client().await, peer.client().await);
    let mut guards = Vec::new();
    for number in 0..20 {
        guards.push(client.lock(&peer.key(&format!("k{number}"))).acquire().await.unwrap());
    }
    let report = client.shutdown(Duration::from_secs(10)).await;
    assert_eq!((report.released, report.unreleased), (20, vec![]));
    for guard in &guards {
        assert_eq!(guard.lost().await, LostReason::Shutdown);
        assert!(other.lock(guard.key()).try_acquire().await.unwrap().is_some());
    }
    let late = client.lock(&peer.key("late")).acquire().await;
    assert_eq!(kind(late), Some(ErrorKind::Shutdown));
}
