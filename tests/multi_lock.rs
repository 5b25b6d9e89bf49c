//! Several locks as one: all or nothing, in one order, released together, lost together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Client, ErrorKind, LostReason};
use support::until;

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
async fn each_key_once_in_the_order_of_keys_and_all_back() {
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
    until("a dropped guard gives all back", || held(&server).is_empty()).await;
}

#[tokio::test]
async fn all_or_nothing_with_one_deadline() {
    let (server, client) = scene().await;
    let b = client.lock("b").unwrap().acquire().await.unwrap();
    let locks = client.lock_all(["a", "b", "c"]).unwrap();
    assert!(locks.try_acquire().await.unwrap().is_none());
    until("what was tried is given back", || held(&server) == ["b"]).await;
    let patient = locks.clone().acquire_timeout(Duration::from_millis(150));
    let error = patient.acquire().await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("\"b\""), "{error}");
    until("what was taken is given back", || held(&server) == ["b"]).await;
    b.release().await.unwrap();
    locks
        .try_acquire()
        .await
        .unwrap()
        .expect("all are free")
        .release()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dropped_acquire_gives_back_what_it_took() {
    let (server, client) = scene().await;
    let _b = client.lock("b").unwrap().acquire().await.unwrap();
    let locks = client.lock_all(["a", "b"]).unwrap();
    let acquiring = tokio::spawn(async move { locks.acquire().await.map(drop) });
    until("it holds one and waits for the other", || {
        held(&server) == ["a", "b"] && server.stats().locks.iter().any(|lock| lock.waiters == 1)
    })
    .await;
    acquiring.abort();
    until("nothing of it is left", || {
        held(&server) == ["b"] && server.stats().locks[0].waiters == 0
    })
    .await;
}

#[tokio::test]
async fn lost_as_soon_as_one_is_lost() {
    let (server, client) = scene().await;
    let locks = client.lock_all(["a", "b"]).unwrap().lease_ttl(Duration::from_secs(1));
    let guard = locks.acquire().await.unwrap();
    // Somebody takes one away behind its holder's back: the next renewal finds out.
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
    until("the other is given back", || held(&server).is_empty()).await;
}

#[tokio::test]
async fn those_who_take_several_never_wait_in_a_circle() {
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
async fn bad_keys_are_named() {
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
