//! Acquires with a deadline: of locks, of slots, of several locks and of lock objects, through the async and the
//! blocking client.

use std::time::Duration;

use crate::support::until;
use dflockd_client::server::Server;
use dflockd_client::{Budget, Client, DistributedLock, Error, ErrorKind, blocking};
use tokio::time::Instant;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(30);

async fn scene() -> (Server, Client) {
    let server = Server::builder().port(0).start().await.unwrap();
    let servers = [server.local_addr().to_string()];
    let client = Client::builder()
        .servers(servers)
        .acquire_timeout(LONG)
        .connect()
        .await
        .unwrap();
    (server, client)
}

fn known(server: &Server) -> usize {
    let stats = server.stats();
    stats.locks.len() + stats.idle_locks.len() + stats.semaphores.len() + stats.idle_semaphores.len()
}

fn too_late<T>(acquired: Result<T, Error>) {
    let error = acquired.err().unwrap();
    let said = (error.kind(), error.budget());
    assert_eq!(said, (ErrorKind::Unavailable, Some(Budget::Unanswered(Duration::ZERO))));
    assert!(error.to_string().contains("the deadline had passed already"), "{error}");
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_an_error_and_nothing_is_sent() {
    let (server, client) = scene().await;
    let now = Instant::now();
    let lock = client.lock("k").unwrap();
    too_late(lock.acquire_until(now).await);
    too_late(lock.acquire_until(now.into_std()).await);
    too_late(client.semaphore("s", 2).unwrap().acquire_until(now).await);
    too_late(client.lock_all(["a", "b"]).unwrap().acquire_until(now).await);
    too_late(DistributedLock::from(lock.clone()).acquire_until(now).await);
    let threads = blocking::Client::from(client);
    blocking::allow_in_runtime(|| {
        let lock = threads.lock("k").unwrap();
        too_late(lock.acquire_until(now));
        too_late(threads.semaphore("s", 2).unwrap().acquire_until(now));
        too_late(threads.lock_all(["a", "b"]).unwrap().acquire_until(now));
        too_late(blocking::DistributedLock::from(lock).acquire_until(now));
    });
    assert_eq!(known(&server), 0, "nothing was sent");
    // The acquire reports the invalid setting, and not that its deadline has passed.
    let invalid = lock.lease_ttl(Duration::ZERO).acquire_until(now).await.unwrap_err();
    assert_eq!(invalid.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn an_acquire_waits_for_a_held_key_until_its_deadline() {
    let (server, client) = scene().await;
    let held = client.lock_all(["a", "k"]).unwrap().acquire().await.unwrap();
    let slot = client.semaphore("s", 1).unwrap().acquire().await.unwrap();
    let began = Instant::now();
    let deadline = began + SHORT;
    let lock = client.lock("k").unwrap();
    let slots = client.semaphore("s", 1).unwrap();
    let both = client.lock_all(["b", "k"]).unwrap();
    let mut object = DistributedLock::from(lock.clone());
    let waits = tokio::join!(
        lock.acquire_until(deadline),
        slots.acquire_until(deadline.into_std()),
        both.acquire_until(deadline),
        object.acquire_until(deadline),
    );
    let errors = [waits.0.err(), waits.1.err(), waits.2.err()];
    for error in errors.into_iter().flatten() {
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(
            matches!(error.budget(), Some(Budget::Wait(wait)) if wait <= SHORT),
            "{error:?}"
        );
    }
    assert!(!waits.3.unwrap(), "an object returns whether it holds the key");
    assert!(began.elapsed() >= SHORT);
    until("the first of several keys is released", || {
        server.stats().locks.iter().all(|lock| lock.key != "b")
    })
    .await;
    // With a later deadline, the acquire gets the key when its holder releases it.
    let waiting = tokio::spawn(async move { lock.acquire_until(began + LONG).await });
    until("it waits", || server.stats().locks.iter().any(|lock| lock.waiters == 1)).await;
    held.release().await.unwrap();
    slot.release().await.unwrap();
    assert!(waiting.await.unwrap().unwrap().is_held());
    assert!(object.acquire_until(began + LONG).await.unwrap());
    assert!(both.acquire_until(began + SHORT).await.is_err());
}
