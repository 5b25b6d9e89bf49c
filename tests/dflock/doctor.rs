//! `dflock doctor`: its findings about sound servers and faulty ones.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dflockd_client::server::{Cluster, Event, EventKind, Server, ServerBuilder};
use dflockd_client::{Client, Shard};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::pty::Terminal;
use crate::support::fake::FakeServer;
use crate::support::old::OldServer;
use crate::support::pki::{self, Authority, Folder, HERE, Identity};
use crate::support::until;
use crate::tool::{Running, code, dflock, output, text};

/// The output of `--json`, and the exit code.
struct Diagnosis {
    exit: i32,
    told: Value,
}

impl Diagnosis {
    /// Examines servers.
    async fn of(servers: &str, more: &[&str]) -> Self {
        let arguments = [&["doctor", "--json", "--servers", servers], more].concat();
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        Self::told_by(arguments, None).await
    }

    async fn with_auth_token(servers: &str, token: &str) -> Self {
        let arguments = ["doctor", "--json", "--servers", servers].map(str::to_owned);
        Self::told_by(arguments.to_vec(), Some(token.to_owned())).await
    }

    /// Runs `dflock`, and asserts that its output does not contain the auth token.
    async fn told_by(arguments: Vec<String>, token: Option<String>) -> Self {
        let ended = tokio::task::spawn_blocking(move || {
            let mut command = dflock();
            command
                .args(arguments)
                .envs(token.as_ref().map(|token| ("DFLOCKD_AUTH_TOKEN", token)));
            let ended = command.output().unwrap();
            let all = text(&ended.stdout) + &text(&ended.stderr);
            assert!(token.is_none_or(|token| !all.contains(&token)), "{all}");
            ended
        });
        let ended = ended.await.unwrap();
        let exit = code(&ended);
        let told: Value = serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        assert_eq!(told["exit"], exit);
        Self { exit, told }
    }

    fn server(&self, number: usize, check: &str) -> &Value {
        let checks = self.told["servers"][number]["checks"].as_array().unwrap();
        checks.iter().find(|finding| finding["check"] == check).unwrap()
    }

    fn verdicts(&self, number: usize) -> Vec<(&str, &str)> {
        let checks = self.told["servers"][number]["checks"].as_array().unwrap();
        checks
            .iter()
            .map(|finding| (finding["check"].as_str().unwrap(), finding["verdict"].as_str().unwrap()))
            .collect()
    }

    /// Asserts that this check failed with these words, and that no later check was made.
    fn assert_ends_at(&self, check: &str, exit: i32, said: &str) {
        let verdicts = self.verdicts(0);
        let place = verdicts.iter().position(|(name, _)| *name == check).unwrap();
        assert_eq!(verdicts[place].1, "fail", "{verdicts:?}");
        assert!(
            verdicts[..place]
                .iter()
                .all(|(_, verdict)| ["ok", "skip"].contains(verdict)),
            "{verdicts:?}"
        );
        assert!(
            verdicts[place + 1..].iter().all(|(_, verdict)| *verdict == "skip"),
            "{verdicts:?}"
        );
        let finding = self.server(0, check);
        let what = finding["what"].as_str().unwrap();
        assert!(what.contains(said), "{said}: {what}");
        assert!(finding["do"].is_string(), "{finding}");
        assert_eq!(self.exit, exit, "{what}");
    }
}

async fn start(builder: ServerBuilder) -> (Server, String) {
    let server = builder.port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    (server, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_server_is_reported_as_ok_and_keeps_no_lease() {
    let builder = Server::builder().auto_release_on_disconnect(false).record_events(true);
    let (server, address) = start(builder).await;
    let found = Diagnosis::of(&address, &["--max-locks", "1024", "--timeout", "30s"]).await;
    assert!(server.stats().locks.is_empty(), "the throw-away lock is given back");
    let of_event = |kind: EventKind| {
        server
            .events()
            .iter()
            .filter(|event: &&Event| event.kind == kind)
            .count()
    };
    assert_eq!(of_event(EventKind::Granted), 2);
    assert_eq!(found.exit, 0, "{}", found.told);
    let names = found
        .verdicts(0)
        .into_iter()
        .map(|(check, _)| check)
        .collect::<Vec<_>>();
    assert_eq!(
        names,
        [
            "resolve", "connect", "tls", "auth", "release", "lease", "latency", "limits", "cluster"
        ]
    );
    for (check, verdict) in found.verdicts(0) {
        // A machine that runs many tests may be slow, so the verdict on the latency is open.
        if check != "latency" {
            assert_eq!(
                verdict,
                if check == "tls" { "skip" } else { "ok" },
                "{check}: {}",
                found.told
            );
        }
    }
    assert_eq!(found.server(0, "release")["facts"]["releases"], "2.0 or 2.1");
    let lease = &found.server(0, "lease")["facts"];
    assert_eq!(lease["fences"], true);
    assert!(
        lease["least_s"].as_f64().unwrap() <= 2.0 && lease["most_s"].as_f64().unwrap() >= 2.0,
        "{lease}"
    );
    let limits = &found.server(0, "limits")["facts"];
    assert_eq!(
        (&limits["keys"], &limits["max_locks"]),
        (&json!(0), &json!(1024)),
        "{limits}"
    );
    let latency = &found.server(0, "latency")["facts"];
    assert_eq!(latency["requests"], 50);
    assert!(latency["p50_us"].as_u64() <= latency["p99_us"].as_u64(), "{latency}");
    assert_eq!(found.told["shards"], json!([]));
    assert_eq!(found.told["servers"][0]["server"], *address);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auth_token_that_is_wrong_missing_or_not_wanted_is_reported_and_not_shown() {
    let (_server, guarded) = start(Server::builder().auth_token("sesame-1")).await;
    Diagnosis::with_auth_token(&guarded, "wrong-token")
        .await
        .assert_ends_at("auth", 77, "refused the authentication token");
    Diagnosis::of(&guarded, &[]).await.assert_ends_at("auth", 77, "auth");
    let right = Diagnosis::with_auth_token(&guarded, "sesame-1").await;
    assert_eq!(
        (right.exit, &right.server(0, "auth")["facts"]["has_auth_token"]),
        (0, &json!(true))
    );
    let (_server, open) = start(Server::builder()).await;
    Diagnosis::with_auth_token(&open, "wrong-token")
        .await
        .assert_ends_at("auth", 77, "started without one");
    let nowhere = ["--set", "auth_token_file=/nowhere/token"];
    Diagnosis::of(&open, &nowhere)
        .await
        .assert_ends_at("auth", 77, "/nowhere/token");
}

/// Starts a server with this certificate, and examines it.
async fn presented(folder: &Folder, authority: &Authority, identity: &Identity) -> (Server, Diagnosis) {
    let server = pki::serve(Server::builder(), identity).await;
    let trusted = trust(&folder.write("ca.pem", &authority.pem()));
    let found = Diagnosis::of(
        &server.local_addr().to_string(),
        &["--set", "tls=true", "--set", &trusted],
    )
    .await;
    (server, found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_reported_with_their_faults() {
    let folder = Folder::new();
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let (_server, right) = presented(&folder, &ours, &ours.issue(HERE)).await;
    let tls = right.server(0, "tls");
    assert_eq!((right.exit, &tls["verdict"]), (0, &json!("ok")), "{tls}");
    let facts = &tls["facts"];
    assert!(facts["days_left"].as_i64().unwrap() > 1000, "{facts}");
    let mut names: Vec<&str> = facts["names"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    names.sort_unstable();
    assert_eq!((names.as_slice(), &facts["chain"]), (HERE, &json!(1)), "{facts}");
    for (identity, said) in [
        (ours.expired(HERE), "certificate expired"),
        (ours.not_valid_yet(HERE), "not valid yet"),
        (ours.issue(&["elsewhere.example"]), "elsewhere.example"),
        (others.issue(HERE), "unknown issuer"),
    ] {
        let (_server, found) = presented(&folder, &ours, &identity).await;
        found.assert_ends_at("tls", 76, said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_on_one_side_only_is_reported() {
    let (_plain, address) = start(Server::builder()).await;
    let folder = Folder::new();
    let authority = Authority::new("ours");
    let trusted = folder.write("ca.pem", &authority.pem());
    let settings = trust(&trusted);
    let arguments = ["--timeout", "1s", "--set", "tls=true", "--set", &settings];
    let found = Diagnosis::of(&address, &arguments).await;
    let tls = found.server(0, "tls");
    let what = tls["what"].as_str().unwrap();
    // A handshake has random bytes, and a request has three lines. If the bytes have three line ends, the server
    // answers. Otherwise it waits for the rest of a request.
    let is_known = what.contains("does not speak TLS") && found.exit == 76;
    let is_silent = what == "no answer within 1s" && found.exit == 69;
    assert!(is_known || is_silent, "{tls}");
    assert_eq!(
        (&tls["verdict"], &found.server(0, "auth")["verdict"]),
        (&json!("fail"), &json!("skip"))
    );
    let secure = pki::serve(Server::builder(), &authority.issue(HERE)).await;
    let address = secure.local_addr().to_string();
    let found = Diagnosis::of(&address, &[]).await;
    let auth = found.server(0, "auth");
    assert_eq!(auth["verdict"], "fail");
    assert!(auth["do"].as_str().unwrap().contains("expects TLS"), "{auth}");
}

fn trust(path: &Path) -> String {
    format!("tls_ca_file={}", path.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_server_is_reported_with_the_step() {
    Diagnosis::of("127.0.0.1:1", &[])
        .await
        .assert_ends_at("connect", 69, "127.0.0.1:1: Connection refused");
    // A resolver without a network may take long to fail.
    let unknown = Diagnosis::of("no-such-host.invalid:6388", &["--timeout", "2s"]).await;
    unknown.assert_ends_at("resolve", 69, "");
    Diagnosis::of("unix:/nowhere/dflockd.sock", &[])
        .await
        .assert_ends_at("connect", 69, "/nowhere/dflockd.sock");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_of_servers_that_never_answer_end_at_the_limit() {
    let black_hole =
        FakeServer::start(|mut connection, _| async move { while connection.request().await.is_some() {} }).await;
    let limit = ["--timeout", "1s"];
    let found = Diagnosis::of(&black_hole.address, &limit).await;
    found.assert_ends_at("auth", 69, "no answer within 1s");
    let mut stopped = Running::start(dflock().args(["serve", "--port", "0"]));
    let address = stopped.line().strip_prefix("listening on ").unwrap().to_owned();
    stopped.signal(Signal::STOP);
    Diagnosis::of(&address, &limit)
        .await
        .assert_ends_at("auth", 69, "no answer within 1s");
    stopped.signal(Signal::CONT);
}

/// The server answers everything except an acquire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_grants_no_lease_is_examined_to_the_end() {
    let silent = FakeServer::start(|mut connection, _| async move {
        while let Some([command, ..]) = connection.request().await {
            match command.as_str() {
                "l" => {}
                "stats" => connection.say("ok {\"connections\":7}\n").await,
                _ => connection.say("error\n").await,
            }
        }
    })
    .await;
    let found = Diagnosis::of(&silent.address, &["--timeout", "1s"]).await;
    assert_eq!(found.exit, 69);
    let lease = found.server(0, "lease");
    assert_eq!(lease["verdict"], "fail", "{lease}");
    assert!(lease["what"].as_str().unwrap().contains("no answer within"), "{lease}");
    for check in ["limits", "cluster"] {
        assert_eq!(found.server(0, check)["verdict"], "ok", "{}", found.told);
    }
    assert_eq!(found.server(0, "limits")["facts"]["connections"], 7);
    assert!(
        found.server(0, "latency")["facts"]["requests"].as_u64() > Some(0),
        "it is measured over another connection: {}",
        found.told
    );
}

/// What a server does with a request that it does not carry out.
#[derive(Clone, Copy)]
enum Instead {
    Says(&'static str),
    HangsUp,
}

/// Starts a lock server whose leases last this long, whatever their TTL. At `stats` it does what `at_stats` says. All
/// connections see the same leases; the tokens are counted on each connection.
async fn with_leases_of(lasting: Duration, at_stats: Instead) -> FakeServer {
    let ends = Arc::new(Mutex::new(HashMap::<String, Instant>::new()));
    FakeServer::start(move |mut connection, _| {
        let ends = Arc::clone(&ends);
        async move {
            let mut grants = 0;
            while let Some([command, key, argument]) = connection.request().await {
                let now = Instant::now();
                let is_held = ends.lock().unwrap().get(&key).is_some_and(|end| now < *end);
                let answer = match (command.as_str(), is_held) {
                    ("ping", _) => "ok\n".to_owned(),
                    ("stats", _) => match at_stats {
                        Instead::Says(answer) => answer.to_owned(),
                        Instead::HangsUp => return,
                    },
                    ("l", true) => "timeout\n".to_owned(),
                    ("l", false) => {
                        grants += 1;
                        ends.lock().unwrap().insert(key, now + lasting);
                        format!("ok {grants:016x}{grants:016x} 2\n")
                    }
                    ("n", true) => {
                        assert!(argument.ends_with(" 2"), "{argument}");
                        ends.lock().unwrap().insert(key, now + lasting);
                        "ok 2\n".to_owned()
                    }
                    ("r", true) => {
                        ends.lock().unwrap().remove(&key);
                        "ok\n".to_owned()
                    }
                    _ => "error\n".to_owned(),
                };
                connection.say(&answer).await;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_runs_at_another_speed_is_reported() {
    let of = |millis: u64| async move {
        let server = with_leases_of(Duration::from_millis(millis), Instead::Says("ok {}\n")).await;
        Diagnosis::of(&server.address, &["--requests", "3", "--timeout", "30s"]).await
    };
    // The TTL is two seconds. The leases of the slow server end later than tolerated, and those of the stopped server
    // do not end during the examination.
    let (fast, slow, stopped) = tokio::join!(of(1_000), of(4_500), of(60_000));
    for (found, exit, verdict, said, remedy) in [
        (&fast, 76, "fail", "ended after", "two holders"),
        (&slow, 0, "warn", "lasted", "--lease-sweep-interval"),
        (&stopped, 0, "warn", "had not expired after 6s", "kept too long"),
    ] {
        let lease = found.server(0, "lease");
        assert_eq!((&lease["verdict"], found.exit), (&json!(verdict), exit), "{lease}");
        let both = format!("{} {}", lease["what"], lease["do"]);
        assert!(both.contains(said) && both.contains(remedy), "{lease}");
        assert_eq!(found.server(0, "latency")["facts"]["requests"], 3, "{}", found.told);
    }
    let of_fast = &fast.server(0, "lease")["facts"];
    assert!(of_fast["most_s"].as_f64() < Some(1.9), "{of_fast}");
    let of_slow = &slow.server(0, "lease")["facts"];
    assert!(of_slow["least_s"].as_f64() > Some(3.1), "{of_slow}");
}

/// The server does all its work, and answers `ping`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_tell_its_state_is_examined_to_the_end() {
    let of = |at_stats: Instead| async move {
        let server = with_leases_of(Duration::from_secs(2), at_stats).await;
        Diagnosis::of(&server.address, &["--requests", "3", "--timeout", "2s"]).await
    };
    let silent = async { (of(Instead::Says("")).await, "no answer within 2s") };
    let hangs_up = async { (of(Instead::HangsUp).await, "before it answered stats") };
    let (silent, hangs_up) = tokio::join!(silent, hangs_up);
    for (found, said) in [silent, hangs_up] {
        let limits = found.server(0, "limits");
        assert_eq!((&limits["verdict"], found.exit), (&json!("fail"), 69), "{}", found.told);
        assert!(limits["what"].as_str().unwrap().contains(said), "{limits}");
        for (check, verdict) in [("release", "ok"), ("lease", "ok"), ("cluster", "skip")] {
            assert_eq!(found.server(0, check)["verdict"], verdict, "{}", found.told);
        }
        assert!(
            found.server(0, "latency")["facts"]["requests"].as_u64() > Some(0),
            "{}",
            found.told
        );
    }
}

/// A release that does not know `stats` has no `ping` either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_up_at_unknown_commands_without_a_word_knows_no_stats() {
    let old = FakeServer::start(|mut connection, _| async move {
        while let Some([command, ..]) = connection.request().await {
            match command.as_str() {
                "l" => connection.say("error_max_locks\n").await,
                "n" => connection.say("error\n").await,
                _ => return,
            }
        }
    })
    .await;
    let found = Diagnosis::of(&old.address, &["--requests", "3"]).await;
    let limits = found.server(0, "limits");
    assert_eq!(limits["verdict"], "warn", "{}", found.told);
    assert!(
        limits["what"].as_str().unwrap().contains("does not know `stats`"),
        "{limits}"
    );
    assert!(
        found.server(0, "release")["what"].as_str().unwrap().starts_with("0.5"),
        "{}",
        found.told
    );
    assert_eq!(
        (&found.server(0, "lease")["verdict"], found.exit),
        (&json!("fail"), 75),
        "{}",
        found.told
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_no_dflockd_is_reported_with_a_remedy() {
    for (answer, said) in [
        ("SSH-2.0-OpenSSH_9.6\n", "not a dflockd server"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "not a dflockd server"),
        // This answer renews a lease that does not exist.
        ("ok\n", "a lease that does not exist"),
    ] {
        let other = FakeServer::start(move |mut connection, _| async move {
            while connection.request().await.is_some() {
                connection.say(answer).await;
            }
        })
        .await;
        let found = Diagnosis::of(&other.address, &["--timeout", "2s"]).await;
        found.assert_ends_at("auth", 76, said);
        let remedy = &found.server(0, "auth")["do"];
        assert!(remedy.as_str().unwrap().contains("port"), "{remedy}");
    }
}

/// A terminal gets colour codes around each verdict, unless `NO_COLOR` is set.
#[test]
fn verdicts_have_colours_on_a_terminal_without_no_color() {
    for (no_color, fail) in [("", "  \u{1b}[31mfail\u{1b}[0m  connect"), ("1", "  fail  connect")] {
        let variables = [("DFLOCKD_SERVERS", "127.0.0.1:1"), ("NO_COLOR", no_color)];
        let mut terminal = Terminal::sized((200, 24), env!("CARGO_BIN_EXE_dflock"), &["doctor"], &variables);
        let before = terminal.shown(fail);
        assert_eq!(
            before.contains("\u{1b}[32mok\u{1b}[0m    resolve"),
            no_color.is_empty(),
            "{before:?}"
        );
        assert_eq!(terminal.code(), 69);
    }
    let piped = dflock()
        .args(["doctor", "--servers", "127.0.0.1:1"])
        .env("NO_COLOR", "")
        .output()
        .unwrap();
    assert!(!text(&piped.stdout).contains('\u{1b}'), "{piped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_reported() {
    let (_server, address) = start(Server::builder().max_connections(1)).await;
    let client = Client::builder().servers([&address]).connect().await.unwrap();
    Diagnosis::of(&address, &[])
        .await
        .assert_ends_at("auth", 69, "closed the connection");
    drop(client);
    let (_server, address) = start(Server::builder().max_locks(1)).await;
    let client = Client::builder().servers([&address]).connect().await.unwrap();
    let _held = client.lock("key").unwrap().acquire().await.unwrap();
    let found = Diagnosis::of(&address, &[]).await;
    assert_eq!(found.exit, 75, "{}", found.told);
    for check in ["lease", "limits"] {
        assert_eq!(found.server(0, check)["verdict"], "fail", "{}", found.told);
    }
    assert!(
        found.server(0, "limits")["what"]
            .as_str()
            .unwrap()
            .contains("refuses new keys")
    );
    let near = Diagnosis::of(&address, &["--max-connections", "2"]).await;
    assert_eq!(near.server(0, "limits")["facts"]["max_connections"], 2);
    let full = Cluster::builder().options(Server::builder().max_locks(1));
    let cluster = full.start().await.unwrap();
    let servers = cluster.addresses().join("+");
    let client = Client::builder()
        .shards([Shard::cluster(cluster.addresses())])
        .connect()
        .await
        .unwrap();
    let _held = client.lock("key").unwrap().acquire().await.unwrap();
    let found = Diagnosis::of(&servers, &[]).await;
    let shard = &found.told["shards"][0]["checks"][0];
    assert_eq!((&shard["verdict"], found.exit), (&json!("fail"), 75), "{}", found.told);
    for finding in [shard, found.server(0, "lease")] {
        assert!(finding["do"].as_str().unwrap().contains("--max-locks"), "{finding}");
    }
}

/// The leader grants a lease, and then refuses its renewal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_ends_leases_too_early_is_distinguished_from_one_that_grants_none() {
    let leader = FakeServer::start(|mut connection, _| async move {
        while let Some([command, ..]) = connection.request().await {
            let answer = match command.as_str() {
                "ping" => "ok\n".to_owned(),
                "stats" => {
                    let cluster =
                        json!({"node_id": "n0", "role": "leader", "leader_id": "n0", "term": 1, "voters": ["n0"]});
                    format!("ok {}\n", json!({"cluster": cluster}))
                }
                "l" => format!("ok {:032x} 2\n", 7),
                _ => "error\n".to_owned(),
            };
            connection.say(&answer).await;
        }
    })
    .await;
    let found = Diagnosis::of(&format!("{}+127.0.0.1:1", leader.address), &["--requests", "3"]).await;
    let lease = found.server(0, "lease");
    assert_eq!((&lease["verdict"], found.exit), (&json!("fail"), 79), "{}", found.told);
    assert!(lease["do"].as_str().unwrap().contains("clock"), "{lease}");
    let shard = &found.told["shards"][0]["checks"][0];
    assert_eq!(
        (&shard["verdict"], &shard["facts"]["served"]),
        (&json!("warn"), &json!(true)),
        "{shard}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_drains_takes_no_connections() {
    let mut server = Running::start(dflock().args(["serve", "--port", "0", "--shutdown-timeout", "0"]));
    let address = server.line().strip_prefix("listening on ").unwrap().to_owned();
    let client = Client::builder().servers([&address]).connect().await.unwrap();
    let _held = client.lock("key").unwrap().acquire().await.unwrap();
    server.signal(Signal::TERM);
    until("it accepts no more connections", || {
        std::net::TcpStream::connect(&address).is_err()
    })
    .await;
    let found = Diagnosis::of(&address, &[]).await;
    found.assert_ends_at("connect", 69, "refused");
    assert!(
        found.server(0, "connect")["do"]
            .as_str()
            .unwrap()
            .contains("shutting down")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_are_recognized_by_their_commands() {
    for (release, releases, verdict, fences) in [
        ("1.10", "1.10 or older", "warn", false),
        ("1.12", "1.11 to 1.13", "warn", false),
        ("1.16", "1.14 to 1.16", "ok", false),
        ("2.0", "2.0 or 2.1", "ok", false),
        ("cluster", "a build that can form clusters, later than 2.1", "ok", true),
    ] {
        let (server, address) = start(Server::builder().release(release)).await;
        let found = Diagnosis::of(&address, &["--requests", "3"]).await;
        let told = found.server(0, "release");
        assert_eq!(
            (&told["facts"]["releases"], &told["verdict"]),
            (&json!(releases), &json!(verdict))
        );
        assert_eq!(found.server(0, "lease")["facts"]["fences"], fences, "{release}");
        assert_eq!(found.exit, 0, "{release}: {}", found.told);
        assert!(server.stats().locks.is_empty());
    }
}

/// The Python server 0.5.0 hangs up on unknown commands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_up_on_unknown_commands_is_examined_to_the_end() {
    let (server, behind) = start(Server::builder().release("1.10")).await;
    let old = OldServer::start(&behind, &["ping", "unlisten", "barrier"], true).await;
    let found = Diagnosis::of(&old.address, &["--requests", "3"]).await;
    assert!(
        found.server(0, "release")["what"].as_str().unwrap().starts_with("0.5"),
        "{}",
        found.told
    );
    assert_eq!(found.server(0, "lease")["verdict"], "ok", "{}", found.told);
    assert_eq!(found.exit, 0);
    assert!(server.stats().locks.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_reported_with_its_leader_and_the_members_that_do_not_answer() {
    let cluster = Cluster::builder().start().await.unwrap();
    let addresses = cluster.addresses();
    let servers = addresses.join("+");
    let well = Diagnosis::of(&servers, &[]).await;
    assert_eq!(well.exit, 0, "{}", well.told);
    let shard = &well.told["shards"][0]["checks"][0];
    assert_eq!(
        (&shard["verdict"], &shard["facts"]["leader"]),
        (&json!("ok"), &json!(addresses[0]))
    );
    assert_eq!(well.server(0, "lease")["verdict"], "ok");
    assert_eq!(well.server(1, "lease")["verdict"], "skip");
    assert_eq!(well.server(1, "cluster")["facts"]["leader_id"], "n0");
    assert_eq!(shard["facts"]["served"], true);
    assert!(cluster.stats().locks.is_empty());
    // A member that does not answer is a failure of that server. The line of the shard says that its clients are still
    // served.
    cluster.stop(2).await.unwrap();
    let away = Diagnosis::of(&servers, &[]).await;
    assert_eq!(away.exit, 69);
    assert_eq!(away.server(2, "connect")["verdict"], "fail");
    let shard = &away.told["shards"][0]["checks"][0];
    assert_eq!(
        (&shard["verdict"], &shard["facts"]["away"], &shard["facts"]["served"]),
        (&json!("warn"), &json!([addresses[2]]), &json!(true))
    );
    assert!(shard["what"].as_str().unwrap().contains("serves"), "{shard}");
    cluster.depose();
    let unled = Diagnosis::of(&servers, &[]).await;
    let shard = &unled.told["shards"][0]["checks"][0];
    assert_eq!(
        (&shard["verdict"], &shard["facts"]["served"]),
        (&json!("fail"), &json!(false))
    );
    cluster.move_leader(0).unwrap();
    let alone = Diagnosis::of(&addresses[0], &[]).await;
    let told = alone.server(0, "cluster");
    assert_eq!(told["verdict"], "warn");
    assert!(told["do"].as_str().unwrap().contains("joined by +"), "{told}");
}

/// A leader that reaches no majority answers only requests that need no agreement of the members.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_reaches_no_majority_is_distinguished_from_a_silent_server() {
    let cluster = Cluster::builder().start().await.unwrap();
    let addresses = cluster.addresses();
    let servers = addresses.join("+");
    let limit = ["--timeout", "1s", "--requests", "3"];
    cluster.isolate(0).unwrap();
    let alone = Diagnosis::of(&servers, &limit).await;
    for check in ["auth", "release", "limits", "cluster"] {
        assert_eq!(alone.server(0, check)["verdict"], "ok", "{}", alone.told);
    }
    assert!(
        alone.server(0, "latency")["facts"]["requests"].as_u64() > Some(0),
        "{}",
        alone.told
    );
    let lease = alone.server(0, "lease");
    assert_eq!((&lease["verdict"], alone.exit), (&json!("fail"), 69), "{lease}");
    assert!(lease["do"].as_str().unwrap().contains("majority"), "{lease}");
    let shard = &alone.told["shards"][0]["checks"][0];
    assert_eq!(
        (&shard["verdict"], &shard["facts"]["leader"], &shard["facts"]["served"]),
        (&json!("fail"), &json!(addresses[0]), &json!(false)),
        "{shard}"
    );
    cluster.move_leader(1).unwrap();
    let two = Diagnosis::of(&servers, &limit).await;
    let shard = &two.told["shards"][0]["checks"][0];
    let what = shard["what"].as_str().unwrap();
    assert_eq!(
        (&shard["verdict"], &shard["facts"]["leader"], &shard["facts"]["served"]),
        (&json!("fail"), &json!(addresses[1]), &json!(true)),
        "{shard}"
    );
    assert!(what.contains(&format!("{} in term 1", addresses[0])), "{what}");
    assert!(what.contains(&format!("{} in term 2", addresses[1])), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_gives_the_throw_away_lock_back() {
    // If `dflock` did not release the lock, this server would keep it after the end of the connection.
    let (server, address) = start(Server::builder().auto_release_on_disconnect(false)).await;
    let mut doctor = Running::start(dflock().args(["doctor", "--servers", &address]));
    until("the throw-away lock is held", || !server.stats().locks.is_empty()).await;
    doctor.signal(Signal::INT);
    assert_eq!(doctor.code(), 130);
    assert!(server.stats().locks.is_empty());
    assert_eq!(doctor.rest(), "");
}

#[test]
fn wrong_usage_is_refused() {
    for arguments in [
        &["--timeout", "0s"][..],
        &["--timeout", "3"],
        &["--requests", "0"],
        &["--max-locks", "0"],
        &["--servers", "nowhere:0"],
        // Clients refuse these settings, too.
        &["--set", "lease_ttl=500ms"],
        &["--set", "tls=true", "--set", "tls_ca_file=/nowhere/ca.pem"],
    ] {
        let ended = output(&[&["doctor"], arguments].concat());
        assert!([64, 78].contains(&code(&ended)), "{arguments:?}: {ended:?}");
        assert!(ended.stdout.is_empty(), "{arguments:?}: {ended:?}");
    }
}
