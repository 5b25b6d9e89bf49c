//! Members that join a cluster at run time. The client connects to new members only at hosts that its options allow.

use std::time::Duration;

use crate::support::cluster::{ClusterScene, KEPT, patient, soon, until_served_by};
use crate::support::fake::FakeServer;
use crate::support::recorder::Recorded;
use crate::support::until;
use dflockd_client::{Client, ErrorKind, LeaseState, Shard};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_leader_at_an_allowed_host_is_followed_and_serves_like_any_other() {
    let scene = ClusterScene::set(patient()).await;
    let addresses = scene.cluster.addresses();
    let recorded = Recorded::default();
    let shard = Shard::cluster(&addresses[..1]).orphan_ttl(KEPT);
    let builder = scene.builder().shards([shard.allowed_hosts(["127.0.0.0/8"])]);
    let client = builder.metrics_recorder(recorded.clone()).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();

    scene.cluster.move_leader(2).unwrap();
    let another = client.lock("another").unwrap().acquire().await.unwrap();
    until_served_by(&client, &addresses[2]).await;
    until("the lease is renewed", || guard.state() == LeaseState::Held).await;
    assert_eq!(recorded.value("serving", &[("endpoint", &addresses[2])]), 1.0);
    assert_eq!(recorded.value("serving", &[("endpoint", &addresses[0])]), 0.0);
    assert_eq!(recorded.value("failovers_total", &[("reason", "deposed")]), 1.0);

    // The client still tries the configured members, and it remembers the new members.
    scene.cluster.stop(2).await.unwrap();
    scene.cluster.move_leader(0).unwrap();
    until_served_by(&client, &addresses[0]).await;
    scene.cluster.stop(0).await.unwrap();
    scene.cluster.start(2).await.unwrap();
    scene.cluster.move_leader(2).unwrap();
    until_served_by(&client, &addresses[2]).await;
    guard.release().await.unwrap();
    another.release().await.unwrap();
}

#[tokio::test]
async fn a_leader_at_a_host_that_is_not_allowed_is_not_followed() {
    let scene = ClusterScene::set(patient()).await;
    let addresses = scene.cluster.addresses();
    for allowed in [vec![], vec!["localhost", "10.0.0.0/8"]] {
        scene.cluster.move_leader(0).unwrap();
        let shard = Shard::cluster(&addresses[..1]).allowed_hosts(allowed);
        let builder = scene.builder().shards([shard]).acquire_timeout(Duration::from_secs(1));
        let client = builder.connect().await.unwrap();
        scene.cluster.move_leader(2).unwrap();
        let refused = timeout(LONG, client.lock("k").unwrap().acquire()).await.unwrap();
        let error = refused.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::NotLeader | ErrorKind::Unavailable),
            "{error}"
        );
        assert!(error.to_string().contains(&addresses[2]), "{error}");
    }
}

/// Starts a member that leads and names these voters. If a voter has the address 127.0.0.1, the member ends each
/// connection at the first acquire. Otherwise it grants every acquire.
async fn leader(voters: String) -> FakeServer {
    FakeServer::start(move |mut connection, _| {
        let stats = format!("ok {{\"cluster\":{{\"role\":\"leader\",\"voters\":[{voters}]}}}}\n");
        async move {
            while let Some([command, ..]) = connection.request().await {
                let answer = match command.as_str() {
                    "n" => "error\n",
                    "stats" => &stats,
                    "l" if stats.contains("127.0.0.1") => return connection.reset(),
                    "l" => "ok 0000000000000001aaaaaaaaaaaaaaaa 33\n",
                    _ => "ok\n",
                };
                connection.say(answer).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn members_that_a_leader_names_are_tried_when_it_is_gone() {
    let second = leader(String::new()).await;
    let first = leader(format!("\"n1\",\"{}\"", second.address)).await;
    let at = first.address.clone();
    let shard = Shard::cluster([at.clone()]).allowed_hosts(["127.0.0.1"]);
    let client = Client::builder()
        .shards([shard])
        .reconnect(soon())
        .connect()
        .await
        .unwrap();
    assert_eq!(
        second.accepted(),
        0,
        "the client does not connect to the second member while the first member leads"
    );
    let lock = client.lock("k").unwrap();
    let acquired = timeout(LONG, async {
        loop {
            match lock.acquire().await {
                Ok(guard) => return guard,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
    });
    drop(first);
    assert!(acquired.await.unwrap().is_held());
    until_served_by(&client, &second.address).await;
}

#[test]
fn an_invalid_rule_is_refused_when_the_client_is_built() {
    let shard = Shard::cluster(["a.example:1"]).allowed_hosts(["10.0.0.0/99"]);
    let error = Client::builder().shards([shard]).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("\"10.0.0.0/99\""), "{error}");
}
