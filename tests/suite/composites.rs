//! Cases of `enqueue` and `wait`, of several locks, of work under a lock, and of lock objects.

use std::time::{Duration, Instant};

use dflockd_client::{Error, ErrorKind, Key};

use super::api::Enqueued;
use super::peer::Peer;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(10);

pub async fn an_enqueue_takes_a_queue_position_and_a_later_wait_acquires(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let lock = client.lock(&key);
    let Enqueued::Acquired(first) = lock.enqueue().await.unwrap() else {
        panic!("the lock is free");
    };
    let Enqueued::Queued(ticket) = lock.enqueue().await.unwrap() else {
        panic!("the lock is held");
    };
    let Enqueued::Queued(late) = lock.enqueue().await.unwrap() else {
        panic!("the lock is held");
    };
    assert!(late.wait(SHORT).await.is_err_and(|error| error.is_timeout()));
    first.release().await.unwrap();
    let second = ticket.wait(LONG).await.unwrap();
    assert!(second.is_held());
    second.release().await.unwrap();
    // A server before 1.15 notices the closed connection of a waiter only when the wait ends. If the server did not
    // notice it, the lock would stay held for longer than this timeout.
    let third = lock.acquire_timeout(LONG).acquire().await;
    drop(third.expect("the abandoned ticket does not block the lock"));
}

pub async fn several_locks_are_taken_all_or_none(peer: Peer) {
    let (client, other) = (peer.client().await, peer.client().await);
    let keys: Vec<Key> = ["b", "a", "c"].into_iter().map(|name| peer.key(name)).collect();
    let all = client.lock_all(&keys).await.unwrap();
    assert!(all.is_held());
    for key in &keys {
        assert!(other.lock(key).try_acquire().await.unwrap().is_none());
    }
    all.release().await.unwrap();
    for key in &keys {
        other.lock(key).acquire().await.unwrap().release().await.unwrap();
    }
}

pub async fn work_under_a_lock_keeps_its_own_error(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let lock = client.lock(&key);
    assert_eq!(lock.with_lock(Ok(42)).await.unwrap(), 42);
    let free = async || assert!(lock.try_acquire().await.unwrap().is_some(), "the lock is free");
    free().await;
    let own: Error = Key::new("").unwrap_err();
    let error = lock.with_lock(Err::<(), _>(own)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    free().await;
}

pub async fn objects_hold_what_they_acquire(peer: Peer) {
    let (client, key) = (peer.client().await, peer.key("k"));
    let lock = client.lock(&key).acquire_timeout(SHORT);
    let (mut first, mut second) = (lock.object(), lock.object());
    assert!(first.acquire().await.unwrap() && first.is_held());
    let started = Instant::now();
    assert!(!second.acquire().await.unwrap() && !second.is_held());
    assert!(started.elapsed() >= SHORT);
    assert_eq!(second.enqueue().await.unwrap(), "queued");
    assert!(!second.wait(None).await.unwrap());
    assert!(
        second
            .wait(None)
            .await
            .is_err_and(|error| error.kind() == ErrorKind::NotEnqueued)
    );
    assert_eq!(second.enqueue().await.unwrap(), "queued");
    assert!(first.release().await.unwrap());
    assert!(!first.release().await.unwrap(), "the object held nothing");
    assert!(second.wait(Some(LONG)).await.unwrap() && second.is_held());
    second.close().await;
    assert!(!second.is_held());
    assert_eq!(first.enqueue().await.unwrap(), "acquired");
    assert!(
        first
            .acquire()
            .await
            .is_err_and(|error| error.kind() == ErrorKind::Misuse)
    );
    first.close().await;
}
