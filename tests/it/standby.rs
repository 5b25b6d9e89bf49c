//! A standby server: when it takes over, and which leases are lost then.

use std::time::Duration;

use crate::support::pair::{PRIMARY, Pair, STANDBY, of};
use crate::support::proxy::Proxy;
use crate::support::until;
use dflockd_client::server::Server;
use dflockd_client::{
    Client, ErrorKind, FailoverReason, LeaseState, LockGuard, LostReason, OnUnavailable, ReconnectPolicy, Result,
    Shard, ShardHealth,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// A time that only a hang exceeds.
const PATIENCE: Duration = Duration::from_secs(60);
/// A time that no test reaches.
const NEVER: Duration = Duration::from_secs(3600);

fn health(client: &Client) -> (String, u64, Option<FailoverReason>) {
    let ShardHealth {
        endpoint,
        failovers,
        last_failover,
        ..
    } = client.health().remove(0);
    (endpoint.to_string(), failovers, last_failover)
}

/// Waits until the lease is lost and returns the reason.
async fn why_lost(guard: &LockGuard) -> LostReason {
    timeout(PATIENCE, guard.lost()).await.expect("the lease is lost")
}

async fn away(client: &Client) {
    until("the loss is noticed", || !client.health()[0].is_connected()).await;
}

/// The default takeover delay is 1.05 times the longest TTL that the client has used. Here one lock has a TTL of 3 s,
/// and the client's default is 1 s. During the delay, callers wait or fail, as configured.
#[tokio::test]
async fn the_standby_is_not_used_before_the_longest_possible_lease_has_ended() {
    let mut pair = Pair::start().await;
    let builder = pair.builder().lease_ttl(Duration::from_secs(1));
    let patient = builder.clone().connect().await.unwrap();
    let hasty = builder.on_unavailable(OnUnavailable::FailFast).connect().await.unwrap();
    for client in [&patient, &hasty] {
        let long = client.lock("long").unwrap().lease_ttl(Duration::from_secs(3));
        // This lease has ended, but other clients may hold leases with the same TTL.
        long.acquire().await.unwrap().release().await.unwrap();
    }
    let killed = pair.kill(PRIMARY).await;
    away(&hasty).await;
    away(&patient).await;
    let error = hasty.lock("k").unwrap().acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.endpoint(), Some(pair.addresses[PRIMARY].as_str()));
    let impatient = patient.lock("k").unwrap().acquire_timeout(Duration::from_millis(100));
    let error = impatient.acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let lock = patient.lock("k").unwrap().acquire_timeout(Duration::from_secs(30));
    let guard = lock.acquire().await.unwrap();
    let first = pair.grants(STANDBY)[0].at;
    assert!(
        first >= killed + Duration::from_millis(3150),
        "after {:?}",
        first - killed
    );
    let at_standby = (pair.addresses[STANDBY].clone(), 1, Some(FailoverReason::Lost));
    assert_eq!(health(&patient), at_standby);
    guard.release().await.unwrap();
    until("the other client has failed over, too", || health(&hasty) == at_standby).await;
    hasty
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
async fn a_configured_delay_applies_whatever_was_granted() {
    let mut pair = Pair::start().await;
    let delay = Duration::from_millis(1500);
    let builder = of(pair.shard().takeover_delay(delay)).lease_ttl(Duration::from_secs(600));
    let client = builder
        .acquire_timeout(Duration::from_secs(30))
        .connect()
        .await
        .unwrap();
    let lock = client.lock("k").unwrap();
    lock.acquire().await.unwrap().release().await.unwrap();
    let killed = pair.kill(PRIMARY).await;
    let guard = lock.acquire().await.unwrap();
    let first = pair.grants(STANDBY)[0].at;
    assert!(first >= killed + delay, "after {:?}", first - killed);
    assert!(guard.is_held());
}

/// Between two attempts to connect, the client pauses for longer than any test lasts.
fn seldom() -> ReconnectPolicy {
    ReconnectPolicy::exponential(NEVER, NEVER)
}

/// At the end of the takeover delay, the client is in a long pause between two attempts. It does not wait for the end
/// of the pause.
#[tokio::test]
async fn the_standby_is_asked_when_the_delay_is_over_whatever_the_pauses() {
    let mut pair = Pair::start().await;
    let delay = Duration::from_millis(1500);
    let builder = of(pair.shard().takeover_delay(delay)).reconnect(seldom());
    let client = builder.acquire_timeout(PATIENCE).connect().await.unwrap();
    let killed = pair.kill(PRIMARY).await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let first = pair.grants(STANDBY)[0].at;
    assert!(first >= killed + delay, "after {:?}", first - killed);
    assert!(guard.is_held());
}

/// If a client has never reached the primary, it does not wait for the end of a long reconnect pause either. It tries
/// the standby when the takeover delay is over.
#[tokio::test]
async fn a_client_that_starts_without_the_primary_uses_the_standby_after_the_delay() {
    let mut pair = Pair::start().await;
    pair.kill(PRIMARY).await;
    let shard = pair.shard().takeover_delay(Duration::from_millis(500));
    let client = of(shard).reconnect(seldom()).acquire_timeout(PATIENCE).build().unwrap();
    assert!(client.lock("k").unwrap().acquire().await.unwrap().is_held());
}

/// At the end of the takeover delay, an attempt to connect to the silent primary is under way. The client does not wait
/// for the end of the attempt.
#[tokio::test]
async fn a_silent_primary_does_not_delay_a_takeover() {
    let pair = Pair::start().await;
    let proxy = Proxy::start(&pair.addresses[PRIMARY]).await;
    let shard = Shard::standby([&proxy.address, &pair.addresses[STANDBY]]).takeover_delay(Duration::from_millis(1500));
    let builder = of(shard).connect_timeout(NEVER);
    let client = builder.acquire_timeout(PATIENCE).connect().await.unwrap();
    proxy.change(|treatment| treatment.stall_down = true);
    proxy.cut();
    away(&client).await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    assert!(guard.is_held());
    assert_eq!(client.health()[0].failovers, 1);
}

/// The primary comes back during a long pause. At the end of the takeover delay, the client tries the primary once
/// more.
#[tokio::test]
async fn the_primary_is_tried_once_more_before_the_standby() {
    let mut pair = Pair::start().await;
    let builder = of(pair.shard().takeover_delay(Duration::from_secs(3))).reconnect(seldom());
    let client = builder.acquire_timeout(PATIENCE).connect().await.unwrap();
    pair.kill(PRIMARY).await;
    pair.restart(PRIMARY).await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    assert_eq!(health(&client), (pair.addresses[PRIMARY].clone(), 0, None));
    assert_eq!(pair.grants(PRIMARY)[0].token.as_ref(), Some(guard.token()));
}

/// This client has never reached the primary. It still waits, because other clients may hold leases of the primary.
#[tokio::test]
async fn a_client_that_starts_without_the_primary_waits_for_the_same_delay() {
    let mut pair = Pair::start().await;
    pair.kill(PRIMARY).await;
    let began = Instant::now();
    let client = pair.builder().lease_ttl(Duration::from_secs(2)).build().unwrap();
    let lock = client.lock("k").unwrap().acquire_timeout(Duration::from_secs(30));
    let guard = lock.acquire().await.unwrap();
    let first = pair.grants(STANDBY)[0].at;
    assert!(
        first >= began + Duration::from_millis(2100),
        "after {:?}",
        first - began
    );
    assert_eq!(health(&client).0, pair.addresses[STANDBY]);
    guard.release().await.unwrap();
}

/// A client that has lost its pipelined connection to the primary. A caller still waits for a key over another
/// connection.
struct HalfCut {
    pair: Pair,
    client: Client,
    /// The guard of another client, which holds the key.
    holder: LockGuard,
    waiting: JoinHandle<Result<LockGuard>>,
    _proxy: Proxy,
}

impl HalfCut {
    async fn set(delay: Duration) -> Self {
        let pair = Pair::start().await;
        let proxy = Proxy::start(&pair.addresses[PRIMARY]).await;
        let shard = Shard::standby([&proxy.address, &pair.addresses[STANDBY]]).takeover_delay(delay);
        let client = of(shard).acquire_timeout(PATIENCE).connect().await.unwrap();
        let other = Client::builder().servers([&pair.addresses[PRIMARY]]);
        let holder = other.build().unwrap().lock("k").unwrap().acquire().await.unwrap();
        // The client sends many bytes over the pipelined connection and few bytes over the connection of the wait. So
        // the cut after 500 bytes, below, ends only the pipelined connection.
        for _ in 0..50 {
            let small = client.lock("small").unwrap().acquire().await.unwrap();
            small.release().await.unwrap();
        }
        let waiting = tokio::spawn({
            let lock = client.lock("k").unwrap();
            async move { lock.acquire().await }
        });
        until("it waits", || waiters(&pair) == 1).await;
        proxy.change(|treatment| (treatment.refuse, treatment.cut_up_after) = (true, Some(500)));
        drop(client.lock("small").unwrap().try_acquire().await);
        Self {
            pair,
            client,
            holder,
            waiting,
            _proxy: proxy,
        }
    }
}

fn waiters(pair: &Pair) -> u64 {
    let locks = pair.server(PRIMARY).stats().locks;
    locks.iter().map(|lock| lock.waiters).sum()
}

/// A wait has a connection of its own. An answer over this connection delays the takeover, too.
#[tokio::test]
async fn the_delay_counts_from_the_last_answer_over_any_connection() {
    let delay = Duration::from_secs(4);
    let mut scene = HalfCut::set(delay).await;
    away(&scene.client).await;
    sleep(delay / 4).await;
    scene.holder.release().await.unwrap();
    let second = scene.waiting.await.unwrap().unwrap();
    let contact = scene.pair.grants(PRIMARY).pop().unwrap();
    assert_eq!(contact.token.as_ref(), Some(second.token()));
    scene.pair.kill(PRIMARY).await;
    let third = scene.client.lock("k").unwrap().acquire().await.unwrap();
    assert!(third.is_held() && !second.is_held());
    let granted = scene.pair.grants(STANDBY)[0].at;
    assert!(granted >= contact.at + delay, "after {:?}", granted - contact.at);
}

/// Once the standby has taken over, no caller waits at the primary any more.
#[tokio::test]
async fn no_connection_to_the_primary_outlives_a_takeover() {
    let scene = HalfCut::set(Duration::from_millis(500)).await;
    until("the standby serves", || scene.client.health()[0].failovers == 1).await;
    let error = scene.waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
    until("no caller waits at the primary", || waiters(&scene.pair) == 0).await;
    scene.holder.release().await.unwrap();
    let guard = scene.client.lock("k").unwrap().acquire().await.unwrap();
    assert_eq!(scene.pair.grants(STANDBY)[0].token.as_ref(), Some(guard.token()));
}

#[tokio::test]
async fn all_leases_of_a_primary_are_lost_with_it_and_at_once() {
    let mut pair = Pair::start().await;
    let client = of(pair.shard().takeover_delay(NEVER))
        .lease_ttl(NEVER)
        .connect()
        .await
        .unwrap();
    let mut guards = Vec::new();
    for number in 0..20 {
        guards.push(client.lock(format!("k{number}")).unwrap().acquire().await.unwrap());
    }
    // A wait acquires a lease over a connection of its own. This lease is lost, too.
    let waiting = tokio::spawn({
        let lock = client.lock("k0").unwrap();
        async move { lock.acquire().await.unwrap() }
    });
    until("it waits", || {
        pair.server(PRIMARY).stats().locks.iter().any(|lock| lock.waiters == 1)
    })
    .await;
    guards.remove(0).release().await.unwrap();
    guards.push(waiting.await.unwrap());
    pair.kill(PRIMARY).await;
    for guard in guards {
        assert_eq!(why_lost(&guard).await, LostReason::Disconnected);
        assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    }
    assert_eq!(pair.server(STANDBY).events(), []);
}

/// The servers keep leases whose connection has ended. So a lease continues if the primary comes back, but it is lost
/// if the standby takes over.
#[tokio::test]
async fn leases_that_outlive_their_connection_are_lost_when_the_standby_takes_over() {
    let mut pair = Pair::start_with(Server::builder().auto_release_on_disconnect(false)).await;
    let shard = pair.shard().takeover_delay(Duration::from_millis(500));
    let builder = of(shard).lease_ttl(NEVER).survives_disconnect(true);
    let client = builder
        .acquire_timeout(Duration::from_secs(30))
        .connect()
        .await
        .unwrap();
    let lock = client.lock("k").unwrap();
    let (old, given) = (
        lock.acquire().await.unwrap(),
        client.lock("given").unwrap().acquire().await.unwrap(),
    );
    pair.kill(PRIMARY).await;
    until("the lease is suspect", || old.state() != LeaseState::Held).await;
    let releasing = tokio::spawn(given.release());
    let new = lock.acquire().await.unwrap();
    assert_eq!(old.state(), LeaseState::Lost(LostReason::Disconnected));
    assert!(new.is_held());
    // The server that granted the old lease no longer serves.
    assert_eq!(releasing.await.unwrap().unwrap_err().kind(), ErrorKind::LeaseLost);
    assert_eq!(old.release().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert!(new.is_held());
    assert_eq!(pair.grants(STANDBY).len(), 1);
}

#[tokio::test]
async fn a_primary_that_is_back_within_the_delay_keeps_serving() {
    let mut pair = Pair::start().await;
    let builder = of(pair.shard().takeover_delay(NEVER));
    let client = builder
        .acquire_timeout(Duration::from_secs(30))
        .connect()
        .await
        .unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    pair.kill(PRIMARY).await;
    assert_eq!(why_lost(&guard).await, LostReason::Disconnected);
    pair.restart(PRIMARY).await;
    let again = client.lock("k").unwrap().acquire().await.unwrap();
    assert_eq!(health(&client), (pair.addresses[PRIMARY].clone(), 0, None));
    assert_eq!(pair.grants(PRIMARY)[0].token.as_ref(), Some(again.token()));
    assert_eq!(pair.server(STANDBY).stats().connections, 0);
}

/// After the takeover, the client stays at the standby while the standby serves.
#[tokio::test]
async fn a_primary_that_is_back_later_serves_only_when_the_standby_dies() {
    let mut pair = Pair::start().await;
    let delay = Duration::from_millis(600);
    let builder = of(pair.shard().takeover_delay(delay));
    let client = builder
        .acquire_timeout(Duration::from_secs(30))
        .connect()
        .await
        .unwrap();
    pair.kill(PRIMARY).await;
    let kept = client.lock("kept").unwrap().acquire().await.unwrap();
    let at_standby = (pair.addresses[STANDBY].clone(), 1, Some(FailoverReason::Lost));
    assert_eq!(health(&client), at_standby);
    pair.restart(PRIMARY).await;
    let lock = client.lock("k").unwrap();
    let back = Instant::now();
    // A failback would happen within this time, but the client makes none.
    while back.elapsed() < 3 * delay {
        lock.acquire().await.unwrap().release().await.unwrap();
    }
    assert!(kept.is_held());
    assert_eq!(health(&client), at_standby);
    assert_eq!(pair.server(PRIMARY).stats().connections, 0);

    let killed = pair.kill(STANDBY).await;
    assert_eq!(why_lost(&kept).await, LostReason::Disconnected);
    let guard = lock.acquire().await.unwrap();
    let first = pair.grants(PRIMARY)[0].at;
    assert!(first >= killed + delay, "after {:?}", first - killed);
    assert_eq!(
        health(&client),
        (pair.addresses[PRIMARY].clone(), 2, Some(FailoverReason::Lost))
    );
    guard.release().await.unwrap();
    pair.judge();
}

#[tokio::test]
async fn a_failover_of_one_shard_does_not_affect_another() {
    let mut pair = Pair::start().await;
    let neighbour = Server::builder().port(0).start().await.unwrap();
    let shards = [
        pair.shard().takeover_delay(NEVER),
        Shard::single(neighbour.local_addr().to_string()),
    ];
    let strategy = |key: &str, _: usize| usize::from(!key.starts_with("away"));
    let builder = Client::builder().shards(shards).sharding_strategy(strategy);
    let client = builder.acquire_timeout(NEVER).connect().await.unwrap();
    let held = client.lock("here").unwrap().acquire().await.unwrap();
    pair.kill(PRIMARY).await;
    away(&client).await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..50 {
        let lock = client.lock(format!("away/{number}")).unwrap();
        waiting.spawn(async move { lock.acquire().await.map(drop) });
    }
    for number in 0..200 {
        let lock = client.lock(format!("here/{number}")).unwrap();
        lock.acquire().await.unwrap().release().await.unwrap();
    }
    assert!(held.is_held() && waiting.try_join_next().is_none());
    // The primary is back and serves the callers that wait.
    pair.restart(PRIMARY).await;
    for outcome in waiting.join_all().await {
        outcome.unwrap();
    }
    assert_eq!(pair.grants(PRIMARY).len(), 50);
}
