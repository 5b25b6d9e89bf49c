//! `MultiLock`: it acquires several locks in the order of their keys, and it acquires either all locks or none. The
//! locks are released together. When one lock is lost, the guard of all locks counts as lost.

use std::time::Duration;

use crate::support::until;
use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Client, ErrorKind, LostReason};

async fn scene() -> (Server, Client) {
    let server = Server::builder().port(0).record_events(true).start().await.unwrap();
    let servers = [server.local_addr().to_string()];
    let client = Client::builder().servers(servers).connect().await.unwrap();
    (server, client)
}

fn held(server: &Server) -> Vec<String> {
    let mut keys: Vec<String> = server.stats().locks.into_iter().map(|lock| lock.key).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn keys_are_locked_once_each_in_order_and_all_released() {
    let (server, client) = scene().await;
    let locks = client.lock_all(["c", "a", "b", "a"]).unwrap();
    assert_eq!(
        locks.keys().map(|key| key.as_str()).collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
    let guard = locks.acquire().await.unwrap();
    let granted: Vec<String> = server
        .events()
        .iter()
        .filter(|event| event.kind == EventKind::Granted)
        .map(|event| event.key.to_string())
        .collect();
    assert_eq!(granted, ["a", "b", "c"]);
    assert!(guard.is_held() && !guard.remaining().is_zero() && guard.guards().len() == 3);
    assert_eq!(guard.run(async { 7 }).await.unwrap(), 7);
    guard.release().await.unwrap();
    assert!(held(&server).is_empty());
    let guard = locks.acquire().await.unwrap();
    drop(guard);
    until("the dropped guard has released all", || held(&server).is_empty()).await;
}

#[tokio::test]
async fn an_acquire_takes_all_keys_or_none_within_one_deadline() {
    let (server, client) = scene().await;
    let b = client.lock("b").unwrap().acquire().await.unwrap();
    let locks = client.lock_all(["a", "b", "c"]).unwrap();
    assert!(locks.try_acquire().await.unwrap().is_none());
    until("the keys of the try are released", || held(&server) == ["b"]).await;
    let patient = locks.clone().acquire_timeout(Duration::from_millis(150));
    let error = patient.acquire().await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("\"b\""), "{error}");
    until("the keys of the acquire are released", || held(&server) == ["b"]).await;
    b.release().await.unwrap();
    locks
        .try_acquire()
        .await
        .unwrap()
        .expect("all keys are free")
        .release()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dropped_acquire_releases_the_keys_that_it_has() {
    let (server, client) = scene().await;
    let _b = client.lock("b").unwrap().acquire().await.unwrap();
    let locks = client.lock_all(["a", "b"]).unwrap();
    let acquiring = tokio::spawn(async move { locks.acquire().await.map(drop) });
    until("the acquire holds one key and waits for the other", || {
        held(&server) == ["a", "b"] && server.stats().locks.iter().any(|lock| lock.waiters == 1)
    })
    .await;
    acquiring.abort();
    until("both keys are free of it", || {
        held(&server) == ["b"] && server.stats().locks[0].waiters == 0
    })
    .await;
}

#[tokio::test]
async fn the_guard_is_lost_as_soon_as_one_key_is() {
    let (server, client) = scene().await;
    let locks = client.lock_all(["a", "b"]).unwrap().lease_ttl(Duration::from_secs(1));
    let guard = locks.acquire().await.unwrap();
    // Another connection releases the lock `b` by its token. The next renewal detects the loss.
    let victim = &guard.guards()[1];
    let stream = tokio::net::TcpStream::connect(server.local_addr()).await.unwrap();
    let mut wire = dflockd_client::protocol::functions::Wire::new(stream);
    dflockd_client::protocol::functions::release(&mut wire, victim.key(), victim.token())
        .await
        .unwrap();
    let error = guard.run(std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    assert!(error.to_string().contains('b'), "{error}");
    let (key, reason) = guard.lost().await;
    assert_eq!((key.as_str(), reason), ("b", LostReason::Rejected));
    assert!(!guard.is_held() && guard.remaining().is_zero());
    let error = guard.release().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    until("the other key is released", || held(&server).is_empty()).await;
}

#[tokio::test]
async fn acquires_of_several_locks_never_deadlock() {
    let (server, client) = scene().await;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..20 {
        let keys = if number % 2 == 0 {
            ["x", "y", "z"]
        } else {
            ["z", "y", "x"]
        };
        let locks = client.lock_all(keys).unwrap().acquire_timeout(Duration::from_secs(60));
        running.spawn(async move {
            for _ in 0..5 {
                locks.acquire().await.unwrap().release().await.unwrap();
            }
        });
    }
    running.join_all().await;
    assert!(held(&server).is_empty());
}

#[tokio::test]
async fn errors_name_invalid_keys() {
    let (_server, client) = scene().await;
    let none: [&str; 0] = [];
    let error = client.lock_all(none).unwrap_err();
    assert!(
        error.kind() == ErrorKind::InvalidInput && error.to_string().contains("at least one"),
        "{error}"
    );
    let error = client.lock_all(["good", "not good"]).unwrap_err();
    assert!(error.to_string().contains("\"not good\""), "{error}");
}

/// A `MultiLock` has the methods of a `Lock`. The compiler checks the methods that the test calls, and a search of the
/// sources finds missing methods.
#[tokio::test]
async fn a_multi_lock_has_the_methods_of_a_lock() {
    use dflockd_client::{Error, Lock, MultiLock, RenewPolicy};

    macro_rules! set_up {
        ($handle:expr) => {
            $handle
                .acquire_timeout(Duration::from_secs(5))
                .lease_ttl(Duration::from_secs(7))
                .renew_policy(RenewPolicy::off())
                .renew(true)
                .renew_ratio(0.3)
                .max_hold(Duration::from_secs(60))
        };
    }
    macro_rules! ask {
        ($guard:expr) => {{
            let guard = &$guard;
            assert!(guard.is_held() && !guard.was_contended() && !guard.remaining().is_zero());
            assert_eq!(guard.state(), dflockd_client::LeaseState::Held);
            assert_eq!(guard.ttl().as_secs(), 7);
            assert!(!guard.cancellation_token().is_cancelled());
            assert_eq!(guard.run(async { 7 }).await.unwrap(), 7);
        }};
    }
    let (server, client) = scene().await;
    let one: Lock = set_up!(client.lock("one").unwrap());
    let several: MultiLock = set_up!(client.lock_all(["a", "b"]).unwrap());
    let soon = std::time::Instant::now() + Duration::from_secs(5);
    let (guard, all) = (one.acquire().await.unwrap(), several.acquire().await.unwrap());
    ask!(guard);
    ask!(all);
    assert!(one.try_acquire().await.unwrap().is_none() && several.try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
    all.release().await.unwrap();
    drop((
        one.acquire_until(soon).await.unwrap(),
        several.acquire_until(soon).await.unwrap(),
    ));
    let ttl = one.with_lock(async |guard| Ok::<_, Error>(guard.ttl())).await.unwrap();
    let same = several.with_locks(async |all| Ok::<_, Error>(all.ttl())).await.unwrap();
    assert_eq!(ttl, same);
    let refused = [one.reclaim().await.err(), several.reclaim().await.err()];
    assert!(
        refused
            .iter()
            .flatten()
            .all(|error| error.kind() == ErrorKind::InvalidInput)
    );
    until("all keys are released", || held(&server).is_empty()).await;

    let methods = |source: &str| -> Vec<String> {
        let functions = source
            .split("pub fn ")
            .chain(source.split("pub async fn ").skip(1))
            .skip(1);
        let names = functions.filter_map(|text| text.split(['(', '<']).next().map(str::to_owned));
        names.collect()
    };
    let of = |source: &'static str, kind: &str| {
        let (_, rest) = source.split_once(&format!("\nimpl{kind} {{")).unwrap();
        let (body, _) = rest.split_once("\n}").unwrap();
        methods(body)
    };
    let (lock, multi) = (
        include_str!("../../src/handle/lock.rs"),
        include_str!("../../src/handle/multi_lock.rs"),
    );
    let (lease, guards) = (
        include_str!("../../src/service/held.rs"),
        include_str!("../../src/handle/multi_guard.rs"),
    );
    // `MultiLock` and `MultiGuard` do not have these methods.
    let others = ["key", "enqueue", "with_lock", "kind", "token", "fence", "require_fence"];
    let (multi, guards) = (of(multi, " MultiLock"), of(guards, "<G: Guard> MultiGuard<G>"));
    let threads = (
        of(include_str!("../../src/blocking/lock.rs"), " Lock"),
        of(include_str!("../../src/blocking/multi_lock.rs"), " MultiLock"),
    );
    for (one, several) in [(of(lock, " Lock"), multi), (of(lease, " Lease"), guards), threads] {
        assert!(one.len() > 10, "{one:?}");
        let missing: Vec<_> = one
            .iter()
            .filter(|name| !several.contains(name) && !others.contains(&name.as_str()))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

#[tokio::test]
async fn work_under_several_locks_is_stopped_when_one_is_lost() {
    let (server, client) = scene().await;
    let locks = client.lock_all(["a", "b"]).unwrap().lease_ttl(Duration::from_secs(1));
    let work = locks.with_locks(async |all| {
        let (cancelled, victim) = (all.cancellation_token(), &all.guards()[1]);
        // Each call returns a new token. A caller that cancels its token does not cancel the other tokens.
        all.cancellation_token().cancel();
        assert!(!cancelled.is_cancelled());
        let stream = tokio::net::TcpStream::connect(server.local_addr()).await.unwrap();
        let mut wire = dflockd_client::protocol::functions::Wire::new(stream);
        dflockd_client::protocol::functions::release(&mut wire, victim.key(), victim.token())
            .await
            .unwrap();
        cancelled.cancelled().await;
        assert!(!all.is_held() && all.guards()[0].is_held());
        std::future::pending::<Result<(), dflockd_client::Error>>().await
    });
    let error = work.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    assert!(error.to_string().contains("\"b\""), "{error}");
    until("the other key is released", || held(&server).is_empty()).await;
    // `with_locks` returns the error of the work.
    let own = || dflockd_client::Key::new("").unwrap_err();
    let error = locks.with_locks(async |_| Err::<(), _>(own())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    until("both keys are released", || held(&server).is_empty()).await;
}

#[tokio::test]
async fn a_multi_guard_is_taken_apart_into_its_guards() {
    let (server, client) = scene().await;
    let all = client.lock_all(["a", "b"]).unwrap().acquire().await.unwrap();
    let mut guards = all.into_guards();
    guards.pop().unwrap().release().await.unwrap();
    assert_eq!(held(&server), ["a"]);
    assert!(guards[0].is_held());
}
