//! Tests of the embedded cluster. The tests use sockets. They show which member answers which request, and what
//! survives a change of leaders. They also show which session recovers the grants and queue positions of an ended
//! connection.

mod facts;
use std::collections::HashMap;
use std::time::Duration;

use crate::support::observed::judge;
use crate::support::raw::{Heard, RawConnection};
use crate::support::until;
use dflockd_client::server::{Cluster, EventKind, Server, ServerBuilder};
use dflockd_client::{ErrorKind, Ttl};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(10);

async fn start(options: ServerBuilder) -> (Cluster, Vec<String>) {
    let cluster = Cluster::builder().options(options).start().await.unwrap();
    let addresses = cluster.addresses();
    (cluster, addresses)
}

/// Options with an orphan TTL that is longer than any test. Orphans are leases and queue positions whose connection has
/// ended.
fn patient() -> ServerBuilder {
    Server::builder()
        .record_events(true)
        .orphan_ttl(Duration::from_secs(600))
}

/// Opens a connection and presents this ref on it.
async fn session(address: &str, reference: &str) -> RawConnection {
    let mut connection = RawConnection::open(address).await;
    assert_eq!(connection.request("stable-ref", reference, "").await, "ok");
    connection
}

/// Returns the token of a grant.
fn token(answer: &str) -> String {
    let mut fields = answer.split(' ');
    match fields.next() {
        Some("ok" | "acquired") => fields.next().expect("a token").to_owned(),
        _ => panic!("{answer:?} is no grant"),
    }
}

fn not_leader(address: &str) -> String {
    format!("error_not_leader {address}")
}

fn line(text: &str) -> Heard {
    Heard::Line(text.to_owned())
}

fn waiters(cluster: &Cluster) -> u64 {
    cluster.stats().locks.iter().map(|lock| lock.waiters).sum()
}

fn count(cluster: &Cluster, kind: EventKind) -> usize {
    cluster.events().iter().filter(|event| event.kind == kind).count()
}

/// Sends a wait for a key and returns when the cluster has queued it.
async fn wait_at(cluster: &Cluster, connection: &mut RawConnection, key: &str) {
    let before = waiters(cluster);
    connection.send(&format!("l\n{key}\n300 300\n")).await;
    until("it waits", || waiters(cluster) == before + 1).await;
}

#[tokio::test]
async fn the_first_member_leads_and_the_others_name_it() {
    let (cluster, addresses) = start(Server::builder()).await;
    assert_eq!((cluster.leader(), addresses.len()), (Some(0), 3));
    let mut leader = RawConnection::open(&addresses[0]).await;
    let mut follower = RawConnection::open(&addresses[2]).await;
    let held = token(&leader.request("l", "k", "0 30").await);
    let moved = not_leader(&addresses[0]);
    for (command, argument) in [
        ("l", "0 30"),
        ("l", "30 30"),
        ("sl", "0 2 30"),
        ("e", "30"),
        ("se", "2 30"),
        ("w", "5"),
        ("sw", "5"),
        ("n", &format!("{held} 30")),
        ("sn", &format!("{held} 30")),
        ("r", &held),
        ("sr", &held),
    ] {
        assert_eq!(
            follower.request(command, "k", argument).await,
            moved,
            "{command} {argument}"
        );
    }
    assert_eq!(follower.request("barrier", "_", "").await, moved);
    // Every member answers a ping. An invalid request gets an error and no redirect.
    assert_eq!(follower.request("ping", "_", "_").await, "ok");
    assert_eq!(follower.request("l", "k", "soon").await, "error");
    assert_eq!(follower.request("signal", "c", "x").await, "error");
    assert_eq!(leader.request("barrier", "_", "").await, "ok");
    assert_eq!(leader.request("r", "k", &held).await, "ok");
}

#[tokio::test]
async fn stats_name_the_leader_and_count_the_connections_of_the_answering_member() {
    let (cluster, addresses) = start(Server::builder()).await;
    let mut leader = RawConnection::open(&addresses[0]).await;
    let mut follower = RawConnection::open(&addresses[1]).await;
    let mut another = RawConnection::open(&addresses[1]).await;
    another.request("ping", "_", "_").await;
    leader.request("l", "k", "0 30").await;
    let asked = [(&mut leader, "leader", "n0", 1), (&mut follower, "follower", "n1", 2)];
    for (connection, role, name, connections) in asked {
        let answer = connection.request("stats", "_", "_").await;
        let stats: serde_json::Value = serde_json::from_str(answer.strip_prefix("ok ").unwrap()).unwrap();
        let expected = serde_json::json!({
            "node_id": name, "role": role, "term": 1, "leader_id": "n0", "leader_addr": addresses[0],
            "commit_index": 1, "last_log_index": 1, "snapshot_index": 0, "voters": ["n0", "n1", "n2"],
        });
        assert_eq!(stats["cluster"], expected);
        assert_eq!(stats["connections"], connections);
        assert_eq!(stats["locks"][0]["key"], "k", "all members share one state");
    }
    assert_eq!(cluster.stats().connections, 3);
    cluster.depose();
    let answer = follower.request("stats", "_", "_").await;
    assert!(
        answer.contains(r#""role":"follower","term":2,"leader_id":"","commit_index""#),
        "{answer}"
    );
    // The stats of a standalone server do not mention a cluster.
    let alone = Server::builder().port(0).start().await.unwrap();
    let mut connection = RawConnection::open(&alone.local_addr().to_string()).await;
    assert!(!connection.request("stats", "_", "_").await.contains("cluster"));
}

#[tokio::test]
async fn without_a_leader_members_name_no_other_member() {
    let (cluster, addresses) = start(Server::builder()).await;
    let mut first = RawConnection::open(&addresses[0]).await;
    let mut waiter = RawConnection::open(&addresses[0]).await;
    let held = token(&first.request("l", "k", "0 30").await);
    wait_at(&cluster, &mut waiter, "k").await;
    cluster.depose();
    assert_eq!(cluster.leader(), None);
    assert_eq!(waiter.hear(Duration::from_millis(20)).await, Heard::Nothing);
    for address in &addresses {
        let mut connection = RawConnection::open(address).await;
        assert_eq!(connection.request("l", "free", "0 30").await, "error_not_leader");
        assert_eq!(connection.request("ping", "_", "_").await, "ok");
    }
    // The same member may lead again.
    cluster.move_leader(0).unwrap();
    assert_eq!(first.request("r", "k", &held).await, "ok");
    assert!(matches!(waiter.hear(SOON).await, Heard::Line(line) if line.starts_with("ok ")));
}

#[tokio::test]
async fn a_deposed_leader_does_not_end_its_waits_and_keeps_their_connections() {
    let (cluster, addresses) = start(Server::builder().record_events(true)).await;
    let mut holder = RawConnection::open(&addresses[0]).await;
    holder.request("l", "k", "0 30").await;
    let mut waiter = RawConnection::open(&addresses[0]).await;
    wait_at(&cluster, &mut waiter, "k").await;
    let mut enqueued = RawConnection::open(&addresses[0]).await;
    assert_eq!(enqueued.request("e", "k", "30").await, "queued");
    cluster.move_leader(1).unwrap();
    assert_eq!(cluster.leader(), Some(1));
    let moved = not_leader(&addresses[1]);
    assert_eq!(waiter.hear(Duration::from_millis(20)).await, Heard::Nothing);
    assert_eq!(enqueued.request("w", "k", "5").await, moved);
    assert_eq!(holder.request("r", "k", &"0".repeat(32)).await, moved);
    // The queue positions stay. A member that leads again knows which connection has which queue position.
    assert_eq!((waiters(&cluster), count(&cluster, EventKind::Left)), (2, 0));
    cluster.move_leader(0).unwrap();
    assert_eq!(enqueued.request("e", "k", "30").await, "error_already_enqueued");
    assert_eq!(enqueued.request("w", "k", "0").await, "timeout");
    assert_eq!(waiters(&cluster), 1);
}

#[tokio::test]
async fn a_thousand_tokens_are_good_with_the_next_leader_and_the_one_after() {
    let (cluster, addresses) = start(Server::builder().record_events(true)).await;
    let mut first = RawConnection::open(&addresses[0]).await;
    let requests: String = (0..1000).map(|n| format!("l\nk{n}\n0 300\n")).collect();
    first.send(&requests).await;
    let mut tokens = Vec::new();
    for _ in 0..1000 {
        let Heard::Line(answer) = first.hear(SOON).await else {
            panic!("all keys are free");
        };
        tokens.push(token(&answer));
    }
    cluster.move_leader(1).unwrap();
    // The tokens stay valid after the end of their connection, and after another connection has tried to acquire the
    // keys.
    first.hang_up().await;
    until("the first connection is gone", || cluster.stats().connections == 0).await;
    let mut second = RawConnection::open(&addresses[1]).await;
    for (n, token) in tokens.iter().enumerate() {
        assert_eq!(second.request("l", &format!("k{n}"), "0 30").await, "timeout");
        assert_eq!(
            second.request("n", &format!("k{n}"), &format!("{token} 300")).await,
            "ok 300"
        );
    }
    cluster.move_leader(2).unwrap();
    let mut third = RawConnection::open(&addresses[2]).await;
    for (n, token) in tokens.iter().enumerate() {
        assert_eq!(third.request("r", &format!("k{n}"), token).await, "ok");
    }
    let verdict = judge(cluster.events());
    assert_eq!((verdict.grants, verdict.held), (1000, 0));
    // The next fence is larger than all earlier fences.
    let next = token(&third.request("l", "k0", "0 30").await);
    assert!(tokens.iter().all(|token| token[..16] < next[..16]));
}

#[tokio::test]
async fn leases_run_on_while_leaders_change() {
    let options = Server::builder()
        .record_events(true)
        .lease_sweep_interval(Duration::from_millis(10));
    let (cluster, addresses) = start(options).await;
    let mut first = RawConnection::open(&addresses[0]).await;
    let started = tokio::time::Instant::now();
    let held = token(&first.request("l", "k", "0 1").await);
    cluster.move_leader(1).unwrap();
    let mut second = RawConnection::open(&addresses[1]).await;
    // The new leader grants the key to the waiter only when the lease ends.
    assert!(second.request("l", "k", "30 30").await.starts_with("ok "));
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(second.request("n", "k", &format!("{held} 30")).await, "error");
    assert_eq!(count(&cluster, EventKind::Expired), 1);
}

#[tokio::test]
async fn a_renewal_makes_its_connection_the_owner() {
    let (cluster, addresses) = start(Server::builder()).await;
    let mut acquired = RawConnection::open(&addresses[0]).await;
    let mut renewed = RawConnection::open(&addresses[0]).await;
    let mut other = RawConnection::open(&addresses[0]).await;
    let held = token(&acquired.request("l", "k", "0 30").await);
    assert_eq!(renewed.request("n", "k", &format!("{held} 30")).await, "ok 30");
    acquired.hang_up().await;
    assert_eq!(other.request("l", "k", "0 30").await, "timeout");
    renewed.hang_up().await;
    assert!(other.request("l", "k", "0 30").await.starts_with("ok "));
    // On a standalone server, the connection that renews a lease does not become its owner.
    let alone = Server::builder().port(0).start().await.unwrap();
    let address = alone.local_addr().to_string();
    let mut acquired = RawConnection::open(&address).await;
    let mut renewed = RawConnection::open(&address).await;
    let held = token(&acquired.request("l", "k", "0 30").await);
    assert_eq!(renewed.request("n", "k", &format!("{held} 30")).await, "ok 30");
    acquired.hang_up().await;
    assert!(renewed.request("l", "k", "0 30").await.starts_with("ok "));
    drop(cluster);
}

#[tokio::test]
async fn standalone_servers_know_barriers_and_refs_if_their_release_does() {
    for (release, answer) in [("2.1", "error"), ("cluster", "ok")] {
        let builder = Server::builder().port(0).release(release);
        let server = builder.orphan_ttl(Duration::from_secs(600)).start().await.unwrap();
        let address = server.local_addr().to_string();
        let mut first = RawConnection::open(&address).await;
        assert_eq!(first.request("barrier", "_", "").await, answer);
        assert_eq!(first.request("stable-ref", "r", "").await, answer);
        let held = token(&first.request("l", "k", "0 300").await);
        first.hang_up().await;
        let mut second = RawConnection::open(&address).await;
        assert_eq!(second.request("stable-ref", "r", "").await, answer);
        let got = token(&second.request("l", "k", "0 300").await);
        assert_ne!(got, held, "single servers keep nothing for a ref");
    }
}

#[tokio::test]
async fn a_session_that_comes_back_under_its_ref_gets_its_grant() {
    let (cluster, addresses) = start(patient()).await;
    for (acquire, argument) in [("l", "0 300"), ("sl", "0 1 300"), ("e", "300"), ("se", "1 300")] {
        let mut first = session(&addresses[0], "mine").await;
        let held = token(&first.request(acquire, "k", argument).await);
        first.hang_up().await;
        // A connection with another ref, or without a ref, does not get the grant.
        let mut stranger = session(&addresses[0], "another").await;
        let mut without_ref = RawConnection::open(&addresses[0]).await;
        let (try_it, refused) = match acquire {
            "l" | "sl" => (argument, "timeout"),
            _ => (argument, "queued"),
        };
        assert_eq!(stranger.request(acquire, "k", try_it).await, refused);
        assert_eq!(without_ref.request(acquire, "k", try_it).await, refused);
        let mut back = session(&addresses[0], "mine").await;
        assert_eq!(token(&back.request(acquire, "k", argument).await), held, "{acquire}");
        // At the next leader, the session also gets its grant back.
        cluster.move_leader(1).unwrap();
        let mut moved = session(&addresses[1], "mine").await;
        assert_eq!(token(&moved.request(acquire, "k", argument).await), held, "{acquire}");
        let release = if acquire.starts_with('s') { "sr" } else { "r" };
        assert_eq!(moved.request(release, "k", &held).await, "ok");
        cluster.move_leader(0).unwrap();
    }
    judge(cluster.events());
}

#[tokio::test]
async fn a_queue_position_outlives_its_connection_and_its_leader() {
    let (cluster, addresses) = start(patient()).await;
    let mut holder = RawConnection::open(&addresses[0]).await;
    let held = token(&holder.request("l", "k", "0 300").await);
    let mut first = session(&addresses[0], "first").await;
    assert_eq!(first.request("e", "k", "300").await, "queued");
    let mut second = session(&addresses[0], "second").await;
    assert_eq!(second.request("e", "k", "300").await, "queued");
    // The first waiter's connection ends, and then the leader changes. A new waiter queues before the two sessions
    // reconnect.
    drop(first);
    until("its queue position is kept", || {
        count(&cluster, EventKind::Orphaned) == 1
    })
    .await;
    cluster.move_leader(2).unwrap();
    let mut newcomer = RawConnection::open(&addresses[2]).await;
    wait_at(&cluster, &mut newcomer, "k").await;
    let mut second = session(&addresses[2], "second").await;
    assert_eq!(second.request("e", "k", "300").await, "queued");
    let mut first = session(&addresses[2], "first").await;
    first.send("l\nk\n300 300\n").await;
    until("both are back", || count(&cluster, EventKind::Reclaimed) == 2).await;
    let mut releases = RawConnection::open(&addresses[2]).await;
    assert_eq!(releases.request("r", "k", &held).await, "ok");
    let Heard::Line(answer) = first.hear(SOON).await else {
        panic!("the first waiter gets the grant");
    };
    assert_eq!(releases.request("r", "k", &token(&answer)).await, "ok");
    let got = second.request("w", "k", "30").await;
    assert_eq!(newcomer.hear(Duration::from_millis(20)).await, Heard::Nothing);
    assert_eq!(releases.request("r", "k", &token(&got)).await, "ok");
    assert!(matches!(newcomer.hear(SOON).await, Heard::Line(line) if line.starts_with("ok ")));
    judge(cluster.events());
}

#[tokio::test]
async fn fifty_waiters_keep_their_order_whichever_comes_back_first() {
    let (cluster, addresses) = start(patient()).await;
    let mut holder = RawConnection::open(&addresses[0]).await;
    let held = token(&holder.request("l", "k", "0 300").await);
    let mut waiting = Vec::new();
    for n in 0..50 {
        let mut connection = session(&addresses[0], &format!("session-{n}")).await;
        wait_at(&cluster, &mut connection, "k").await;
        waiting.push(connection);
    }
    cluster.move_leader(1).unwrap();
    let mut newcomer = RawConnection::open(&addresses[1]).await;
    wait_at(&cluster, &mut newcomer, "k").await;
    let mut back = HashMap::new();
    for n in (0..50).rev() {
        let mut connection = session(&addresses[1], &format!("session-{n}")).await;
        connection.send("l\nk\n300 300\n").await;
        back.insert(n, connection);
    }
    until("all are back", || count(&cluster, EventKind::Reclaimed) == 50).await;
    assert_eq!(waiters(&cluster), 51, "no waiter queued anew");
    let mut releases = RawConnection::open(&addresses[1]).await;
    let mut held = held;
    for n in 0..50 {
        assert_eq!(releases.request("r", "k", &held).await, "ok");
        let Heard::Line(answer) = back.get_mut(&n).unwrap().hear(SOON).await else {
            panic!("waiter {n} is next");
        };
        held = token(&answer);
    }
    assert_eq!(newcomer.hear(Duration::from_millis(20)).await, Heard::Nothing);
    let verdict = judge(cluster.events());
    assert_eq!((verdict.grants, verdict.from_queues), (51, 50));
}

#[tokio::test]
async fn orphans_that_no_session_reclaims_are_given_up() {
    let options = Server::builder()
        .record_events(true)
        .orphan_ttl(Duration::from_millis(300))
        .lease_sweep_interval(Duration::from_millis(10));
    let (cluster, addresses) = start(options).await;
    let mut gone = session(&addresses[0], "gone").await;
    gone.request("l", "held", "0 300").await;
    let mut holder = RawConnection::open(&addresses[0]).await;
    holder.request("l", "k", "0 300").await;
    wait_at(&cluster, &mut gone, "k").await;
    drop(gone);
    let mut next = RawConnection::open(&addresses[0]).await;
    assert!(next.request("l", "held", "30 300").await.starts_with("ok "));
    let events = cluster.events();
    let at = |kind| {
        events
            .iter()
            .find(|event| event.kind == kind)
            .map(|event| event.at)
            .unwrap()
    };
    let kept = at(EventKind::Disconnected).duration_since(at(EventKind::Orphaned));
    assert!(kept >= Duration::from_millis(300), "{kept:?}");
    until("the orphan has left the queue", || waiters(&cluster) == 0).await;
    assert_eq!(count(&cluster, EventKind::Left), 1);
}

#[tokio::test]
async fn a_session_that_was_granted_a_key_in_its_absence_gets_it_when_it_comes_back() {
    let (cluster, addresses) = start(patient()).await;
    let mut holder = RawConnection::open(&addresses[0]).await;
    let held = token(&holder.request("l", "k", "0 300").await);
    let mut gone = session(&addresses[0], "gone").await;
    assert_eq!(gone.request("e", "k", "300").await, "queued");
    let mut next = RawConnection::open(&addresses[0]).await;
    wait_at(&cluster, &mut next, "k").await;
    drop(gone);
    until("its queue position is kept", || {
        count(&cluster, EventKind::Orphaned) == 1
    })
    .await;
    assert_eq!(holder.request("r", "k", &held).await, "ok");
    assert_eq!(
        next.hear(Duration::from_millis(20)).await,
        Heard::Nothing,
        "the absent session is ahead in the queue"
    );
    let mut back = session(&addresses[0], "gone").await;
    let got = token(&back.request("l", "k", "0 300").await);
    assert_eq!(back.request("r", "k", &got).await, "ok");
    assert!(matches!(next.hear(SOON).await, Heard::Line(line) if line.starts_with("ok ")));
}

#[tokio::test]
async fn a_leader_that_knows_no_refs_gives_nothing_back() {
    let (cluster, addresses) = start(patient()).await;
    let mut holder = RawConnection::open(&addresses[0]).await;
    holder.request("l", "k", "0 300").await;
    let mut mine = session(&addresses[0], "mine").await;
    let held = token(&mine.request("l", "held", "0 300").await);
    wait_at(&cluster, &mut mine, "k").await;
    cluster.forgets_refs(true);
    assert_eq!(waiters(&cluster), 1, "only the next leader forgets");
    cluster.move_leader(1).unwrap();
    assert_eq!(waiters(&cluster), 0);
    let mut back = session(&addresses[1], "mine").await;
    assert_eq!(back.request("l", "held", "0 300").await, "timeout");
    assert_eq!(
        back.request("n", "held", &format!("{held} 300")).await,
        "ok 300",
        "the token is still valid"
    );
    // After `forgets_refs(false)`, the next leader knows the refs again.
    cluster.forgets_refs(false);
    cluster.move_leader(2).unwrap();
    let mut back = session(&addresses[2], "mine").await;
    assert_eq!(token(&back.request("l", "held", "0 300").await), held);
}

#[tokio::test]
async fn a_leader_that_knows_no_tokens_grants_held_keys_to_others() {
    let (cluster, addresses) = start(patient()).await;
    let mut mine = session(&addresses[0], "mine").await;
    let held = token(&mine.request("l", "k", "0 300").await);
    let kept = token(&mine.request("l", "kept", "0 300").await);
    let mut waits = session(&addresses[0], "waits").await;
    wait_at(&cluster, &mut waits, "kept").await;
    cluster.forgets_tokens(true);
    cluster.move_leader(1).unwrap();
    let mut other = RawConnection::open(&addresses[1]).await;
    assert_eq!(other.request("n", "k", &format!("{held} 300")).await, "error");
    assert_eq!(other.request("r", "kept", &kept).await, "error");
    let next = token(&other.request("l", "k", "0 300").await);
    assert_ne!(next, held);
    let mut back = session(&addresses[1], "mine").await;
    assert_eq!(back.request("l", "k", "0 300").await, "timeout");
    // The leader still knows refs, and it has granted the key to the queue position of the session `waits`.
    let mut waits = session(&addresses[1], "waits").await;
    token(&waits.request("l", "kept", "0 300").await);
    assert_eq!(count(&cluster, EventKind::Forgotten), 2);
    judge(cluster.events());
    cluster.forgets_tokens(false);
    cluster.move_leader(0).unwrap();
    let mut first = RawConnection::open(&addresses[0]).await;
    assert_eq!(first.request("r", "k", &next).await, "ok");
}

#[tokio::test]
async fn followers_name_the_configured_address() {
    let (cluster, addresses) = start(Server::builder()).await;
    let mut leader = RawConnection::open(&addresses[0]).await;
    let mut second = RawConnection::open(&addresses[1]).await;
    let mut third = RawConnection::open(&addresses[2]).await;
    cluster.redirects_to(Some("stranger.example:6388"));
    assert!(leader.request("l", "k", "0 30").await.starts_with("ok "));
    for connection in [&mut second, &mut third] {
        assert_eq!(
            connection.request("l", "k", "0 30").await,
            not_leader("stranger.example:6388")
        );
    }
    // The redirects form a loop: no member leads, and members 1 and 2 name each other.
    cluster.redirects_to(None);
    cluster.member_redirects_to(1, Some(&addresses[2])).unwrap();
    cluster.member_redirects_to(2, Some(&addresses[1])).unwrap();
    cluster.depose();
    assert_eq!(leader.request("l", "k", "0 30").await, "error_not_leader");
    assert_eq!(second.request("l", "k", "0 30").await, not_leader(&addresses[2]));
    assert_eq!(third.request("l", "k", "0 30").await, not_leader(&addresses[1]));
    cluster.redirects_to(None);
    cluster.move_leader(1).unwrap();
    assert_eq!(third.request("l", "k", "0 30").await, not_leader(&addresses[1]));
}

#[tokio::test]
async fn a_stopped_member_is_gone_at_once_and_comes_back_at_its_address() {
    let (cluster, addresses) = start(patient()).await;
    let mut holder = session(&addresses[0], "holder").await;
    let held = token(&holder.request("l", "k", "0 300").await);
    let mut waiter = session(&addresses[0], "waiter").await;
    wait_at(&cluster, &mut waiter, "k").await;
    let mut follower = RawConnection::open(&addresses[1]).await;
    // If a follower stops, only the connections of this follower are lost.
    cluster.stop(1).await.unwrap();
    assert_eq!(cluster.leader(), Some(0));
    assert_eq!(follower.hear(SOON).await, Heard::Closed);
    assert!(TcpStream::connect(&addresses[1]).await.is_err());
    // If the leader stops, no other member leads. A stopped member answers no request.
    cluster.stop(0).await.unwrap();
    assert_eq!(cluster.leader(), None);
    assert_eq!(cluster.stats().connections, 0);
    assert_eq!(holder.hear(SOON).await, Heard::Closed);
    assert_eq!(waiter.hear(SOON).await, Heard::Closed);
    assert!(TcpStream::connect(&addresses[0]).await.is_err());
    let mut third = RawConnection::open(&addresses[2]).await;
    assert_eq!(third.request("l", "free", "0 30").await, "error_not_leader");
    cluster.stop(0).await.unwrap();
    // The cluster still has the lease of the holder and the queue position of the waiter.
    cluster.move_leader(2).unwrap();
    assert_eq!(third.request("l", "k", "0 30").await, "timeout");
    cluster.start(0).await.unwrap();
    cluster.start(0).await.unwrap();
    assert_eq!(cluster.addresses(), addresses);
    let mut again = session(&addresses[0], "holder").await;
    assert_eq!(again.request("l", "k", "0 300").await, not_leader(&addresses[2]));
    cluster.move_leader(0).unwrap();
    let mut again = session(&addresses[0], "holder").await;
    assert_eq!(token(&again.request("l", "k", "0 300").await), held);
    let mut waiter = session(&addresses[0], "waiter").await;
    waiter.send("l\nk\n300 300\n").await;
    until("the waiter has its queue position again", || {
        count(&cluster, EventKind::Reclaimed) == 2
    })
    .await;
    assert_eq!(again.request("r", "k", &held).await, "ok");
    assert!(matches!(waiter.hear(SOON).await, Heard::Line(line) if line.starts_with("ok ")));
    judge(cluster.events());
}

/// Without the reservation, the system could give the port to another connection of this machine. The member could then
/// not start again.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_port_of_a_stopped_member_stays_reserved() {
    let (cluster, addresses) = start(Server::builder()).await;
    cluster.stop(1).await.unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let address: std::net::SocketAddr = addresses[1].parse().unwrap();
    let error = socket.bind(&address.into()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    for _ in 0..20 {
        cluster.start(1).await.unwrap();
        let mut connection = RawConnection::open(&addresses[1]).await;
        assert_eq!(connection.request("ping", "_", "_").await, "ok");
        cluster.stop(1).await.unwrap();
        assert!(TcpStream::connect(&addresses[1]).await.is_err());
    }
}

#[tokio::test]
async fn calls_about_unknown_or_stopped_members_are_refused() {
    let (cluster, _) = start(Server::builder()).await;
    let invalid = |result: dflockd_client::Result<()>, said: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(said), "{error}");
    };
    invalid(cluster.move_leader(3), "there are 3");
    invalid(cluster.stop(3).await, "there are 3");
    invalid(cluster.start(3).await, "there are 3");
    invalid(cluster.member_redirects_to(3, None), "there are 3");
    cluster.stop(1).await.unwrap();
    invalid(cluster.move_leader(1), "stopped");
    assert_eq!(cluster.leader(), Some(0));
    let without_members = Cluster::builder().members(0).start().await.unwrap_err();
    assert_eq!(without_members.kind(), ErrorKind::InvalidInput);
    let five = Cluster::builder().members(5).start().await.unwrap();
    five.move_leader(4).unwrap();
    assert_eq!((five.addresses().len(), five.leader()), (5, Some(4)));
}

#[tokio::test]
async fn options_apply_to_each_member_and_to_the_common_state() {
    let options = Server::builder()
        .auth_token("s3cret")
        .max_locks(2)
        .default_lease_ttl(Ttl::from_secs(7).unwrap())
        .max_connections(2);
    let (cluster, addresses) = start(options).await;
    for address in &addresses {
        let mut stranger = RawConnection::open(address).await;
        assert_eq!(stranger.request("stable-ref", "r", "").await, "error_auth");
        assert_eq!(stranger.hear(SOON).await, Heard::Closed);
    }
    let mut leader = RawConnection::open(&addresses[0]).await;
    assert_eq!(leader.request("auth", "_", "s3cret").await, "ok");
    assert_eq!(leader.request("stable-ref", "r", "").await, "ok");
    assert!(leader.request("l", "a", "0").await.ends_with(" 7"));
    assert!(leader.request("l", "b", "0").await.ends_with(" 7"));
    assert_eq!(leader.request("l", "c", "0").await, "error_max_locks");
    cluster.move_leader(1).unwrap();
    let mut next = RawConnection::open(&addresses[1]).await;
    assert_eq!(next.request("auth", "_", "s3cret").await, "ok");
    assert_eq!(
        next.request("l", "c", "0").await,
        "error_max_locks",
        "all members share one state"
    );
    let _second = RawConnection::open(&addresses[1]).await;
    until("both are counted", || cluster.stats().connections == 3).await;
    let mut third = RawConnection::open(&addresses[1]).await;
    assert_eq!(third.hear(SOON).await, Heard::Closed);
}

#[tokio::test]
async fn a_dropped_cluster_is_gone_at_once() {
    let (cluster, addresses) = start(Server::builder()).await;
    let mut connections = Vec::new();
    for address in &addresses {
        let mut connection = RawConnection::open(address).await;
        assert_eq!(connection.request("ping", "_", "_").await, "ok");
        connections.push(connection);
    }
    drop(cluster);
    for mut connection in connections {
        assert_eq!(connection.hear(SOON).await, Heard::Closed);
    }
}
