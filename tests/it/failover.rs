//! A cluster whose leader changes: what happens to leases and requests, and which reports about the new leader the
//! client trusts.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::cluster::{ClusterScene, Cut, KEPT, health, patient, until_served_by};
use crate::support::fake::FakeServer;
use crate::support::until;
use dflockd_client::protocol::StableRef;
use dflockd_client::server::{Cluster, EventKind, Server};
use dflockd_client::{
    Client, ConnectionState, ErrorKind, FailoverReason, LeaseState, LockGuard, LostReason, OnUnavailable, Shard,
    ShardHealth, Token,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

async fn take(client: &Client, count: usize) -> Vec<LockGuard> {
    let mut tasks = JoinSet::new();
    for key in 0..count {
        let lock = client.lock(format!("k{key}")).unwrap();
        tasks.spawn(async move { lock.acquire().await.unwrap() });
    }
    tasks.join_all().await
}

fn tokens(guards: &[LockGuard]) -> HashSet<Token> {
    guards.iter().map(|guard| *guard.token()).collect()
}

/// Returns the tokens of the leases that were renewed after the first `from` events in the cluster's record.
fn renewed_since(scene: &ClusterScene, from: usize) -> HashSet<Token> {
    let events = scene.cluster.events().into_iter().skip(from);
    let renewed = events.filter(|event| event.kind == EventKind::Renewed);
    renewed.filter_map(|event| event.token).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_leases_continue_at_the_next_leader() {
    let scene = ClusterScene::set(patient()).await;
    let client = scene.client().await;
    let guards = take(&client, 1000).await;
    for leader in [1, 2, 0] {
        let before = scene.cluster.events().len();
        scene.cluster.move_leader(leader).unwrap();
        // The client learns of the change from the answer to its next request.
        let probe = client.lock("probe").unwrap().acquire().await.unwrap();
        probe.release().await.unwrap();
        until_served_by(&client, &scene.cluster.addresses()[leader]).await;
        let held = tokens(&guards);
        until("all leases are renewed", || {
            renewed_since(&scene, before).is_superset(&held)
        })
        .await;
        until("no lease is in doubt", || {
            guards.iter().all(|guard| guard.state() == LeaseState::Held)
        })
        .await;
    }
    assert_eq!(health(&client).failovers, 3);
    for guard in guards {
        guard.release().await.unwrap();
    }
    scene.until_free().await;
    let verdict = scene.judge();
    assert_eq!(
        (verdict.keys, verdict.grants, verdict.held),
        (1001, 1003, 0),
        "no key was granted twice"
    );
    assert_eq!(scene.count(EventKind::Released), 1003);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_takes_no_lease_with_it() {
    let scene = ClusterScene::set(patient()).await;
    let client = scene.client().await;
    let guards = take(&client, 1000).await;
    let before = scene.cluster.events().len();
    scene.cluster.stop(0).await.unwrap();
    until("the leases are in doubt", || {
        guards.iter().all(|guard| guard.state() == LeaseState::Suspect)
    })
    .await;
    scene.cluster.move_leader(2).unwrap();
    let held = tokens(&guards);
    until("all leases are renewed", || {
        renewed_since(&scene, before).is_superset(&held)
    })
    .await;
    until("no lease is in doubt", || {
        guards.iter().all(|guard| guard.state() == LeaseState::Held)
    })
    .await;
    let health = health(&client);
    assert_eq!(*health.endpoint, *scene.cluster.addresses()[2]);
    assert_eq!(
        (health.failovers, health.last_failover),
        (1, Some(FailoverReason::Lost))
    );
    drop(guards);
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 1000);
    assert_eq!(
        scene.count(EventKind::Released),
        1000,
        "each lease is released once, by its token"
    );
}

#[tokio::test]
async fn leases_that_a_new_leader_does_not_know_are_reported_lost() {
    let scene = ClusterScene::set(patient()).await;
    let client = scene.client().await;
    let guards = take(&client, 20).await;
    scene.cluster.forgets_tokens(true);
    scene.cluster.move_leader(1).unwrap();
    let fresh = client.lock("fresh").unwrap().acquire().await.unwrap();
    for guard in &guards {
        assert_eq!(timeout(LONG, guard.lost()).await.unwrap(), LostReason::Rejected);
    }
    assert!(fresh.is_held(), "the lease of the new leader is not lost");
    assert_eq!(scene.count(EventKind::Forgotten), 20);
}

#[tokio::test]
async fn leases_outlive_a_broken_connection_to_a_living_leader_that_keeps_orphans() {
    let (scene, cut) = Cut::of_patient().await;
    let client = cut.client().await;
    let guards = take(&client, 20).await;
    for _ in 0..3 {
        let before = scene.cluster.events().len();
        cut.proxies[0].cut();
        let held = tokens(&guards);
        until("all leases are renewed", || {
            renewed_since(&scene, before).is_superset(&held)
        })
        .await;
    }
    assert!(guards.iter().all(|guard| guard.is_held()));
    assert_eq!(
        (scene.count(EventKind::Disconnected), health(&client).failovers),
        (0, 0)
    );
    drop(guards);
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 20);

    // This leader does not keep a lease whose connection has ended. So the client reports the lease lost.
    let scene = ClusterScene::set(Server::builder()).await;
    let cut = Cut::of(&scene).await;
    let client = cut.builder().shards([cut.shard()]).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    cut.proxies[0].cut();
    assert_eq!(timeout(LONG, guard.lost()).await.unwrap(), LostReason::Disconnected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_gives_its_lease_up_before_an_unreachable_leader_does() {
    let patience = Duration::from_secs(4);
    // The leader does not see that the connection has ended. It closes idle connections, so it still gives up the lease
    // before the end of the TTL.
    let builder = Cluster::builder().closes_idle_connections(true);
    let scene = ClusterScene::of(builder, Server::builder().read_timeout(patience)).await;
    let cut = Cut::of(&scene).await;
    let builder = cut
        .builder()
        .shards([cut.shard()])
        .server_read_timeout(patience)
        .keepalive(Duration::from_millis(500));
    let builder = builder
        .reply_timeout(Duration::from_millis(500))
        .connect_timeout(Duration::from_millis(200));
    let client = builder.lease_ttl(Duration::from_secs(300)).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let other = scene.client().await;
    let next = other.lock("k").unwrap().acquire_timeout(LONG);
    let next = tokio::spawn(async move { next.acquire().await });
    scene.until_waiters(1).await;
    cut.black_hole();
    assert_eq!(timeout(LONG, guard.lost()).await.unwrap(), LostReason::Disconnected);
    let told = tokio::time::Instant::now();
    let next = timeout(LONG, next).await.unwrap().unwrap().unwrap();
    let granted = scene.events(EventKind::Granted);
    assert_eq!(granted[1].token, Some(*next.token()));
    assert!(told < granted[1].at, "the holder learnt of the loss first");
}

#[tokio::test]
async fn a_restarted_process_reclaims_the_leases_of_its_stable_ref() {
    let (scene, cut) = Cut::of_patient().await;
    let name = StableRef::random();
    let process = |shard: Shard| {
        let shard = shard.orphan_ttl(KEPT).stable_ref(name.clone());
        Client::builder()
            .shards([shard])
            .reconnect(crate::support::cluster::soon())
            .connect()
    };
    let before = process(cut.shard()).await.unwrap();
    let held = before.lock("k").unwrap().acquire().await.unwrap();
    let other = scene.client().await;
    // The connections of the first client end, and the client cannot connect again.
    cut.off();
    until("the cluster keeps its lease", || scene.count(EventKind::Orphaned) > 0).await;
    assert!(other.lock("k").unwrap().try_acquire().await.unwrap().is_none());
    let error = other.lock("k").unwrap().reclaim().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "this client has no stable ref");

    let again = process(Shard::cluster(scene.cluster.addresses())).await.unwrap();
    let reclaimed = again.lock("k").unwrap().reclaim().await.unwrap().unwrap();
    assert_eq!(reclaimed.token(), held.token());
    assert!(
        again.lock("k").unwrap().reclaim().await.unwrap().is_none(),
        "this process holds it already"
    );
    reclaimed.release().await.unwrap();
    scene.until_free().await;
    assert_eq!(scene.judge().grants, 1);
}

#[tokio::test]
async fn a_member_that_falls_silent_is_not_the_first_to_be_asked() {
    let (scene, cut) = Cut::of_patient().await;
    let builder = cut
        .builder()
        .keepalive(Duration::from_millis(200))
        .reply_timeout(Duration::from_millis(1200));
    // If a member falls silent, the client tries another member first. An attempt to connect to the silent member would
    // take 600 s, and the test would time out.
    let client = builder
        .connect_timeout(Duration::from_secs(600))
        .connect()
        .await
        .unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    cut.proxies[0].change(|treatment| {
        treatment.stall_up = true;
        treatment.stall_down = true;
    });
    scene.cluster.move_leader(1).unwrap();
    until_served_by(&client, &cut.proxies[1].address).await;
    until("the lease is renewed", || guard.state() == LeaseState::Held).await;
    guard.release().await.unwrap();
}

#[tokio::test]
async fn without_a_leader_leases_last_until_their_deadline_only() {
    let scene = ClusterScene::set(patient()).await;
    let client = scene
        .builder()
        .lease_ttl(Duration::from_secs(2))
        .connect()
        .await
        .unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    scene.cluster.depose();
    assert_eq!(timeout(LONG, guard.lost()).await.unwrap(), LostReason::Expired);
    let told = tokio::time::Instant::now();
    // The cluster has no leader, and only a leader ends expired leases.
    assert_eq!(scene.count(EventKind::Expired), 0);
    scene.cluster.move_leader(1).unwrap();
    let other = scene.client().await;
    let next = other.lock("k").unwrap().acquire().await.unwrap();
    let granted = scene.events(EventKind::Granted);
    assert_eq!(granted[1].token, Some(*next.token()));
    assert!(told < granted[1].at, "the holder learnt of the loss first");
    scene.judge();
}

#[tokio::test]
async fn without_a_leader_callers_wait_or_fail_at_once_as_configured() {
    let scene = ClusterScene::set(patient()).await;
    let (waiting, failing) = (scene.builder(), scene.builder().on_unavailable(OnUnavailable::FailFast));
    let waiting = waiting.connect().await.unwrap();
    let failing = failing.connect().await.unwrap();
    scene.cluster.depose();
    let error = failing.lock("k").unwrap().acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("is not the leader"), "{error}");
    let patience = waiting.lock("k").unwrap();
    let task = tokio::spawn(async move { patience.acquire().await });
    let patience = waiting.lock("k").unwrap().acquire_timeout(Duration::from_millis(50));
    assert_eq!(patience.acquire().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!task.is_finished());
    scene.cluster.move_leader(1).unwrap();
    assert!(timeout(LONG, task).await.unwrap().unwrap().unwrap().is_held());
}

#[tokio::test]
async fn the_last_living_member_is_found_when_it_leads() {
    let scene = ClusterScene::set(patient()).await;
    let client = scene.client().await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    for dead in [0, 1] {
        scene.cluster.stop(dead).await.unwrap();
    }
    scene.cluster.move_leader(2).unwrap();
    until_served_by(&client, &scene.cluster.addresses()[2]).await;
    let another = client.lock("another").unwrap().acquire().await.unwrap();
    until("the lease is renewed", || guard.state() == LeaseState::Held).await;
    guard.release().await.unwrap();
    another.release().await.unwrap();
    scene.until_free().await;

    // A client that starts now must find this leader, too.
    let late = scene.client().await;
    assert_eq!(*health(&late).endpoint, *scene.cluster.addresses()[2]);
    assert_eq!(health(&late).failovers, 0, "the client has not changed servers");
    assert!(late.lock("k").unwrap().acquire().await.unwrap().is_held());
}

#[tokio::test]
async fn members_that_name_each_other_are_not_followed_in_circles() {
    let scene = ClusterScene::set(patient()).await;
    let addresses = scene.cluster.addresses();
    let client = scene.client().await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    // No member leads. Member 0 names member 1 as the leader, and members 1 and 2 name each other. When member 0 leads
    // again, the client must find it.
    scene.cluster.depose();
    scene.cluster.member_redirects_to(0, Some(&addresses[1])).unwrap();
    scene.cluster.member_redirects_to(1, Some(&addresses[2])).unwrap();
    scene.cluster.member_redirects_to(2, Some(&addresses[1])).unwrap();
    let connects = || scene.cluster.stats().connections;
    let pending = client.lock("k2").unwrap();
    let pending = tokio::spawn(async move { pending.acquire().await });
    until("all members were tried", || {
        health(&client)
            .last_error()
            .is_some_and(|error| error.kind() == ErrorKind::NotLeader)
    })
    .await;
    let attempts = |health: &ShardHealth| match &health.state {
        ConnectionState::Reconnecting { attempt, .. } => *attempt,
        _ => 0,
    };
    until("the client keeps trying", || attempts(&health(&client)) > 20).await;
    assert!(connects() <= 3, "one attempt at a time");
    for member in 0..3 {
        scene.cluster.member_redirects_to(member, None).unwrap();
    }
    scene.cluster.move_leader(0).unwrap();
    assert!(timeout(LONG, pending).await.unwrap().unwrap().unwrap().is_held());
    until("the lease is renewed", || guard.state() == LeaseState::Held).await;
}

#[tokio::test]
async fn a_server_outside_the_cluster_is_never_followed() {
    let stranger = FakeServer::start(|mut connection, _| async move {
        // This server would accept every request.
        while connection.request().await.is_some() {
            connection.say("ok\n").await;
        }
    })
    .await;
    let scene = ClusterScene::set(patient()).await;
    let client = scene.client().await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    scene.cluster.redirects_to(Some(&stranger.address));
    scene.cluster.move_leader(2).unwrap();
    let another = client.lock("another").unwrap().acquire().await.unwrap();
    until_served_by(&client, &scene.cluster.addresses()[2]).await;
    until("the lease is renewed", || guard.state() == LeaseState::Held).await;
    another.release().await.unwrap();
    assert_eq!(stranger.accepted(), 0);
    assert_eq!(scene.judge().grants, 2);
}

#[tokio::test]
async fn a_request_is_repeated_as_often_as_max_redirects_allows() {
    // This server answers each acquire as a member that does not lead, and everything else as a leader.
    let deposed_at_first_acquire = || {
        FakeServer::start(|mut connection, _| async move {
            while let Some([command, ..]) = connection.request().await {
                let answer = match command.as_str() {
                    "n" => "error\n",
                    "stats" => "ok {\"cluster\":{}}\n",
                    "l" | "e" => "error_not_leader\n",
                    _ => "ok\n",
                };
                connection.say(answer).await;
            }
        })
    };
    let (first, second) = (deposed_at_first_acquire().await, deposed_at_first_acquire().await);
    let shard = Shard::cluster([first.address.clone(), second.address.clone()]);
    let builder = Client::builder().shards([shard]).max_redirects(3);
    let client = builder
        .reconnect(crate::support::cluster::soon())
        .connect()
        .await
        .unwrap();
    let error = timeout(LONG, client.lock("k").unwrap().try_acquire())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotLeader);
    assert!(!error.is_fatal() && error.is_retryable(), "a later attempt may succeed");
    let error = timeout(LONG, client.lock("k").unwrap().acquire())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotLeader);
    let all = first.accepted() + second.accepted();
    assert!((8..60).contains(&all), "{all} connections");
}

#[tokio::test]
async fn a_barrier_is_answered_by_the_current_leader() {
    let scene = ClusterScene::set(patient()).await;
    let client = scene.client().await;
    client.barrier().await.unwrap();
    scene.cluster.move_leader(1).unwrap();
    // The client sends this barrier to the new leader.
    client.barrier().await.unwrap();
    assert_eq!(*health(&client).endpoint, *scene.cluster.addresses()[1]);

    let old = FakeServer::start(|mut connection, _| async move {
        while let Some([command, ..]) = connection.request().await {
            connection
                .say(if command == "barrier" { "error\n" } else { "ok\n" })
                .await;
        }
    })
    .await;
    let client = Client::builder().servers([&old.address]).connect().await.unwrap();
    assert_eq!(client.barrier().await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_cluster_without_a_leader_costs_the_callers_of_another_shard_nothing() {
    let scene = ClusterScene::set(patient()).await;
    let other = Server::builder().port(0).start().await.unwrap();
    let shards = [
        Shard::cluster(scene.cluster.addresses()),
        Shard::single(other.local_addr().to_string()),
    ];
    let builder = Client::builder()
        .shards(shards)
        .reconnect(crate::support::cluster::soon());
    let builder = builder.sharding_strategy(|key: &str, _: usize| usize::from(key.starts_with("other")));
    let client = builder.connect().await.unwrap();
    scene.cluster.depose();
    let stuck = client.lock("k").unwrap();
    let stuck = tokio::spawn(async move { stuck.acquire().await });
    until("the client is disconnected", || !client.health()[0].is_connected()).await;
    for key in 0..100 {
        let lock = client.lock(format!("other{key}")).unwrap();
        lock.acquire().await.unwrap().release().await.unwrap();
    }
    assert!(!stuck.is_finished());
    scene.cluster.move_leader(2).unwrap();
    assert!(timeout(LONG, stuck).await.unwrap().unwrap().unwrap().is_held());
}

#[tokio::test]
async fn health_names_the_serving_member_and_the_reason() {
    let scene = ClusterScene::set(patient()).await;
    let addresses = scene.cluster.addresses();
    let client = scene.client().await;
    let mut watch = client.watch_health(0).unwrap();
    assert_eq!(
        (&*health(&client).endpoint, health(&client).failovers),
        (&*addresses[0], 0)
    );
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    scene.cluster.move_leader(2).unwrap();
    // The client sends a release when the guard is dropped. From the answer it learns of the new leader.
    drop(guard);
    let served = |health: &ShardHealth| *health.endpoint == *addresses[2] && health.is_connected();
    let now = timeout(LONG, watch.wait_for(served)).await.unwrap().unwrap().clone();
    assert_eq!((now.failovers, now.last_failover), (1, Some(FailoverReason::Deposed)));
    scene.until_free().await;
    scene.cluster.stop(2).await.unwrap();
    scene.cluster.move_leader(1).unwrap();
    let served = |health: &ShardHealth| *health.endpoint == *addresses[1] && health.is_connected();
    let now = timeout(LONG, watch.wait_for(served)).await.unwrap().unwrap().clone();
    assert_eq!((now.failovers, now.last_failover), (2, Some(FailoverReason::Lost)));
}
