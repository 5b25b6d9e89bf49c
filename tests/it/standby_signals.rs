//! Signals of a shard with a standby. The subscriptions move to the standby when it takes over, and back to the primary
//! at a failback.

use std::time::Duration;

use crate::support::pair::{PRIMARY, Pair, STANDBY, of};
use crate::support::until;
use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Client, ErrorKind, FailoverReason, OnUnavailable, SignalConn, SignalEvent};
use tokio::time::timeout;

const DELAY: Duration = Duration::from_millis(700);
/// A time that only a hang exceeds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Emits over a connection to one server only.
async fn emit_at(pair: &Pair, which: usize, payload: &str) -> u64 {
    let publisher = SignalConn::connect(&pair.addresses[which]).await.unwrap();
    publisher.emit("news.a", payload).await.unwrap()
}

async fn hears(heard: &mut SignalConn, payload: &str) {
    let signal = timeout(PATIENCE, heard.next_signal())
        .await
        .expect("the signal arrives");
    assert_eq!(signal.unwrap().payload(), payload);
}

async fn next(heard: &mut SignalConn) -> SignalEvent {
    timeout(PATIENCE, heard.next_event())
        .await
        .expect("an event comes")
        .unwrap()
}

/// Asserts that the beginning and the end of a gap are reported.
async fn hears_of_a_gap(heard: &mut SignalConn) {
    let lost = next(heard).await;
    assert!(matches!(lost, SignalEvent::Lost { shard: 0, .. }), "{lost:?}");
    let restored = next(heard).await;
    assert!(
        matches!(restored, SignalEvent::Restored { shard: 0, .. }),
        "{restored:?}"
    );
}

fn place(heard: &SignalConn) -> (String, u64, Option<FailoverReason>) {
    let health = heard.health().remove(0);
    (health.endpoint.to_string(), health.failovers, health.last_failover)
}

#[tokio::test]
async fn a_subscription_follows_its_shard_to_the_standby_and_back() {
    let mut pair = Pair::start_with(Server::builder().release("1.16")).await;
    let client = of(pair.shard().takeover_delay(DELAY)).connect().await.unwrap();
    let mut heard = client.subscribe("news.*").await.unwrap();
    assert_eq!(client.emit("news.a", "first").await.unwrap(), 1);
    hears(&mut heard, "first").await;

    pair.kill(PRIMARY).await;
    hears_of_a_gap(&mut heard).await;
    assert_eq!(client.health()[0].failovers, 1, "the shard failed over first");
    let lost = Some(FailoverReason::Lost);
    assert_eq!(place(&heard), (pair.addresses[STANDBY].clone(), 1, lost));
    assert_eq!(emit_at(&pair, STANDBY, "second").await, 1);
    hears(&mut heard, "second").await;
    assert_eq!(client.emit("news.a", "third").await.unwrap(), 1);
    hears(&mut heard, "third").await;
    // A new subscription begins at the standby.
    let late = client.subscribe("news.*").await.unwrap();
    assert_eq!(place(&late), (pair.addresses[STANDBY].clone(), 0, None));

    pair.restart(PRIMARY).await;
    client.failback(0).await.unwrap();
    hears_of_a_gap(&mut heard).await;
    let requested = Some(FailoverReason::Requested);
    assert_eq!(place(&heard), (pair.addresses[PRIMARY].clone(), 2, requested));
    until("the other subscription is back, too", || {
        place(&late).0 == pair.addresses[PRIMARY]
    })
    .await;
    until("both listen", || {
        pair.server(PRIMARY)
            .stats()
            .signal_channels
            .iter()
            .any(|c| c.listeners == 2)
    })
    .await;
    assert_eq!(emit_at(&pair, PRIMARY, "fourth").await, 2);
    hears(&mut heard, "fourth").await;
    assert_eq!(emit_at(&pair, STANDBY, "unheard").await, 0);
    until("the emitting connection is back, too", || {
        pair.server(STANDBY).stats().connections == 0
    })
    .await;
    assert_eq!(client.emit("news.a", "fifth").await.unwrap(), 2);
    hears(&mut heard, "fifth").await;
}

/// While the shard waits for its primary, its subscriptions wait, too. A subscription at the standby would miss the
/// signals of clients that use the primary.
#[tokio::test]
async fn a_subscription_stays_as_long_as_its_shard_stays() {
    let mut pair = Pair::start_with(Server::builder().release("1.16")).await;
    let shard = pair.shard().takeover_delay(Duration::from_secs(3600));
    let builder = of(shard).on_unavailable(OnUnavailable::FailFast);
    let client: Client = builder.connect().await.unwrap();
    let mut heard = client.subscribe("news.*").await.unwrap();
    pair.kill(PRIMARY).await;
    let attempts = |heard: &SignalConn| match &heard.health()[0].state {
        dflockd_client::ConnectionState::Reconnecting { attempt, .. } => *attempt,
        _ => 0,
    };
    until("several attempts were made", || attempts(&heard) > 3).await;
    let error = client.emit("news.a", "nowhere").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    pair.restart(PRIMARY).await;
    hears_of_a_gap(&mut heard).await;
    assert_eq!(place(&heard), (pair.addresses[PRIMARY].clone(), 0, None));
    assert_eq!(emit_at(&pair, PRIMARY, "again").await, 1);
    hears(&mut heard, "again").await;
    assert_eq!(pair.server(STANDBY).stats().connections, 0);
    assert!(
        pair.server(PRIMARY)
            .events()
            .iter()
            .all(|event| event.kind != EventKind::Granted)
    );
}

/// A `SignalConn` without a client fails over by itself. It does not wait for the takeover delay, because it holds no
/// leases.
#[tokio::test]
async fn a_signal_connection_without_a_client_fails_over_at_once() {
    let mut pair = Pair::start_with(Server::builder().release("1.16")).await;
    let shard = pair.shard().takeover_delay(Duration::from_secs(3600));
    let mut heard = SignalConn::open(of(shard), Default::default()).await.unwrap();
    heard.listen("news.*", None).await.unwrap();
    pair.kill(PRIMARY).await;
    hears_of_a_gap(&mut heard).await;
    assert_eq!(emit_at(&pair, STANDBY, "first").await, 1);
    hears(&mut heard, "first").await;
}

/// A `SignalConn` whose client was dropped fails over by itself, too.
#[tokio::test]
async fn a_signal_connection_that_outlives_its_client_fails_over_alone() {
    let mut pair = Pair::start_with(Server::builder().release("1.16")).await;
    let client = of(pair.shard().takeover_delay(DELAY)).connect().await.unwrap();
    let mut heard = client.subscribe("news.*").await.unwrap();
    drop(client);
    until("the client is gone", || pair.server(PRIMARY).stats().connections == 1).await;
    pair.kill(PRIMARY).await;
    hears_of_a_gap(&mut heard).await;
    assert_eq!(emit_at(&pair, STANDBY, "first").await, 1);
    hears(&mut heard, "first").await;
}

#[tokio::test]
async fn a_subscription_ends_with_the_shutdown_of_its_client() {
    let pair = Pair::start_with(Server::builder().release("1.16")).await;
    let client = of(pair.shard().takeover_delay(DELAY)).connect().await.unwrap();
    let mut heard = client.subscribe("news.*").await.unwrap();
    client.shutdown(PATIENCE).await;
    assert!(timeout(PATIENCE, heard.next_event()).await.expect("it ends").is_none());
    assert_eq!(heard.closed_because().unwrap().kind(), ErrorKind::Shutdown);
    until("no connection is left", || {
        pair.server(PRIMARY).stats().connections == 0
    })
    .await;
}
