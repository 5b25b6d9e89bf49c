//! Servers that have reached their `--max-connections`. A full server closes a further connection without an answer.

use std::time::Duration;

use dflockd_client::server::Server;
use dflockd_client::{Enqueued, ErrorKind, ReconnectPolicy};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{SOON, Scene, pass_through};
use crate::support::until;

#[tokio::test]
async fn waits_share_the_connections_that_a_full_server_takes() {
    for connections in [2, 3, 4] {
        let scene = Scene::of(Server::builder().max_connections(connections)).await;
        let client = scene.builder().connect().await.unwrap();
        let mut held = Vec::new();
        for number in 0..12 {
            held.push(
                scene
                    .holder
                    .lock(format!("k{number}"))
                    .unwrap()
                    .acquire()
                    .await
                    .unwrap(),
            );
        }
        let mut waiting = JoinSet::new();
        for number in 0..12 {
            waiting.spawn(pass_through(client.lock(format!("k{number}")).unwrap()));
        }
        scene.until_waiting("server", connections - 2).await;
        scene.until_waiting("local", 12 - (connections - 2)).await;
        until("the server has refused a connection", || {
            scene
                .recorded
                .value("wait_connections_exhausted_total", &[("reason", "server_full")])
                >= 1.0
        })
        .await;
        held.clear();
        timeout(SOON, waiting.join_all()).await.unwrap();
        scene.until_free().await;
        assert_eq!(scene.server.stats().connections, connections as u64);
    }
}

#[tokio::test]
async fn a_wait_that_times_out_without_a_connection_says_that_the_server_is_full() {
    let scene = Scene::of(Server::builder().max_connections(2)).await;
    let client = scene
        .builder()
        .request_timeout(Duration::from_millis(300))
        .connect()
        .await
        .unwrap();
    let held = scene.holder.lock("k").unwrap().acquire().await.unwrap();
    let lock = client.lock("k").unwrap();
    let gave_up = lock.clone().acquire_timeout(Duration::from_millis(500));
    let error = gave_up.acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(
        error.to_string().contains("the server takes no more connections"),
        "{error}"
    );
    // A ticket for a held key needs an exclusive connection.
    let error = lock.enqueue().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(
        error.to_string().contains("the server takes no more connections"),
        "{error}"
    );
    assert!(error.is_retryable());
    held.release().await.unwrap();
    // The enqueue of a free key needs no exclusive connection.
    let mut attempts = 0;
    while !matches!(lock.enqueue().await, Ok(Enqueued::Acquired(_))) {
        attempts += 1;
        assert!(attempts < 30, "the free key is acquired soon");
    }
}

/// The client pauses between attempts to connect to a full server. When the server has room again, the client connects.
#[tokio::test]
async fn a_full_server_is_tried_again_with_pauses_and_used_when_it_has_room() {
    let scene = Scene::of(Server::builder().max_connections(3)).await;
    let client = scene.builder().reconnect(ReconnectPolicy::exponential(
        Duration::from_millis(50),
        Duration::from_millis(200),
    ));
    let client = client.connect().await.unwrap();
    let bystander = dflockd_client::Client::builder().servers([super::address(&scene.server)]);
    let bystander = bystander.connect().await.unwrap();
    let held = scene.holder.lock("k").unwrap().acquire().await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..20 {
        waiting.spawn(pass_through(client.lock("k").unwrap()));
    }
    let failed = || {
        scene
            .recorded
            .value("connects_total", &[("kind", "exclusive"), ("outcome", "connect")])
    };
    until("several attempts were refused", || failed() >= 18.0).await;
    let before = (failed(), tokio::time::Instant::now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let more = (failed() - before.0) / before.1.elapsed().as_secs_f64();
    assert!(more <= 10.0, "{more} attempts a second");
    drop(bystander);
    until("the wait has a connection", || scene.waiters() == 1).await;
    held.release().await.unwrap();
    timeout(SOON, waiting.join_all()).await.unwrap();
}
