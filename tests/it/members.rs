//! `Shard::cluster` on servers that are not members of a cluster, or of different ones: an error before anything is
//! granted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::cluster::{ClusterScene, KEPT, patient, soon, until_served_by};
use crate::support::fake::FakeServer;
use crate::support::recorder::Recorded;
use crate::support::spans::Spans;
use crate::support::until;
use dflockd_client::server::{Cluster, Server};
use dflockd_client::{Client, ClientBuilder, Error, ErrorKind, LeaseState, Shard};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

/// A server of that release that stands alone.
async fn alone(release: &str) -> (Server, String) {
    let builder = Server::builder().release(release);
    let server = builder.port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    (server, address)
}

fn of<const N: usize>(members: [&str; N]) -> ClientBuilder {
    let shard = Shard::cluster(members).orphan_ttl(KEPT);
    Client::builder().shards([shard]).reconnect(soon())
}

/// It says which server is meant, what is wrong, and what to do. The server is one of `members`.
fn is_no_member(error: &Error, members: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Connect, "{text}");
    assert!(error.is_fatal() && !error.is_retryable(), "{text}");
    assert!(members.contains(&error.endpoint().unwrap()), "{text}");
    for part in [
        "no member of a cluster",
        "Shard::single",
        "Shard::standby",
        error.endpoint().unwrap(),
    ] {
        assert!(text.contains(part), "{text} without {part}");
    }
}

/// How many attempts to make the pipelined connection had that outcome.
fn attempts(recorded: &Recorded, outcome: &str) -> f64 {
    recorded.value("connects_total", &[("kind", "pipelined"), ("outcome", outcome)])
}

/// Two processes that name two independent servers in different orders would each hold the key.
#[tokio::test]
async fn servers_that_are_no_cluster_are_refused_in_whatever_order_they_are_given() {
    for release in ["1.10", "1.16", "2.1", "cluster"] {
        let (x, at_x) = alone(release).await;
        let (y, at_y) = alone(release).await;
        let (at_x, at_y) = (at_x.as_str(), at_y.as_str());
        for members in [[at_x, at_y], [at_y, at_x]] {
            let error = timeout(LONG, of(members).connect()).await.unwrap().unwrap_err();
            is_no_member(&error, &members);
            // Callers are told at once, not when their time is over.
            let client = of(members).acquire_timeout(LONG * 10).build().unwrap();
            let lock = client.lock("k").unwrap();
            let error = timeout(LONG, lock.acquire()).await.unwrap().unwrap_err();
            is_no_member(&error, &members);
            let slot = client.semaphore("s", 2).unwrap();
            is_no_member(&slot.try_acquire().await.unwrap_err(), &members);
            is_no_member(&lock.enqueue().await.unwrap_err(), &members);
        }
        for server in [x, y] {
            let stats = server.stats();
            assert!(stats.locks.is_empty() && stats.idle_locks.is_empty(), "{stats:?}");
        }
    }
}

#[tokio::test]
async fn nor_is_one_server_a_cluster_of_one() {
    let (_server, address) = alone("cluster").await;
    let error = of([address.as_str()]).connect().await.unwrap_err();
    is_no_member(&error, &[&address]);
    // In a cluster of one member it is.
    let cluster = Cluster::builder().members(1).start().await.unwrap();
    let client = of([cluster.addresses()[0].as_str()]).connect().await.unwrap();
    assert!(client.lock("k").unwrap().acquire().await.unwrap().is_held());
}

#[cfg(feature = "blocking")]
#[test]
fn threads_are_told_as_well() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_server, address) = runtime.block_on(alone("2.1"));
    let error = of([address.as_str()]).connect_blocking().unwrap_err();
    is_no_member(&error, &[&address]);
}

/// A server that stands alone among the addresses of a cluster is never used, wherever it stands in the list.
#[tokio::test]
async fn a_server_among_members_that_is_none_is_passed_over() {
    let scene = ClusterScene::set(patient()).await;
    let (stranger, at) = alone("cluster").await;
    let members = scene.cluster.addresses();
    let recorded = Recorded::default();
    let builder = of([at.as_str(), members[0].as_str(), members[1].as_str()]);
    let client = builder.metrics_recorder(recorded.clone()).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    // The leader dies, and for a while there is none: the other would grant everything.
    scene.cluster.stop(0).await.unwrap();
    let lock = client.lock("another").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await });
    let before = attempts(&recorded, "not_leader");
    until("all were asked, in turn", || {
        attempts(&recorded, "not_leader") >= before + 2.0
    })
    .await;
    scene.cluster.move_leader(1).unwrap();
    until_served_by(&client, &members[1]).await;
    let another = timeout(LONG, waiting).await.unwrap().unwrap().unwrap();
    until("it is renewed", || guard.state() == LeaseState::Held).await;
    assert!(another.is_held());
    let stats = stranger.stats();
    assert!(stats.locks.is_empty() && stats.idle_locks.is_empty(), "{stats:?}");
    scene.judge();
}

#[tokio::test]
async fn a_member_in_whose_place_another_server_stands_is_not_used() {
    let scene = ClusterScene::set(patient()).await;
    let members = scene.cluster.addresses();
    let recorded = Recorded::default();
    let client = scene
        .builder()
        .metrics_recorder(recorded.clone())
        .connect()
        .await
        .unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    scene.cluster.stop(0).await.unwrap();
    let port = members[0].rsplit(':').next().unwrap().parse().unwrap();
    let impostor = Server::builder().release("cluster").port(port).start().await.unwrap();
    // The others say that they do not lead.
    let before = attempts(&recorded, "connect");
    until("it was asked", || attempts(&recorded, "connect") >= before + 2.0).await;
    scene.cluster.move_leader(2).unwrap();
    until_served_by(&client, &members[2]).await;
    until("it is renewed", || guard.state() == LeaseState::Held).await;
    guard.release().await.unwrap();
    let stats = impostor.stats();
    assert!(stats.locks.is_empty() && stats.idle_locks.is_empty(), "{stats:?}");
}

/// What a fake server answers; what is not here is answered `ok`. `-` closes the connection instead.
type Script = BTreeMap<&'static str, &'static str>;

const MEMBER: &str = r#"ok {"cluster":{"node_id":"n1","voters":["n1"]}}"#;
const ALONE: &str = r#"ok {"connections":1}"#;

/// Renewals of nothing are refused as by a leader, or by a server alone.
fn script<const N: usize>(more: [(&'static str, &'static str); N]) -> Script {
    let mut script = Script::from([("n", "error"), ("l", "ok 00000000000000070123456789abcdef 30")]);
    script.extend(more);
    script
}

struct Fake {
    server: FakeServer,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Fake {
    async fn start(script: Script) -> Self {
        let asked = Arc::new(Mutex::new(BTreeMap::new()));
        let server = FakeServer::start({
            let asked = Arc::clone(&asked);
            move |mut connection, _| {
                let (script, asked) = (script.clone(), Arc::clone(&asked));
                async move {
                    while let Some([command, ..]) = connection.request().await {
                        *asked.lock().unwrap().entry(command.clone()).or_default() += 1;
                        match *script.get(command.as_str()).unwrap_or(&"ok") {
                            "-" => return,
                            "long" => connection.say(&format!("ok {{{}\n", " ".repeat(1 << 20))).await,
                            // As the oldest answer what they do not know.
                            "error-" => return connection.say("error\n").await,
                            answer => connection.say(&format!("{answer}\n")).await,
                        }
                    }
                }
            }
        })
        .await;
        Self { server, asked }
    }

    fn builder(&self) -> ClientBuilder {
        of([self.server.address.as_str()])
    }

    fn asked(&self, command: &str) -> usize {
        self.asked.lock().unwrap().get(command).copied().unwrap_or_default()
    }
}

#[tokio::test]
async fn whatever_shows_that_a_server_is_a_member_or_none_is_believed() {
    enum Then {
        Used,
        Refused,
        TriedAgain,
    }
    use Then::{Refused, TriedAgain, Used};
    const OLD: [(&str, &str); 2] = [("stable-ref", "error"), ("barrier", "error")];
    const OLDEST: [(&str, &str); 3] = [("ping", "error-"), ("stable-ref", "error-"), ("barrier", "error-")];
    let old = |stats| script([OLD[0], OLD[1], ("stats", stats)]);
    for (what, script, then) in [
        ("a member", script([("stats", MEMBER)]), Used),
        ("a member without sessions", script([("stats", MEMBER), OLD[0]]), Used),
        (
            "a server of a cluster build, alone",
            script([("stats", ALONE)]),
            Refused,
        ),
        ("an earlier server", old(ALONE), Refused),
        ("an earlier server with many keys", old("long"), Refused),
        ("an earlier server without stats", old("error"), Refused),
        (
            "a server that hangs up on all that it does not know",
            script([OLDEST[0], OLDEST[1], OLDEST[2], ("stats", "error-")]),
            Refused,
        ),
        (
            "a server that hangs up without a word",
            script([OLDEST[0], OLDEST[1], OLDEST[2], ("stats", "-")]),
            Refused,
        ),
        // What cannot be told is taken for what the user says.
        ("a member with many keys, or none", script([("stats", "long")]), Used),
        (
            "a member or none, whose stats are none",
            script([("stats", "ok {no")]),
            Used,
        ),
        ("the same without sessions", script([("stats", "long"), OLD[0]]), Used),
        // A connection that breaks says nothing.
        ("a member or none, cut off", script([("stats", "-")]), TriedAgain),
        (
            "the same without sessions",
            script([("stats", "-"), OLD[0]]),
            TriedAgain,
        ),
        ("one that drains", script([("stats", "error_draining")]), TriedAgain),
    ] {
        let fake = Fake::start(script).await;
        let connected = timeout(LONG, fake.builder().connect()).await.unwrap();
        match (connected, then) {
            (Ok(client), Used) => {
                assert!(client.lock("k").unwrap().acquire().await.unwrap().is_held(), "{what}");
            }
            (Err(error), Refused) => is_no_member(&error, &[&fake.server.address]),
            (Err(error), TriedAgain) => assert!(error.is_retryable() && !error.is_fatal(), "{what}: {error}"),
            (Err(error), Used) => panic!("{what}: {error}"),
            (Ok(_), _) => panic!("{what} was used"),
        }
    }
}

/// The answer may be a megabyte long: nobody is asked for it who need not be.
#[tokio::test]
async fn stats_are_asked_for_once_a_pipelined_connection() {
    let fake = Fake::start(script([("stats", MEMBER), ("l", "timeout")])).await;
    let client = fake.builder().connect().await.unwrap();
    let lock = client.lock("k").unwrap().acquire_timeout(Duration::from_millis(200));
    for _ in 0..3 {
        assert_eq!(lock.acquire().await.unwrap_err().kind(), ErrorKind::Timeout);
    }
    assert!(fake.server.accepted() > 1, "there were connections for waits");
    assert_eq!((fake.asked("stats"), client.health()[0].failovers), (1, 0));
}

#[tokio::test]
async fn two_leaders_of_different_clusters_are_told() {
    let spans = Spans::default();
    let _installed = spans.install();
    let member = |voters: &'static str, l: &'static str| {
        Fake::start(script([("stats", voters), ("l", l), ("w", "error_not_enqueued")]))
    };
    let first = member(r#"ok {"cluster":{"node_id":"a1","voters":["a1","a2","a3"]}}"#, "-").await;
    let second = member(
        r#"ok {"cluster":{"node_id":"b1","voters":["b1","b2","b3"]}}"#,
        "timeout",
    )
    .await;
    let (at_first, at_second) = (first.server.address.as_str(), second.server.address.as_str());
    let client = of([at_first, at_second]).connect().await.unwrap();
    // It hangs up, and has not been of use for long enough to be asked first.
    let tried = client.lock("k").unwrap().try_acquire().await.unwrap();
    assert!(tried.is_none(), "the other was asked again");
    until_served_by(&client, at_second).await;
    let line = "two members of this shard belong to different clusters";
    let told = spans.everything();
    assert!(
        told.contains(line) && told.contains(&format!("before={at_first} ")),
        "{told}"
    );
}
