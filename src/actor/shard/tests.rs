//! Tests of the state that outlives a shard's actor: the server in use, and the time before which the shard sends no
//! request to any server.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::handle::guard::LockGuard;
use crate::lease::state::LostReason;
use crate::net::backoff::ReconnectPolicy;
use crate::net::failover::FailoverReason;
use crate::server::{EventKind, Server};
use crate::shard::input::Input;
use crate::shards::Shard;

async fn server(port: u16) -> Server {
    loop {
        match Server::builder().record_events(true).port(port).start().await {
            Ok(server) => return server,
            // Another process may have the port for a moment.
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

fn builder(servers: [&Server; 2], shape: impl FnOnce(Shard) -> Shard) -> ClientBuilder {
    let servers = servers.map(|server| server.local_addr().to_string());
    let pauses = ReconnectPolicy::exponential(Duration::from_millis(5), Duration::from_millis(50));
    Client::builder()
        .shards([shape(Shard::standby(servers))])
        .reconnect(pauses)
        .acquire_timeout(Duration::from_secs(30))
}

async fn acquire(client: &Client) -> LockGuard {
    loop {
        // Until the router has learned of the death, callers get a retryable error.
        match client.lock("k").unwrap().acquire().await {
            Ok(guard) => return guard,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Makes the actor die; holders of its leases are told.
async fn die(client: &Client, held: &LockGuard) {
    client.core().topology.shards[0].tell(Input::Die).unwrap();
    let lost = timeout(Duration::from_secs(30), held.lost()).await;
    assert_eq!(lost, Ok(LostReason::ShardGone));
}

fn first_grant(server: &Server) -> Instant {
    let events = server.events();
    let granted = events.iter().find(|event| event.kind == EventKind::Granted);
    granted.unwrap().at
}

fn place(client: &Client) -> (String, u64, Option<FailoverReason>) {
    let health = client.health().remove(0);
    (health.endpoint.to_string(), health.failovers, health.last_failover)
}

#[tokio::test]
async fn an_actor_that_dies_at_the_standby_is_replaced_there() {
    let (primary, standby) = (server(0).await, server(0).await);
    let shape = |shard: Shard| shard.takeover_delay(Duration::from_millis(200));
    let client = builder([&primary, &standby], shape).connect().await.unwrap();
    let port = primary.local_addr().port();
    primary.kill().await;
    let held = acquire(&client).await;
    let at_standby = (standby.local_addr().to_string(), 1, Some(FailoverReason::Lost));
    assert_eq!(place(&client), at_standby);
    let primary = server(port).await;
    die(&client, &held).await;
    let again = acquire(&client).await;
    assert_eq!(place(&client), at_standby);
    assert!(again.is_held());
    assert_eq!((primary.events().len(), primary.stats().connections), (0, 0));
}

#[tokio::test]
async fn an_actor_that_dies_during_a_failback_does_not_shorten_the_delay() {
    let delay = Duration::from_millis(1500);
    let (primary, standby) = (server(0).await, server(0).await);
    let client = builder([&primary, &standby], |shard| shard.takeover_delay(delay));
    let client = client.connect().await.unwrap();
    let port = primary.local_addr().port();
    primary.kill().await;
    drop(acquire(&client).await);
    let primary = server(port).await;
    let asked = Instant::now();
    assert_eq!(client.failback(0).await.unwrap(), delay);
    client.core().topology.shards[0].tell(Input::Die).unwrap();
    drop(acquire(&client).await);
    let granted = first_grant(&primary);
    assert!(granted >= asked + delay, "after {:?}", granted - asked);
}

#[tokio::test]
async fn an_actor_that_replaces_another_keeps_the_longest_ttl() {
    let (primary, standby) = (server(0).await, server(0).await);
    let builder = builder([&primary, &standby], |shard| shard).lease_ttl(Duration::from_secs(1));
    let client = builder.connect().await.unwrap();
    let long = client.lock("k").unwrap().lease_ttl(Duration::from_secs(3));
    die(&client, &long.acquire().await.unwrap()).await;
    drop(acquire(&client).await);
    let killed = Instant::now();
    primary.kill().await;
    drop(acquire(&client).await);
    let granted = first_grant(&standby);
    assert!(
        granted >= killed + Duration::from_millis(3150),
        "after {:?}",
        granted - killed
    );
}
