//! These tests use sockets. They check that the embedded cluster behaves as the code of real clusters does. Each fact
//! about that code has a number, here and in the unit tests of `src/server/state`.

use std::time::Duration;

use dflockd_client::server::{Cluster, ClusterBuilder, EventKind, Server};

use super::{SOON, count, line, not_leader, patient, session, start, token, wait_at, waiters};
use crate::support::raw::{Heard, RawConnection};
use crate::support::until;

/// A cluster that records its events.
async fn recorded(describe: fn(ClusterBuilder) -> ClusterBuilder) -> (Cluster, Vec<String>) {
    let builder = Cluster::builder().options(Server::builder().record_events(true));
    let cluster = describe(builder).start().await.unwrap();
    let addresses = cluster.addresses();
    (cluster, addresses)
}

fn entries(stats: &str) -> u64 {
    let stats: serde_json::Value = serde_json::from_str(stats.strip_prefix("ok ").unwrap()).unwrap();
    stats["cluster"]["last_log_index"].as_u64().unwrap()
}

#[tokio::test]
async fn fact_1_commits_outlive_the_leader_that_answered_not_leader() {
    let (cluster, addresses) = start(Server::builder()).await;
    let mut first = session(&addresses[0], "mine").await;
    cluster.move_leader_in_flight(Some(1)).unwrap();
    assert_eq!(first.request("l", "k", "0 300").await, not_leader(&addresses[1]));
    let mut stranger = session(&addresses[1], "another").await;
    assert_eq!(stranger.request("l", "k", "0 300").await, "timeout");
    let mut again = session(&addresses[1], "mine").await;
    let held = token(&again.request("l", "k", "0 300").await);
    cluster.move_leader_in_flight(Some(2)).unwrap();
    assert_eq!(again.request("r", "k", &held).await, not_leader(&addresses[2]));
    let mut third = RawConnection::open(&addresses[2]).await;
    assert_eq!(
        third.request("r", "k", &held).await,
        "error",
        "the release was committed"
    );
}

#[tokio::test]
async fn fact_2_a_timeout_does_not_end_a_reclaimed_queue_position() {
    let (cluster, addresses) = start(Server::builder()).await;
    let mut holder = RawConnection::open(&addresses[0]).await;
    holder.request("l", "k", "0 300").await;
    let mut first = session(&addresses[0], "mine").await;
    assert_eq!(first.request("e", "k", "300").await, "queued");
    cluster.move_leader(1).unwrap();
    let mut again = session(&addresses[1], "mine").await;
    assert_eq!(again.request("l", "k", "1 300").await, "timeout");
    assert_eq!(waiters(&cluster), 1, "its queue position is still there");
    assert_eq!(again.request("w", "k", "0").await, "timeout");
    assert_eq!(waiters(&cluster), 0);
    assert_eq!(again.request("w", "k", "0").await, "error_not_enqueued");
}

#[tokio::test]
async fn fact_3_and_4_each_wait_returns_the_seconds_that_are_left() {
    let (_cluster, addresses) = start(Server::builder()).await;
    let mut connection = RawConnection::open(&addresses[0]).await;
    let held = token(&connection.request("e", "k", "2").await);
    // The server answers with the seconds that are left of the TTL of 2 s. When less than one second is left, it
    // answers with its default TTL of 33 s.
    let mut told = Vec::new();
    loop {
        let answer = connection.request("w", "k", "0").await;
        if answer == "error_not_enqueued" {
            break;
        }
        assert_eq!(token(&answer), held);
        told.push(answer.rsplit(' ').next().unwrap().to_owned());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // On a slow machine, the test may miss one of the values 2, 1 and 33.
    let order = |told: &String| ["2", "1", "33"].iter().position(|known| known == told).unwrap();
    assert!(!told.is_empty() && told.is_sorted_by_key(order), "{told:?}");
    // The server returns the same grant until its release.
    let held = token(&connection.request("e", "k", "300").await);
    for _ in 0..3 {
        assert_eq!(token(&connection.request("w", "k", "0").await), held);
    }
    assert_eq!(connection.request("r", "k", &held).await, "ok");
    assert_eq!(connection.request("w", "k", "0").await, "error_not_enqueued");
}

#[tokio::test]
async fn fact_5_a_late_renewal_gets_an_error() {
    let options = Server::builder().lease_sweep_interval(Duration::from_secs(600));
    let (_cluster, addresses) = start(options).await;
    let mut connection = RawConnection::open(&addresses[0]).await;
    let held = token(&connection.request("l", "k", "0 1").await);
    tokio::time::sleep(Duration::from_millis(1010)).await;
    let renewal = format!("{held} 30");
    assert_eq!(connection.request("n", "k", &renewal).await, "error_lease_expired");
    assert_eq!(connection.request("n", "k", &renewal).await, "error");
}

#[tokio::test]
async fn fact_6_a_try_reclaims_a_queue_position() {
    let (cluster, addresses) = start(patient()).await;
    let mut holder = RawConnection::open(&addresses[0]).await;
    let held = token(&holder.request("l", "k", "0 300").await);
    let mut first = session(&addresses[0], "mine").await;
    assert_eq!(first.request("e", "k", "300").await, "queued");
    cluster.move_leader(1).unwrap();
    let mut again = session(&addresses[1], "mine").await;
    assert_eq!(again.request("l", "k", "0 300").await, "timeout");
    assert_eq!((waiters(&cluster), count(&cluster, EventKind::Reclaimed)), (1, 1));
    assert_eq!(again.request("r", "k", &held).await, "ok");
    assert!(
        again.request("l", "k", "0 300").await.starts_with("timeout"),
        "the session holds the key already"
    );
    assert!(again.request("w", "k", "0").await.starts_with("ok "));
}

#[tokio::test]
async fn fact_7_a_reclaim_restarts_the_lease_with_the_new_ttl() {
    let (cluster, addresses) = start(Server::builder()).await;
    let mut first = session(&addresses[0], "mine").await;
    let held = token(&first.request("l", "k", "0 300").await);
    cluster.move_leader(1).unwrap();
    let mut again = session(&addresses[1], "mine").await;
    assert_eq!(again.request("l", "k", "0 700").await, format!("ok {held} 700"));
    assert!(cluster.stats().locks[0].lease_expires_in_s > 600);
}

#[tokio::test]
async fn fact_8_a_limit_has_a_cap() {
    let (_cluster, addresses) = start(Server::builder()).await;
    let mut connection = RawConnection::open(&addresses[0]).await;
    assert_eq!(connection.request("sl", "s", "0 1048577 30").await, "error");
    assert!(connection.request("sl", "s", "0 1048576 30").await.starts_with("ok "));
}

#[tokio::test]
async fn fact_9_a_connection_accepts_one_ref_even_late() {
    let (_cluster, addresses) = start(Server::builder()).await;
    for address in &addresses[..2] {
        let longest = "r".repeat(64);
        let mut connection = RawConnection::open(address).await;
        for bad in ["", "a b", "ä", &"r".repeat(65), "a\u{7f}b"] {
            assert_eq!(connection.request("stable-ref", bad, "").await, "error", "{bad:?}");
        }
        connection.request("l", "k", "0 30").await;
        assert_eq!(connection.request("stable-ref", &longest, "_").await, "ok");
        assert_eq!(connection.request("stable-ref", &longest, "").await, "error", "once");
        assert_eq!(connection.request("ping", "_", "_").await, "ok");
    }
}

#[tokio::test]
async fn fact_11_a_fence_that_cannot_be_persisted_is_an_error() {
    let (cluster, addresses) = start(Server::builder()).await;
    let mut connection = RawConnection::open(&addresses[0]).await;
    cluster.fails_to_persist(true);
    assert_eq!(connection.request("l", "k", "0 30").await, "error");
    cluster.fails_to_persist(false);
    assert!(connection.request("l", "k", "0 30").await.starts_with("ok "));
}

#[tokio::test]
async fn fact_13_an_unnoticed_disconnect_leaves_the_old_waiter_ahead_of_its_session() {
    let (cluster, addresses) = start(patient()).await;
    let mut holder = RawConnection::open(&addresses[0]).await;
    let held = token(&holder.request("l", "k", "0 300").await);
    let mut first = session(&addresses[0], "mine").await;
    wait_at(&cluster, &mut first, "k").await;
    cluster.overlooks_ends(true);
    drop(first);
    let mut again = session(&addresses[0], "mine").await;
    wait_at(&cluster, &mut again, "k").await;
    assert_eq!(waiters(&cluster), 2);
    assert_eq!(holder.request("r", "k", &held).await, "ok");
    assert_eq!(again.hear(Duration::from_millis(20)).await, Heard::Nothing);
    // If the server sees that a connection has ended while a request blocks on it, the waiter of this request leaves
    // the queue. An orphan TTL does not change this.
    cluster.overlooks_ends(false);
    drop(again);
    until("the waiter has left the queue", || {
        count(&cluster, EventKind::Left) == 1
    })
    .await;
}

#[tokio::test]
async fn fact_14_sessions_reclaim_the_grants_of_a_dead_leader_without_time_for_orphans() {
    let (cluster, addresses) = start(Server::builder()).await;
    let mut first = session(&addresses[0], "mine").await;
    let held = token(&first.request("l", "k", "0 300").await);
    cluster.stop(0).await.unwrap();
    cluster.move_leader(1).unwrap();
    let mut again = session(&addresses[1], "mine").await;
    assert_eq!(token(&again.request("l", "k", "0 300").await), held);
    // If a leader sees a connection end, it keeps the grant of this connection only for the orphan TTL. The connection
    // needs no ref for that.
    let (_cluster, addresses) = start(patient()).await;
    let mut gone = RawConnection::open(&addresses[0]).await;
    gone.request("l", "k", "0 300").await;
    gone.hang_up().await;
    let mut other = RawConnection::open(&addresses[0]).await;
    assert_eq!(other.request("l", "k", "0 300").await, "timeout");
}

#[tokio::test]
async fn fact_15_idle_connections_stay_unless_a_switch_says_otherwise() {
    let options = Server::builder().read_timeout(Duration::from_millis(50));
    for closes in [false, true] {
        let builder = Cluster::builder().options(options.clone());
        let cluster = builder.closes_idle_connections(closes).start().await.unwrap();
        let mut idle = RawConnection::open(&cluster.addresses()[0]).await;
        assert_eq!(idle.request("ping", "_", "_").await, "ok");
        let mut slow = RawConnection::open(&cluster.addresses()[0]).await;
        slow.send("ping\n_").await;
        // The read timeout always applies to a request that has begun.
        assert_eq!(slow.hear(SOON).await, line("error"));
        match closes {
            true => assert_eq!(idle.hear(SOON).await, line("error")),
            false => assert_eq!(idle.hear(Duration::from_millis(200)).await, Heard::Nothing),
        }
    }
}

#[tokio::test]
async fn fact_16_a_disconnect_that_the_leader_sees_frees_its_key_at_once() {
    let (cluster, addresses) = start(Server::builder().record_events(true)).await;
    let mut gone = session(&addresses[0], "mine").await;
    gone.request("l", "k", "0 300").await;
    gone.hang_up().await;
    let mut other = RawConnection::open(&addresses[0]).await;
    assert!(other.request("l", "k", "0 300").await.starts_with("ok "));
    assert_eq!(count(&cluster, EventKind::Disconnected), 1);
}

#[tokio::test]
async fn fact_17_a_deposed_leader_does_not_end_its_waits() {
    let (cluster, addresses) = recorded(|builder| builder).await;
    let mut holder = RawConnection::open(&addresses[0]).await;
    let held = token(&holder.request("l", "k", "0 300").await);
    let mut granted = RawConnection::open(&addresses[0]).await;
    wait_at(&cluster, &mut granted, "k").await;
    let mut late = RawConnection::open(&addresses[0]).await;
    late.send("l\nk\n1 300\n").await;
    until("both wait", || waiters(&cluster) == 2).await;
    cluster.move_leader(1).unwrap();
    assert_eq!(late.hear(SOON).await, line("timeout"));
    assert_eq!(waiters(&cluster), 2, "the timeout did not end its queue position");
    assert_eq!(granted.hear(Duration::from_millis(20)).await, Heard::Nothing);
    let mut second = RawConnection::open(&addresses[1]).await;
    assert_eq!(second.request("r", "k", &held).await, "ok");
    assert!(matches!(granted.hear(SOON).await, Heard::Line(line) if line.starts_with("ok ")));
}

#[tokio::test]
async fn fact_18_an_orderly_shutdown_ends_waits_and_then_closes_connections() {
    let (cluster, addresses) = start(Server::builder().record_events(true)).await;
    let mut holder = RawConnection::open(&addresses[0]).await;
    holder.request("l", "k", "0 300").await;
    let mut waits = RawConnection::open(&addresses[0]).await;
    wait_at(&cluster, &mut waits, "k").await;
    let clients = async {
        assert_eq!(waits.hear(SOON).await, line("error"));
        assert_eq!(count(&cluster, EventKind::Left), 1);
        assert_eq!(waits.request("ping", "_", "_").await, "error_draining");
        assert_eq!(waits.hear(SOON).await, Heard::Closed);
        assert_eq!(
            cluster.leader(),
            Some(0),
            "the member leads until its connections are gone"
        );
        drop(holder);
    };
    let (stopped, ()) = tokio::join!(cluster.shutdown(0), clients);
    stopped.unwrap();
    assert_eq!(
        count(&cluster, EventKind::Disconnected),
        1,
        "the end of its connection released the key"
    );
    assert_eq!(cluster.leader(), None);
    // After the shutdown timeout, the server closes the connections that are still open.
    let options = Server::builder().shutdown_timeout(Duration::from_millis(20));
    let (cluster, addresses) = start(options).await;
    let mut stays = RawConnection::open(&addresses[0]).await;
    stays.request("l", "k", "0 300").await;
    cluster.shutdown(0).await.unwrap();
    assert_eq!(stays.hear(SOON).await, Heard::Closed);
    assert!(cluster.stats().locks.is_empty());
}

#[tokio::test]
async fn fact_19_a_renewal_of_an_unknown_token_is_an_entry_of_the_log() {
    let (_cluster, addresses) = start(Server::builder()).await;
    let mut connection = RawConnection::open(&addresses[0]).await;
    let before = entries(&connection.request("stats", "_", "_").await);
    connection.request("ping", "_", "_").await;
    let nothing = format!("{} 30", "0".repeat(32));
    assert_eq!(connection.request("n", "k", &nothing).await, "error");
    assert_eq!(entries(&connection.request("stats", "_", "_").await), before + 1);
}

#[tokio::test]
async fn fact_20_a_leader_without_a_majority_hangs_and_still_thinks_that_it_leads() {
    let options = Server::builder().read_timeout(Duration::from_millis(100));
    let (cluster, addresses) = start(options).await;
    let mut old = RawConnection::open(&addresses[0]).await;
    let held = token(&old.request("l", "k", "0 300").await);
    cluster.isolate(0).unwrap();
    assert!(cluster.move_leader(0).is_err());
    cluster.move_leader(1).unwrap();
    let mut new = RawConnection::open(&addresses[1]).await;
    for connection in [&mut old, &mut new] {
        let stats = connection.request("stats", "_", "_").await;
        assert!(stats.contains(r#""role":"leader""#), "{stats}");
    }
    for (command, argument) in [("n", format!("{held} 30")), ("r", held.clone()), ("e", "30".to_owned())] {
        assert_eq!(old.request(command, "k", &argument).await, "error", "{command}");
    }
    assert_eq!(
        new.request("n", "k", &format!("{held} 300")).await,
        "ok 300",
        "no request was committed"
    );
    old.send(&format!("n\nk\n{held} 30\n")).await;
    cluster.rejoin(0).unwrap();
    assert!(matches!(old.hear(SOON).await, Heard::Line(line) if line.starts_with("error")));
    assert_eq!(old.request("barrier", "_", "").await, not_leader(&addresses[1]));
}

#[tokio::test]
async fn fact_21_without_auto_release_leases_outlive_their_connections() {
    let options = Server::builder().auto_release_on_disconnect(false);
    let (_cluster, addresses) = start(options).await;
    let mut gone = RawConnection::open(&addresses[0]).await;
    let held = token(&gone.request("l", "k", "0 300").await);
    gone.hang_up().await;
    let mut other = RawConnection::open(&addresses[0]).await;
    assert_eq!(other.request("l", "k", "0 300").await, "timeout");
    assert_eq!(other.request("r", "k", &held).await, "ok");
}

#[tokio::test]
async fn fact_22_earlier_builds_reclaim_nothing_and_a_try_leaves_a_queue_position_behind() {
    let (cluster, addresses) = recorded(|builder| builder.earlier_builds(true)).await;
    let mut first = session(&addresses[0], "mine").await;
    first.request("l", "k", "0 300").await;
    let mut waits = RawConnection::open(&addresses[0]).await;
    assert_eq!(waits.request("l", "k", "0 300").await, "timeout");
    assert_eq!(waiters(&cluster), 1, "the queue position of the try is still there");
    cluster.move_leader(1).unwrap();
    let mut again = session(&addresses[1], "mine").await;
    assert_eq!(
        again.request("l", "k", "0 300").await,
        "timeout",
        "earlier builds reclaim nothing"
    );
}

#[tokio::test]
async fn fact_23_a_member_that_leads_again_knows_its_connections() {
    let (cluster, addresses) = recorded(|builder| builder).await;
    let mut first = RawConnection::open(&addresses[0]).await;
    first.request("l", "k", "0 300").await;
    cluster.move_leader(1).unwrap();
    cluster.move_leader(0).unwrap();
    first.hang_up().await;
    let mut other = RawConnection::open(&addresses[0]).await;
    assert!(other.request("l", "k", "0 300").await.starts_with("ok "));
    assert_eq!(count(&cluster, EventKind::Disconnected), 1);
}
