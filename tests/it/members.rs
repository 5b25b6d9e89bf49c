//! `Shard::cluster` with standalone servers or with members of different clusters. The client refuses standalone
//! servers before it acquires anything, and it logs leaders of different clusters.

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

/// Starts a standalone server of this release.
async fn standalone(release: &str) -> (Server, String) {
    let builder = Server::builder().release(release);
    let server = builder.port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    (server, address)
}

fn of<const N: usize>(members: [&str; N]) -> ClientBuilder {
    let shard = Shard::cluster(members).orphan_ttl(KEPT);
    Client::builder().shards([shard]).reconnect(soon())
}

/// Asserts that the error names one of `members`, says that this server is not a member, and says what to do.
fn assert_not_a_member(error: &Error, members: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Connect, "{text}");
    assert!(error.is_fatal() && !error.is_retryable(), "{text}");
    assert!(members.contains(&error.endpoint().unwrap()), "{text}");
    for part in [
        "not a member of a cluster",
        "Shard::single",
        "Shard::standby",
        error.endpoint().unwrap(),
    ] {
        assert!(text.contains(part), "{text} without {part}");
    }
}

/// Returns the number of attempts to make the pipelined connection that had this outcome.
fn attempts(recorded: &Recorded, outcome: &str) -> f64 {
    recorded.value("connects_total", &[("kind", "pipelined"), ("outcome", outcome)])
}

/// Two processes may list two standalone servers in different orders. If each process used the first server of its
/// list, both processes would hold the key.
#[tokio::test]
async fn standalone_servers_are_refused_as_a_cluster_in_any_order() {
    for release in ["1.10", "1.16", "2.1", "cluster"] {
        let (x, at_x) = standalone(release).await;
        let (y, at_y) = standalone(release).await;
        let (at_x, at_y) = (at_x.as_str(), at_y.as_str());
        for members in [[at_x, at_y], [at_y, at_x]] {
            let error = timeout(LONG, of(members).connect()).await.unwrap().unwrap_err();
            assert_not_a_member(&error, &members);
            // The acquire fails at once and does not use up its timeout.
            let client = of(members).acquire_timeout(LONG * 10).build().unwrap();
            let lock = client.lock("k").unwrap();
            let error = timeout(LONG, lock.acquire()).await.unwrap().unwrap_err();
            assert_not_a_member(&error, &members);
            let slot = client.semaphore("s", 2).unwrap();
            assert_not_a_member(&slot.try_acquire().await.unwrap_err(), &members);
            assert_not_a_member(&lock.enqueue().await.unwrap_err(), &members);
        }
        for server in [x, y] {
            let stats = server.stats();
            assert!(stats.locks.is_empty() && stats.idle_locks.is_empty(), "{stats:?}");
        }
    }
}

#[tokio::test]
async fn a_standalone_server_is_not_a_cluster_of_one() {
    let (_server, address) = standalone("cluster").await;
    let error = of([address.as_str()]).connect().await.unwrap_err();
    assert_not_a_member(&error, &[&address]);
    // A cluster of one member is accepted.
    let cluster = Cluster::builder().members(1).start().await.unwrap();
    let client = of([cluster.addresses()[0].as_str()]).connect().await.unwrap();
    assert!(client.lock("k").unwrap().acquire().await.unwrap().is_held());
}

#[cfg(feature = "blocking")]
#[test]
fn threads_get_the_same_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_server, address) = runtime.block_on(standalone("2.1"));
    let error = of([address.as_str()]).connect_blocking().unwrap_err();
    assert_not_a_member(&error, &[&address]);
}

/// The client never uses a standalone server among the addresses of a cluster.
#[tokio::test]
async fn a_standalone_server_among_members_is_never_used() {
    let scene = ClusterScene::set(patient()).await;
    let (standalone, at) = standalone("cluster").await;
    let members = scene.cluster.addresses();
    let recorded = Recorded::default();
    let builder = of([at.as_str(), members[0].as_str(), members[1].as_str()]);
    let client = builder.metrics_recorder(recorded.clone()).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    // The leader stops, and no member leads for a while. The standalone server would grant every request.
    scene.cluster.stop(0).await.unwrap();
    let lock = client.lock("another").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await });
    let before = attempts(&recorded, "not_leader");
    until("both members were tried", || {
        attempts(&recorded, "not_leader") >= before + 2.0
    })
    .await;
    scene.cluster.move_leader(1).unwrap();
    until_served_by(&client, &members[1]).await;
    let another = timeout(LONG, waiting).await.unwrap().unwrap().unwrap();
    until("the lease is renewed", || guard.state() == LeaseState::Held).await;
    assert!(another.is_held());
    let stats = standalone.stats();
    assert!(stats.locks.is_empty() && stats.idle_locks.is_empty(), "{stats:?}");
    scene.judge();
}

#[tokio::test]
async fn a_standalone_server_at_the_address_of_a_member_is_not_used() {
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
    let standalone = Server::builder().release("cluster").port(port).start().await.unwrap();
    // The other members answer that they do not lead, so only attempts at the standalone server have the outcome
    // `connect`.
    let before = attempts(&recorded, "connect");
    until("the standalone server was tried", || {
        attempts(&recorded, "connect") >= before + 2.0
    })
    .await;
    scene.cluster.move_leader(2).unwrap();
    until_served_by(&client, &members[2]).await;
    until("the lease is renewed", || guard.state() == LeaseState::Held).await;
    guard.release().await.unwrap();
    let stats = standalone.stats();
    assert!(stats.locks.is_empty() && stats.idle_locks.is_empty(), "{stats:?}");
}

/// The answers of a fake server, by command. The server answers `ok` to every command that is not in the script. For
/// the answer `-`, the server closes the connection and sends nothing.
type Script = BTreeMap<&'static str, &'static str>;

const MEMBER: &str = r#"ok {"cluster":{"node_id":"n1","voters":["n1"]}}"#;
const STANDALONE: &str = r#"ok {"connections":1}"#;

/// Makes a script that refuses the renewal of an unknown token, as leaders and standalone servers do.
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
                            // The oldest servers answer an unknown command in this way and close the connection.
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
async fn a_server_is_used_unless_it_shows_that_it_is_no_member() {
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
            "a server of a cluster build, standalone",
            script([("stats", STANDALONE)]),
            Refused,
        ),
        ("an earlier server", old(STANDALONE), Refused),
        ("an earlier server with many keys", old("long"), Refused),
        ("an earlier server without stats", old("error"), Refused),
        (
            "a server that hangs up on all that it does not know",
            script([OLDEST[0], OLDEST[1], OLDEST[2], ("stats", "error-")]),
            Refused,
        ),
        (
            "a server that hangs up without an answer",
            script([OLDEST[0], OLDEST[1], OLDEST[2], ("stats", "-")]),
            Refused,
        ),
        // These answers do not show whether the server is a member, so the client trusts the configuration.
        ("a server with many keys", script([("stats", "long")]), Used),
        (
            "a server whose stats are malformed",
            script([("stats", "ok {no")]),
            Used,
        ),
        (
            "a server with many keys and without sessions",
            script([("stats", "long"), OLD[0]]),
            Used,
        ),
        // A broken connection does not show whether the server is a member, so the client tries again.
        (
            "a server that cuts the connection",
            script([("stats", "-")]),
            TriedAgain,
        ),
        (
            "a server that cuts the connection, without sessions",
            script([("stats", "-"), OLD[0]]),
            TriedAgain,
        ),
        ("a draining server", script([("stats", "error_draining")]), TriedAgain),
    ] {
        let fake = Fake::start(script).await;
        let connected = timeout(LONG, fake.builder().connect()).await.unwrap();
        match (connected, then) {
            (Ok(client), Used) => {
                assert!(client.lock("k").unwrap().acquire().await.unwrap().is_held(), "{what}");
            }
            (Err(error), Refused) => assert_not_a_member(&error, &[&fake.server.address]),
            (Err(error), TriedAgain) => assert!(error.is_retryable() && !error.is_fatal(), "{what}: {error}"),
            (Err(error), Used) => panic!("{what}: {error}"),
            (Ok(_), _) => panic!("{what} was used"),
        }
    }
}

/// The answer to `stats` may be 1 MB long, so the client must not request it often.
#[tokio::test]
async fn stats_are_requested_once_for_each_pipelined_connection() {
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
async fn leaders_of_two_different_clusters_are_logged() {
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
    // The first leader closes the connection. The connection lasted less than 1 s, so the client tries the other
    // member first.
    let tried = client.lock("k").unwrap().try_acquire().await.unwrap();
    assert!(tried.is_none(), "the second leader answers");
    until_served_by(&client, at_second).await;
    let line = "two members of this shard belong to different clusters";
    let told = spans.everything();
    assert!(
        told.contains(line) && told.contains(&format!("before={at_first} ")),
        "{told}"
    );
}
