//! The failback: while the standby serves, a caller can request that the client goes back to the primary. The client
//! leaves the standby at once and uses the primary after the takeover delay.

use std::sync::Arc;
use std::time::Duration;

use crate::support::fake::FakeServer;
use crate::support::pair::{PRIMARY, Pair, STANDBY, of};
use crate::support::proxy::Proxy;
use crate::support::until;
use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Client, ErrorKind, FailoverReason, LeaseState, LostReason, OnUnavailable, Shard};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

const DELAY: Duration = Duration::from_millis(700);
/// A time that only a hang exceeds.
const PATIENCE: Duration = Duration::from_secs(60);

fn builder(shard: Shard) -> dflockd_client::ClientBuilder {
    of(shard.takeover_delay(DELAY)).acquire_timeout(Duration::from_secs(30))
}

fn health(client: &Client) -> (String, u64, Option<FailoverReason>) {
    let health = client.health().remove(0);
    (health.endpoint.to_string(), health.failovers, health.last_failover)
}

/// Acquires and releases a lock at the primary, kills the primary, and waits until the standby serves.
async fn at_the_standby(pair: &mut Pair, client: &Client) {
    client
        .lock("k")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    assert_eq!(health(client), (pair.addresses[PRIMARY].clone(), 0, None));
    pair.kill(PRIMARY).await;
    until("the standby serves", || {
        client.health()[0].failovers == 1 && client.health()[0].is_connected()
    })
    .await;
    let lost = Some(FailoverReason::Lost);
    assert_eq!(health(client), (pair.addresses[STANDBY].clone(), 1, lost));
}

#[tokio::test]
async fn a_failback_releases_all_leases_and_the_primary_serves_after_the_delay() {
    let mut pair = Pair::start().await;
    let client = builder(pair.shard()).connect().await.unwrap();
    at_the_standby(&mut pair, &client).await;
    let mut guards = Vec::new();
    for number in 0..10 {
        guards.push(client.lock(format!("k{number}")).unwrap().acquire().await.unwrap());
    }
    let permit = client.semaphore("s", 2).unwrap().acquire().await.unwrap();
    pair.restart(PRIMARY).await;
    let asked = Instant::now();
    assert_eq!(client.failback(0).await.unwrap(), DELAY);
    // The leases are lost at once, and not later when the primary serves.
    for guard in &guards {
        assert_eq!(guard.state(), LeaseState::Lost(LostReason::Failback));
    }
    assert_eq!(permit.lost().await, LostReason::Failback);
    assert_eq!(health(&client).0, pair.addresses[PRIMARY]);
    assert!(!client.health()[0].is_connected());
    until("all locks are released", || {
        pair.server(STANDBY).stats().locks.is_empty()
    })
    .await;
    let events = pair.server(STANDBY).events().into_iter();
    let released = events.filter(|event| event.kind == EventKind::Released).count();
    assert_eq!(released, 11, "by release commands, and not by the end of a connection");

    let guard = client.lock("k0").unwrap().acquire().await.unwrap();
    let first = pair.grants(PRIMARY)[0].at;
    assert!(first >= asked + DELAY, "after {:?}", first - asked);
    let requested = Some(FailoverReason::Requested);
    assert_eq!(health(&client), (pair.addresses[PRIMARY].clone(), 2, requested));
    assert_eq!(
        guards.remove(0).release().await.unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
    drop((guards, permit));
    assert!(guard.is_held());
    guard.release().await.unwrap();
    until("the primary has no locks", || {
        pair.server(PRIMARY).stats().locks.is_empty()
    })
    .await;
    until("the standby has no connections", || {
        pair.server(STANDBY).stats().connections == 0
    })
    .await;
    pair.judge();
}

/// The wait under way fails. New callers wait for the primary or fail, as configured.
#[tokio::test]
async fn callers_wait_or_fail_as_configured_while_no_server_serves() {
    for what in [OnUnavailable::Wait, OnUnavailable::FailFast] {
        let mut pair = Pair::start().await;
        let client = builder(pair.shard()).on_unavailable(what).connect().await.unwrap();
        at_the_standby(&mut pair, &client).await;
        let _held = client.lock("k").unwrap().acquire().await.unwrap();
        let waiting = tokio::spawn({
            let lock = client.lock("k").unwrap();
            async move { lock.acquire().await }
        });
        until("it waits", || {
            pair.server(STANDBY).stats().locks.iter().any(|lock| lock.waiters == 1)
        })
        .await;
        pair.restart(PRIMARY).await;
        client.failback(0).await.unwrap();
        let meanwhile = client.lock("l").unwrap().acquire().await;
        assert!(waiting.await.unwrap().unwrap_err().is_retryable());
        match what {
            OnUnavailable::FailFast => assert_eq!(meanwhile.unwrap_err().kind(), ErrorKind::Unavailable),
            _ => assert_eq!(pair.grants(PRIMARY)[0].token.as_ref(), Some(meanwhile.unwrap().token())),
        }
        until("it serves", || client.health()[0].is_connected()).await;
        client
            .lock("k")
            .unwrap()
            .acquire()
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    }
}

/// The standby still answers a release that the client sent before the failback.
#[tokio::test]
async fn a_release_under_way_during_a_failback_is_answered() {
    let mut pair = Pair::start().await;
    let proxy = Proxy::start(&pair.addresses[STANDBY]).await;
    let shard = Shard::standby([&pair.addresses[PRIMARY], &proxy.address]);
    let client = builder(shard).connect().await.unwrap();
    pair.kill(PRIMARY).await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    pair.restart(PRIMARY).await;
    proxy.change(|treatment| treatment.stall_down = true);
    let releasing = tokio::spawn(guard.release());
    until("the release has arrived", || {
        pair.server(STANDBY).stats().locks.is_empty()
    })
    .await;
    client.failback(0).await.unwrap();
    proxy.pass_everything();
    releasing.await.unwrap().unwrap();
}

/// The grant of the standby arrives after the failback, and no caller gets it.
#[tokio::test]
async fn a_grant_that_arrives_after_a_failback_is_discarded() {
    let mut pair = Pair::start().await;
    let proxy = Proxy::start(&pair.addresses[STANDBY]).await;
    let shard = Shard::standby([&pair.addresses[PRIMARY], &proxy.address]);
    let client = builder(shard).connect().await.unwrap();
    pair.kill(PRIMARY).await;
    until("the standby serves", || client.health()[0].failovers == 1).await;
    pair.restart(PRIMARY).await;
    proxy.change(|treatment| treatment.stall_down = true);
    let acquiring = tokio::spawn({
        let lock = client.lock("k").unwrap();
        async move { lock.acquire().await }
    });
    until("the standby has granted the key", || !pair.grants(STANDBY).is_empty()).await;
    client.failback(0).await.unwrap();
    proxy.pass_everything();
    let error = acquiring.await.unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    until("the lease has ended", || pair.server(STANDBY).stats().locks.is_empty()).await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    assert_eq!(pair.grants(PRIMARY)[0].token.as_ref(), Some(guard.token()));
    pair.judge();
}

/// The grant of the standby arrives so late that the client first renews the lease to confirm it. The answer to the
/// renewal arrives after the failback, and no caller gets the grant.
#[tokio::test]
async fn a_confirmation_that_arrives_after_a_failback_is_discarded() {
    let (asked, may_answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let told = (Arc::clone(&asked), Arc::clone(&may_answer));
    let standby = FakeServer::start(move |mut connection, _| {
        let (asked, may_answer) = told.clone();
        async move {
            while let Some([command, ..]) = connection.request().await {
                match command.as_str() {
                    "l" => {
                        // The answer takes more than half of the TTL of 2 s.
                        sleep(Duration::from_millis(1100)).await;
                        connection.say("ok 0123456789abcdef0123456789abcdef 2\n").await;
                    }
                    "n" => {
                        asked.notify_one();
                        may_answer.notified().await;
                        connection.say("ok 2\n").await;
                    }
                    _ => connection.say("ok\n").await,
                }
            }
        }
    })
    .await;
    let mut pair = Pair::start().await;
    let shard = Shard::standby([&pair.addresses[PRIMARY], &standby.address]);
    let client = builder(shard).connect().await.unwrap();
    pair.kill(PRIMARY).await;
    until("the standby serves", || client.health()[0].failovers == 1).await;
    pair.restart(PRIMARY).await;
    let acquiring = tokio::spawn({
        let lock = client.lock("k").unwrap().lease_ttl(Duration::from_secs(2));
        async move { lock.acquire().await }
    });
    timeout(PATIENCE, asked.notified())
        .await
        .expect("the client asks for a confirmation");
    client.failback(0).await.unwrap();
    may_answer.notify_one();
    let error = acquiring.await.unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    client
        .lock("k")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_failback_to_an_unreachable_primary_fails_and_loses_nothing() {
    let mut pair = Pair::start().await;
    let client = builder(pair.shard()).connect().await.unwrap();
    at_the_standby(&mut pair, &client).await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let before = health(&client);
    let error = client.failback(0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert_eq!(error.endpoint(), Some(pair.addresses[PRIMARY].as_str()));
    assert!(guard.is_held() && client.health()[0].is_connected());
    assert_eq!(health(&client), before);
    guard.release().await.unwrap();
    client
        .lock("k")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_failback_of_a_shard_without_a_standby_is_an_error() {
    let pair = Pair::start().await;
    let alone = Server::builder().port(0).start().await.unwrap();
    let shards = [pair.shard(), Shard::single(alone.local_addr().to_string())];
    let strategy = |_: &str, _: usize| 1;
    let client = Client::builder()
        .shards(shards)
        .sharding_strategy(strategy)
        .connect()
        .await
        .unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    for shard in [1, 2] {
        let error = client.failback(shard).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(&shard.to_string()), "{error}");
    }
    assert!(guard.is_held());
}

#[tokio::test]
async fn a_failback_while_the_primary_serves_does_nothing() {
    let pair = Pair::start().await;
    let client = builder(pair.shard()).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    assert_eq!(client.failback(0).await.unwrap(), Duration::ZERO);
    assert!(guard.is_held());
    assert_eq!(health(&client), (pair.addresses[PRIMARY].clone(), 0, None));
    guard.release().await.unwrap();
}

/// The second call returns the remaining takeover delay.
#[tokio::test]
async fn a_second_failback_joins_the_first() {
    let mut pair = Pair::start().await;
    let client = builder(pair.shard()).connect().await.unwrap();
    at_the_standby(&mut pair, &client).await;
    pair.restart(PRIMARY).await;
    let asked = Instant::now();
    assert_eq!(client.failback(0).await.unwrap(), DELAY);
    let left = client.failback(0).await.unwrap();
    assert!(left <= DELAY && Instant::now() + left >= asked + DELAY, "{left:?}");
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    assert!(pair.grants(PRIMARY)[0].at >= asked + DELAY);
    assert_eq!(health(&client).1, 2);
    assert_eq!(client.failback(0).await.unwrap(), Duration::ZERO);
    assert!(guard.is_held());
}
