//! Acquires of several slots of one semaphore. An acquire gets all its slots or none, acquires do not deadlock, and a
//! dropped acquire leaves no slot and no queue position.

use std::time::Duration;

use crate::support::until;
use dflockd_client::protocol::functions::{self as low, Wire};
use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Budget, Client, Error, ErrorKind, Key, Limit, LostReason, Target, blocking};
use tokio::net::TcpStream;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(150);

async fn client_of(server: &Server) -> Client {
    let servers = [server.local_addr().to_string()];
    let builder = Client::builder().servers(servers).acquire_timeout(LONG);
    builder.connect().await.unwrap()
}

async fn scene() -> (Server, Client) {
    let server = Server::builder().port(0).record_events(true).start().await.unwrap();
    let client = client_of(&server).await;
    (server, client)
}

/// Returns the numbers of held slots of `k`, of requests that wait for a slot, and of turns that are taken. A turn is a
/// lock: an acquire of several slots holds it while it collects its slots.
fn seen(server: &Server) -> (usize, usize, usize) {
    let stats = server.stats();
    let key = stats.semaphores.iter().find(|semaphore| semaphore.key == "k");
    let (holders, waiters) = key.map_or((0, 0), |key| (key.holders as usize, key.waiters as usize));
    (holders, waiters, stats.locks.len())
}

async fn all_is_free(server: &Server) {
    until("nothing is left", || seen(server) == (0, 0, 0)).await;
}

/// Releases the latest grant over another connection by its token. `target` says whether this is the grant of a turn,
/// which is a lock, or of a slot.
async fn take_away(server: &Server, target: Target) {
    let of_it = |key: &str| (target == Target::Lock) == key.starts_with("dflockd-client-many/");
    let events = server.events();
    let granted = events
        .iter()
        .rfind(|event| event.kind == EventKind::Granted && of_it(event.key.as_str()))
        .unwrap();
    let mut wire = Wire::new(TcpStream::connect(server.local_addr()).await.unwrap());
    let (key, token) = (Key::new(granted.key.as_str()).unwrap(), granted.token.as_ref().unwrap());
    match target {
        Target::Lock => low::release(&mut wire, &key, token).await.unwrap(),
        Target::Semaphore(_) => low::sem_release(&mut wire, &key, token).await.unwrap(),
    }
}

#[tokio::test]
async fn one_guard_holds_all_slots_and_releases_them_together() {
    let (server, client) = scene().await;
    let slots = client.semaphore("k", 40).unwrap();
    let permits = slots.acquire_many(40).await.unwrap();
    assert!(permits.is_held() && permits.guards().len() == 40);
    assert!(permits.keys().all(|key| key.as_str() == "k"));
    assert_eq!(seen(&server).0, 40);
    until("the turn is over", || seen(&server) == (40, 0, 0)).await;
    assert!(slots.try_acquire().await.unwrap().is_none());
    permits.release().await.unwrap();
    all_is_free(&server).await;
    drop(
        slots
            .acquire_many_until(7, std::time::Instant::now() + LONG)
            .await
            .unwrap(),
    );
    all_is_free(&server).await;
    let held = slots.with_permits(3, async |permits| Ok::<_, Error>(permits.guards().len()));
    assert_eq!(held.await.unwrap(), 3);
    all_is_free(&server).await;
    // An acquire of one slot needs no turn.
    let before = server.events().len();
    slots.acquire_many(1).await.unwrap().release().await.unwrap();
    assert!(server.events()[before..].iter().all(|event| event.key.as_str() == "k"));
}

#[tokio::test]
async fn impossible_numbers_are_refused_before_anything_is_sent() {
    let (server, client) = scene().await;
    let slots = client.semaphore("k", 3).unwrap();
    let threads = blocking::Client::from(client).semaphore("k", 3).unwrap();
    for wrong in [0, 4, u32::MAX] {
        let soon = std::time::Instant::now() + LONG;
        let errors = [
            slots.acquire_many(wrong).await.err(),
            slots.acquire_many_until(wrong, soon).await.err(),
            slots.try_acquire_many(wrong).await.err(),
            slots.with_permits(wrong, async |_| Ok::<_, Error>(())).await.err(),
            blocking::allow_in_runtime(|| threads.acquire_many(wrong)).err(),
        ];
        for error in errors {
            let error = error.unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let said = format!("number of slots {wrong} is not acceptable: give 1 to 3, ");
            assert!(error.to_string().starts_with(&said), "{error}");
        }
    }
    let passed = slots
        .acquire_many_until(2, std::time::Instant::now())
        .await
        .unwrap_err();
    assert_eq!(passed.budget(), Some(Budget::Unanswered(Duration::ZERO)));
    assert!(passed.to_string().starts_with("\"k\" was not requested"), "{passed}");
    let invalid = slots
        .clone()
        .lease_ttl(Duration::ZERO)
        .acquire_many(2)
        .await
        .unwrap_err();
    assert!(invalid.to_string().contains("lease TTL 0ns"), "{invalid}");
    let stats = server.stats();
    assert!(stats.semaphores.is_empty() && stats.idle_semaphores.is_empty() && stats.idle_locks.is_empty());
}

#[tokio::test]
async fn an_acquire_takes_no_slot_if_too_few_are_free() {
    let (server, client) = scene().await;
    let slots = client.semaphore("k", 5).unwrap();
    let held = slots.acquire_many(3).await.unwrap();
    until("the turn is over", || seen(&server) == (3, 0, 0)).await;
    assert!(slots.try_acquire_many(3).await.unwrap().is_none());
    until("the slots of the try are released", || seen(&server) == (3, 0, 0)).await;
    let impatient = slots.clone().acquire_timeout(Duration::ZERO);
    let error = impatient.acquire_many(3).await.unwrap_err();
    assert_eq!(error.budget(), Some(Budget::Wait(Duration::ZERO)));
    assert!(
        error.to_string().contains("fewer than 3 slots of \"k\" are free"),
        "{error}"
    );
    let error = slots.clone().acquire_timeout(SHORT).acquire_many(3).await.unwrap_err();
    assert!(error.is_timeout() && error.is_retryable(), "{error}");
    until("the slots of the acquire are released", || seen(&server) == (3, 0, 0)).await;
    let two = slots.try_acquire_many(2).await.unwrap().unwrap();
    assert_eq!(seen(&server).0, 5);
    held.release().await.unwrap();
    two.release().await.unwrap();
    all_is_free(&server).await;
}

/// Without turns, two acquires of all slots could deadlock: each could hold half of the slots and wait for the other
/// half. So acquires of several slots take turns, also across clients. Acquires of single slots take no turn.
#[tokio::test]
async fn acquires_of_several_slots_never_deadlock() {
    let (server, client) = scene().await;
    let other = client_of(&server).await;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..12 {
        let client = if number % 2 == 0 { client.clone() } else { other.clone() };
        let wanted = [20, 11, 1, 20][number % 4];
        running.spawn(async move {
            let slots = client.semaphore("k", 20).unwrap();
            for _ in 0..4 {
                let permits = slots.acquire_many(wanted).await.unwrap();
                assert!(permits.is_held());
                permits.release().await.unwrap();
            }
        });
    }
    running.join_all().await;
    all_is_free(&server).await;
}

/// The acquire needs 40 slots and has at most 16 requests for slots under way at the same time. The other client
/// releases its slots one by one.
#[tokio::test]
async fn an_acquire_collects_slots_one_by_one() {
    let (server, client) = scene().await;
    let other = client_of(&server).await.semaphore("k", 40).unwrap();
    let held = other.acquire_many(30).await.unwrap().into_guards();
    let slots = client.semaphore("k", 40).unwrap();
    let collecting = tokio::spawn(async move { slots.acquire_many(40).await });
    until("the acquire holds the free slots and waits", || {
        seen(&server).0 == 40 && seen(&server).1 > 0
    })
    .await;
    for permit in held {
        assert!(!collecting.is_finished());
        permit.release().await.unwrap();
    }
    collecting.await.unwrap().unwrap().release().await.unwrap();
    all_is_free(&server).await;
}

#[tokio::test]
async fn acquires_of_several_slots_are_served_in_order() {
    let (server, client) = scene().await;
    let slots = client.semaphore("k", 4).unwrap();
    let held = slots.acquire_many(4).await.unwrap();
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut running = tokio::task::JoinSet::new();
    for (number, wanted) in [4, 2, 3].into_iter().enumerate() {
        let (client, order) = (client_of(&server).await, std::sync::Arc::clone(&order));
        running.spawn(async move {
            let permits = client.semaphore("k", 4).unwrap().acquire_many(wanted).await.unwrap();
            order.lock().unwrap().push(number);
            permits.release().await.unwrap();
        });
        let waiting = move |server: &Server| {
            let locks = server.stats().locks;
            locks.first().is_some_and(|turn| turn.waiters as usize == number)
        };
        until("the caller waits for its turn", || waiting(&server)).await;
    }
    // A caller that does not get the turn in time gets an error about the turn. Its client has not requested any slot.
    assert!(slots.try_acquire_many(2).await.unwrap().is_none());
    for (timeout, said) in [
        (
            Duration::ZERO,
            "another caller takes several slots of \"k\", and there was no time",
        ),
        (
            SHORT,
            "2 slots of \"k\" were not granted within 150ms: the turn of callers",
        ),
    ] {
        let error = slots
            .clone()
            .acquire_timeout(timeout)
            .acquire_many(2)
            .await
            .unwrap_err();
        assert!(error.is_timeout() && error.to_string().starts_with(said), "{error}");
    }
    held.release().await.unwrap();
    running.join_all().await;
    assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    all_is_free(&server).await;
}

/// The test drops an acquire that has 0, 1, 2, 3 or 4 of its 5 slots, and an acquire that waits for its turn.
#[tokio::test]
async fn an_acquire_dropped_at_any_stage_leaves_nothing() {
    let (server, client) = scene().await;
    let other = client_of(&server).await.semaphore("k", 5).unwrap();
    for taken in 0..5 {
        let held = other.acquire_many(5 - taken).await.unwrap();
        until("the turn of the others is over", || seen(&server).2 == 0).await;
        let slots = client.semaphore("k", 5).unwrap();
        let collecting = tokio::spawn(async move { slots.acquire_many(5).await });
        until("the acquire holds the free slots and waits", || {
            let (holders, waiters, turns) = seen(&server);
            holders == 5 && waiters > 0 && turns == 1
        })
        .await;
        let slots = client.semaphore("k", 5).unwrap();
        let next = tokio::spawn(async move { slots.acquire_many(5).await });
        until("the second acquire waits for its turn", || {
            server.stats().locks[0].waiters == 1
        })
        .await;
        next.abort();
        collecting.abort();
        held.release().await.unwrap();
        all_is_free(&server).await;
    }
    // Drops an acquire in each round, one poll later than in the round before, until an acquire completes.
    let mut dropped = 0;
    loop {
        let slots = client.semaphore("k", 5).unwrap();
        let few = async {
            for _ in 0..dropped {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = few => dropped += 1,
            permits = slots.acquire_many(5) => break drop(permits.unwrap()),
        }
    }
    assert!(dropped > 3, "{dropped}");
    all_is_free(&server).await;
    let slots = client.semaphore("k", 5).unwrap();
    slots.acquire_many(5).await.unwrap().release().await.unwrap();
}

/// The turn is a lock on the shard of the semaphore. The sharding strategy does not decide where the turn's key is.
#[tokio::test]
async fn a_turn_is_taken_on_the_shard_of_the_semaphore() {
    let (one, two) = (
        Server::builder().port(0).start().await.unwrap(),
        Server::builder().port(0).start().await.unwrap(),
    );
    // The first digit of a key is the number of its shard. For a key without a digit at its beginning, the strategy
    // returns a shard that does not exist.
    let by_digit = |key: &str, _: usize| {
        key.bytes()
            .next()
            .map_or(usize::MAX, |digit| usize::from(digit.wrapping_sub(b'0')))
    };
    let servers = [one.local_addr().to_string(), two.local_addr().to_string()];
    let builder = Client::builder()
        .servers(servers)
        .sharding_strategy(by_digit)
        .acquire_timeout(LONG);
    let client = builder.connect().await.unwrap();
    let slots = client.semaphore("1/k", 3).unwrap();
    let permits = slots.acquire_many(3).await.unwrap();
    let turns = |server: &Server| server.stats().locks.len() + server.stats().idle_locks.len();
    assert_eq!((turns(&one), turns(&two)), (0, 1));
    permits.release().await.unwrap();
    drop(one.kill().await);
    slots.acquire_many(3).await.unwrap().release().await.unwrap();
    assert_eq!(slots.try_acquire_many(2).await.unwrap().unwrap().guards().len(), 2);
}

/// The client renews the first slots until it has all slots. Then the renewal policy of the handle applies.
#[tokio::test]
async fn renewals_that_are_off_stop_once_all_slots_are_held() {
    let (server, client) = scene().await;
    let second = Duration::from_secs(1);
    let other = client_of(&server).await;
    let (slot, lock) = (other.semaphore("k", 3).unwrap(), other.lock("b").unwrap());
    let held = (slot.acquire().await.unwrap(), lock.acquire().await.unwrap());
    let slots = client.semaphore("k", 3).unwrap().lease_ttl(second).renew(false);
    let locks = client.lock_all(["a", "b"]).unwrap().lease_ttl(second).renew(false);
    let all = tokio::spawn(async move { tokio::join!(slots.acquire_many(3), locks.acquire()) });
    let renewed = |key: &str| {
        let is_of =
            |event: &&dflockd_client::server::Event| event.kind == EventKind::Renewed && event.key.as_str() == key;
        server.events().iter().filter(is_of).count()
    };
    until("the first slots outlive their TTL", || {
        renewed("k") >= 6 && renewed("a") >= 3
    })
    .await;
    held.0.release().await.unwrap();
    held.1.release().await.unwrap();
    let (slots, locks) = all.await.unwrap();
    let (slots, locks) = (slots.unwrap(), locks.unwrap());
    assert!(slots.is_held() && locks.is_held());
    assert_eq!(slots.lost().await.1, LostReason::Expired);
    assert_eq!(locks.lost().await.1, LostReason::Expired);
}

#[tokio::test]
async fn losing_a_slot_or_the_turn_meanwhile_releases_all() {
    let (server, client) = scene().await;
    let other = client_of(&server).await.semaphore("k", 3).unwrap();
    let slot = Target::Semaphore(Limit::new(3).unwrap());
    for target in [slot, Target::Lock] {
        let held = other.acquire_many(2).await.unwrap();
        until("the turn of the others is over", || seen(&server).2 == 0).await;
        let slots = client.semaphore("k", 3).unwrap().lease_ttl(Duration::from_secs(1));
        let collecting = tokio::spawn(async move { slots.acquire_many(3).await });
        until("the acquire holds the free slots and waits", || {
            seen(&server) == (3, 2, 1)
        })
        .await;
        // This releases a slot or the turn of the caller. A released slot is granted to the same caller again, because
        // it is the next waiter. But the caller has lost the lease and must report the loss.
        take_away(&server, target).await;
        let error = collecting.await.unwrap().unwrap_err();
        assert!(error.kind() == ErrorKind::LeaseLost && error.is_retryable(), "{error}");
        held.release().await.unwrap();
        all_is_free(&server).await;
    }
}

#[tokio::test]
async fn the_guard_is_lost_as_soon_as_one_slot_is() {
    let (server, client) = scene().await;
    let slots = client.semaphore("k", 3).unwrap().lease_ttl(Duration::from_secs(1));
    let permits = slots.acquire_many(3).await.unwrap();
    let cancelled = permits.cancellation_token();
    take_away(&server, Target::Semaphore(Limit::new(3).unwrap())).await;
    let error = permits.run(std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    let (key, reason) = permits.lost().await;
    assert_eq!((key.as_str(), reason), ("k", LostReason::Rejected));
    assert!(cancelled.is_cancelled() && !permits.is_held() && permits.remaining().is_zero());
    assert_eq!(permits.guards().iter().filter(|permit| permit.is_held()).count(), 2);
    assert_eq!(permits.release().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    all_is_free(&server).await;
}

#[test]
fn threads_acquire_several_slots_too() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, client) = runtime.block_on(scene());
    let slots = blocking::Client::from(client).semaphore("k", 8).unwrap();
    let permits = slots.acquire_many(5).unwrap();
    assert!(permits.is_held() && permits.guards().len() == 5);
    assert_eq!(permits.wait_lost(SHORT).unwrap(), None);
    assert!(slots.try_acquire_many(4).unwrap().is_none());
    permits.release().unwrap();
    drop(slots.try_acquire_many(8).unwrap().unwrap());
    drop(slots.acquire_many_until(8, std::time::Instant::now() + LONG).unwrap());
    let held = slots.with_permits(2, |permits| Ok::<_, Error>(permits.is_held()));
    assert!(held.unwrap());
    runtime.block_on(all_is_free(&server));
}
