//! Clients under load lose their primary and use its standby, which does not know the grants of the primary. The
//! history checker judges the records of the servers and the clients: no key may have two holders at once.

use std::time::Duration;

use crate::support::history::bounds::Bounds;
use crate::support::load::{KEPT, Load};
use crate::support::pair::{PRIMARY, Pair, STANDBY, of};
use crate::support::proxy::Proxy;
use crate::support::until;
use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Client, FailoverReason, LostReason, Shard};
use tokio::time::Instant;

/// The number of tasks per client.
const TASKS: usize = 6;
const TTL: Duration = Duration::from_secs(1);
/// The takeover delay: the TTL plus a twentieth of the TTL.
const DELAY: Duration = Duration::from_millis(1050);

async fn client(shard: Shard) -> Client {
    let builder = of(shard).lease_ttl(TTL).acquire_timeout(Duration::from_secs(3));
    builder.connect().await.unwrap()
}

/// Waits until every client has had at least [`TASKS`] more grants.
async fn every_client_has_a_turn(what: &str, load: &Load) {
    let before = load.grants();
    let have_more = || {
        load.grants()
            .iter()
            .zip(&before)
            .all(|(now, before)| *now >= before + TASKS)
    };
    until(what, have_more).await;
}

/// One of three clients uses a proxy, which holds everything back when the primary is killed. This client does not
/// notice the kill, and reports its lease as held until the lease expires. The two other clients use the standby only
/// after that. Then all three clients fail back to the primary while their tasks continue.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_killed_under_load_and_comes_back_grants_no_key_while_it_is_held() {
    let mut pair = Pair::start().await;
    let proxy = Proxy::start(&pair.addresses[PRIMARY]).await;
    let cut_off = client(Shard::standby([&proxy.address, &pair.addresses[STANDBY]])).await;
    let clients = [client(pair.shard()).await, client(pair.shard()).await, cut_off];
    let mut load = Load::default();
    let holder = load.add(&clients[2], pair.observer("cut off"), TASKS);
    until("the client holds a lease that it keeps", || holder.holds(KEPT)).await;
    load.add(&clients[0], pair.observer("first"), TASKS);
    load.add(&clients[1], pair.observer("second"), TASKS);
    every_client_has_a_turn("at the primary", &load).await;
    proxy.change(|treatment| {
        (treatment.stall_up, treatment.stall_down, treatment.stall_ends) = (true, true, true);
    });
    let killed = pair.kill(PRIMARY).await;
    let is_granted = |key: &str| pair.grants(STANDBY).iter().any(|event| event.key.as_str() == key);
    until("another client is granted that key", || is_granted(KEPT)).await;
    proxy.pass_everything();
    until("the other clients have failed over", || {
        clients.iter().all(|client| client.health()[0].failovers == 1)
    })
    .await;
    every_client_has_a_turn("at the standby", &load).await;
    let taken_over = pair.grants(STANDBY)[0].at - killed;

    pair.restart(PRIMARY).await;
    let asked = Instant::now();
    for client in &clients {
        assert_eq!(client.failback(0).await.unwrap(), DELAY);
    }
    every_client_has_a_turn("at the primary again", &load).await;
    let gone_back = pair.grants(PRIMARY)[0].at - asked;
    for client in &clients {
        let health = &client.health()[0];
        assert_eq!(
            (health.failovers, health.last_failover),
            (2, Some(FailoverReason::Requested))
        );
    }

    let seen = load.end().await.with(pair.lines());
    let verdict = seen.judge(&Bounds::default()).assert();
    assert!(verdict.beliefs > 0 && verdict.losses > 0, "{verdict:?}");
    assert!(verdict.from_queues > 0, "too few grants came from queues: {verdict:?}");
    assert!(taken_over >= DELAY, "taken over after {taken_over:?}");
    assert!(gone_back >= DELAY, "gone back after {gone_back:?}");
    let losses = holder.losses(KEPT);
    assert!(
        losses.contains(&LostReason::Expired),
        "the lease must end by expiry: {losses:?}"
    );
}

/// The primary keeps running, but no client can reach it, so its leases expire.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_grants_no_key_whose_lease_still_runs_at_an_unreachable_primary() {
    let server = Server::builder()
        .auto_release_on_disconnect(false)
        .lease_sweep_interval(Duration::from_millis(5));
    let pair = Pair::start_with(server).await;
    let proxy = Proxy::start(&pair.addresses[PRIMARY]).await;
    let mut load = Load::default();
    let mut clients = Vec::new();
    for name in ["first", "second"] {
        let builder = of(Shard::standby([&proxy.address, &pair.addresses[STANDBY]])).lease_ttl(TTL);
        let client = builder.survives_disconnect(true).connect().await.unwrap();
        load.add(&client, pair.observer(name), TASKS);
        clients.push(client);
    }
    every_client_has_a_turn("at the primary", &load).await;
    proxy.change(|treatment| treatment.refuse = true);
    let cut = Instant::now();
    proxy.cut();
    until("both clients have failed over", || {
        clients.iter().all(|client| client.health()[0].failovers == 1)
    })
    .await;
    every_client_has_a_turn("at the standby", &load).await;
    let taken_over = pair.grants(STANDBY)[0].at - cut;
    let seen = load.end().await.with(pair.lines());
    let verdict = seen.judge(&Bounds::default()).assert();
    assert!(verdict.beliefs > 0 && verdict.losses > 0, "{verdict:?}");
    let records = pair.records();
    let expired = records
        .iter()
        .flat_map(|(_, events)| events)
        .filter(|event| event.kind == EventKind::Expired);
    assert!(expired.count() > 0, "leases expired at the primary: {verdict:?}");
    assert!(taken_over >= DELAY, "taken over after {taken_over:?}");
}
