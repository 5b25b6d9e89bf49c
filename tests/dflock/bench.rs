//! `dflock bench`: its reports, and that it leaves nothing behind.

use std::net::TcpListener;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::pki::Folder;
use crate::support::proxy::Proxy;
use crate::support::until;
use crate::tool::{Group, Running, Witness, code, dflock, output, text};

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {:?}", text(bytes)))
}

/// Runs `dflock bench` with `--json`, and returns the object.
fn bench(arguments: &[&str]) -> Value {
    let ended = output(&[&["bench"], arguments, &["--json"]].concat());
    assert_eq!(code(&ended), 0, "{}", text(&ended.stderr));
    let told = json(&ended.stdout);
    assert_eq!(
        (&told["bench"], &told["partial"]),
        (&Value::from(arguments[0]), &Value::from(false))
    );
    told
}

fn number(value: &Value, path: &str) -> f64 {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number {path} in {value}"))
}

/// Asserts that the percentiles are in order, and that something was measured.
fn assert_times(value: &Value, path: &str) {
    let [count, p50, p90, p99, p999, max] = ["count", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"]
        .map(|name| number(value, &format!("{path}/{name}")));
    assert!(count >= 1.0 && p50 > 0.0, "{value}");
    assert!([p50, p90, p99, p999, max].is_sorted(), "{value}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_are_measured_for_each_number_of_tasks_and_drawn() {
    let server = Witness::new().server(0).await;
    let address = server.local_addr().to_string();
    let picture = std::env::temp_dir().join(format!("dflock-bench-{}.svg", std::process::id()));
    let told = bench(&[
        "pairs",
        "--servers",
        &address,
        "--sweep",
        "1,3",
        "--time",
        "200ms",
        "--warm-up",
        "50ms",
        "--svg",
        picture.to_str().unwrap(),
    ]);
    let rows = told["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for (row, tasks) in rows.iter().zip([1.0, 3.0]) {
        assert_eq!(number(row, "/tasks"), tasks);
        assert_times(row, "/latency");
        assert_eq!(number(row, "/pairs"), number(row, "/latency/count"));
        assert!(
            number(row, "/pairs_per_s") > 0.0 && number(row, "/connections") >= 1.0,
            "{row}"
        );
    }
    let drawn = std::fs::read_to_string(&picture).unwrap();
    std::fs::remove_file(&picture).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("3 tasks"), "{drawn}");
    assert!(server.stats().locks.is_empty(), "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_leases_are_counted_and_given_back() {
    let server = Witness::new().server(0).await;
    let address = server.local_addr().to_string();
    let hold = [
        "hold",
        "--servers",
        &address,
        "--leases",
        "40",
        "--time",
        "300ms",
        "--idle",
        "100ms",
    ];
    let told = bench(&hold);
    for (name, count) in [
        ("leases", 40.0),
        ("still_held", 40.0),
        ("released", 40.0),
        ("unreleased", 0.0),
    ] {
        assert_eq!(number(&told, &format!("/{name}")), count, "{told}");
    }
    assert_times(&told, "/other_caller_idle");
    assert_times(&told, "/other_caller_holding");
    assert!(server.stats().locks.is_empty(), "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_from_release_to_grant_is_measured_for_each_waiting_caller() {
    let server = Witness::new().server(0).await;
    let address = server.local_addr().to_string();
    for own in [&["--own"][..], &[]] {
        let waits = ["waits", "--servers", &address, "--waits", "12", "--settle", "300ms"];
        let told = bench(&[&waits[..], own].concat());
        assert_eq!(number(&told, "/granted"), 12.0, "{told}");
        assert_times(&told, "/release_to_grant");
    }
    assert!(server.stats().locks.is_empty(), "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_are_counted_at_each_subscriber() {
    let server = Witness::new().describe().port(0).release("1.16").start().await.unwrap();
    let address = server.local_addr().to_string();
    let told = bench(&[
        "signals",
        "--servers",
        &address,
        "--subscribers",
        "2",
        "--signals",
        "60",
        "--publishers",
        "3",
        "--subscriptions",
        "20",
    ]);
    for (name, count) in [
        ("emitted", 60.0),
        ("received", 120.0),
        ("lost", 0.0),
        ("subscriptions", 20.0),
    ] {
        assert_eq!(number(&told, &format!("/{name}")), count, "{told}");
    }
    assert_times(&told, "/emit_to_answer");
    assert_times(&told, "/emit_to_signal");
}

#[test]
fn failovers_from_a_dead_leader_and_from_a_moved_leadership_are_measured() {
    let told = bench(&["failover", "--leases", "5", "--rounds", "2"]);
    let rows = told["rows"].as_array().unwrap();
    let leaders: Vec<_> = rows.iter().map(|row| row["leader"].as_str().unwrap()).collect();
    assert_eq!(leaders, ["dies", "moves"]);
    for row in rows {
        assert_eq!(number(row, "/rounds"), 2.0);
        for times in ["/next_leads", "/first_renewal", "/last_renewal"] {
            assert_times(row, times);
        }
    }
}

#[test]
fn an_embedded_server_is_measured_in_a_process_of_its_own() {
    let ended = output(&[
        "bench",
        "pairs",
        "--embedded",
        "--tasks",
        "2",
        "--time",
        "100ms",
        "--warm-up",
        "10ms",
    ]);
    assert_eq!(code(&ended), 0, "{}", text(&ended.stderr));
    let table = text(&ended.stdout);
    let [heads, row] = table.lines().collect::<Vec<_>>()[..] else {
        panic!("{table}");
    };
    assert!(heads.starts_with("TASKS  PAIRS/S") && row.starts_with("2 "), "{table}");
    let both = output(&["bench", "pairs", "--embedded", "--servers", "a:1"]);
    assert_eq!(code(&both), 64);
    assert!(
        text(&both.stderr).contains("--embedded starts a server"),
        "{}",
        text(&both.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_the_measuring_tells_what_there_is_and_leaves_nothing_behind() {
    let server = Witness::new().server(0).await;
    let address = server.local_addr().to_string();
    let mut command = dflock();
    command.args([
        "bench",
        "hold",
        "--servers",
        &address,
        "--leases",
        "30",
        "--idle",
        "10ms",
        "--time",
        "10m",
        "--json",
    ]);
    let mut running = Running::start(&mut command);
    // The other caller has a key of its own. It begins again when all grants have arrived.
    until("the leases are held, and the other caller acquires", || {
        assert!(running.child.try_wait().unwrap().is_none(), "{}", running.errors());
        server.stats().locks.len() > 30
    })
    .await;
    running.signal(Signal::INT);
    let told = json(running.line().as_bytes());
    assert_eq!(told["partial"], Value::from(true));
    let released = number(&told, "/released");
    assert!((30.0..=31.0).contains(&released), "{told}");
    assert_eq!(number(&told, "/unreleased"), 0.0, "{told}");
    assert_eq!(running.code(), 130);
    assert!(running.errors().contains("the measuring ended early"));
    assert!(server.stats().locks.is_empty(), "nothing is left behind");
}

/// The server receives no request any more, so it confirms no release.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_at_a_server_that_has_gone_silent_counts_the_leases_that_are_left_behind() {
    let server = Witness::new().server(0).await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let mut command = dflock();
    command.args(["bench", "hold", "--servers", &proxy.address, "--leases", "30"]);
    command.args(["--idle", "10ms", "--time", "10m", "--ttl", "10m", "--json"]);
    let mut running = Running::start(&mut command);
    // The other caller begins again when all leases are granted.
    until("the leases are held, and the key of the other caller", || {
        assert!(running.child.try_wait().unwrap().is_none(), "{}", running.errors());
        server.stats().locks.len() == 31
    })
    .await;
    proxy.change(|treatment| {
        treatment.stall_up = true;
        treatment.stall_down = true;
    });
    running.signal(Signal::INT);
    let told = json(running.line().as_bytes());
    assert_eq!(told["partial"], Value::from(true));
    assert_eq!(number(&told, "/leases"), 30.0, "{told}");
    assert!(number(&told, "/released") <= 1.0, "{told}");
    // The other caller's key may be among them.
    assert!([30.0, 31.0].contains(&number(&told, "/unreleased")), "{told}");
    assert_eq!(running.code(), 130);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_leaves_nothing_behind_where_leases_outlive_their_connections() {
    let options = Witness::new()
        .describe()
        .port(0)
        .max_locks(20)
        .auto_release_on_disconnect(false);
    let server = options.start().await.unwrap();
    let address = server.local_addr().to_string();
    let ended = output(&[
        "bench",
        "hold",
        "--servers",
        &address,
        "--leases",
        "40",
        "--idle",
        "10ms",
    ]);
    assert_eq!(code(&ended), 75, "{}", text(&ended.stderr));
    let held = server.stats().locks;
    assert!(held.is_empty(), "{held:?}");
}

/// A killed `bench` cannot end its server. The system kills the server when its parent ends, before the watch notices
/// anything. So both rounds test only the parent-death signal. In the second round, there is no watch.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_server_does_not_outlive_a_bench_that_is_killed() {
    for without_watch in [false, true] {
        let mut command = dflock();
        command.args(["bench", "pairs", "--embedded", "--time", "10m"]);
        let bench = Running::start(&mut command);
        let child = |helper: &str| bench.children().into_iter().find(|(_, name)| name == helper);
        until("the server runs", || child("serve").is_some()).await;
        let server = Group::read(&child("serve").unwrap().0.to_string());
        assert_eq!(server.alive().len(), 1);
        if without_watch {
            let (watch, _) = child("__watch").unwrap();
            kill_process(Pid::from_raw(watch).unwrap(), Signal::KILL).unwrap();
        }
        bench.signal(Signal::KILL);
        until("the server is gone", || server.alive().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_while_callers_wait_leaves_nothing_behind_where_leases_outlive_their_connections() {
    let options = Witness::new().describe().port(0).auto_release_on_disconnect(false);
    let server = options.start().await.unwrap();
    let address = server.local_addr().to_string();
    let mut command = dflock();
    command.args(["bench", "waits", "--servers", &address, "--waits", "30"]);
    command.args(["--settle", "10m", "--json"]);
    let mut running = Running::start(&mut command);
    until("the callers wait", || {
        assert!(running.child.try_wait().unwrap().is_none(), "{}", running.errors());
        server.stats().locks.iter().map(|lock| lock.waiters).sum::<u64>() >= 30
    })
    .await;
    running.signal(Signal::INT);
    let told = json(running.line().as_bytes());
    assert_eq!(told["partial"], Value::from(true));
    assert_eq!(running.code(), 130);
    let held = server.stats().locks;
    assert!(held.is_empty(), "{held:?}");
}

/// The server accepts connections, and answers nothing.
#[test]
fn ctrl_c_ends_a_benchmark_whose_server_does_not_answer() {
    for what in ["pairs", "hold", "waits", "signals"] {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let mut command = dflock();
        command.args(["bench", what, "--servers", &address, "--json"]);
        let mut running = Running::start(&mut command);
        let _connection = silent.accept().unwrap();
        running.signal(Signal::INT);
        assert_eq!(running.code(), 130, "{what}: {}", running.errors());
        assert_eq!(json(running.line().as_bytes())["partial"], Value::from(true), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_cannot_be_written_ends_it_before_the_measuring() {
    let witness = Witness::new();
    let server = witness.server(0).await;
    let address = server.local_addr().to_string();
    let ended = output(&["bench", "pairs", "--servers", &address, "--svg", "/nonexistent/a.svg"]);
    assert_eq!((code(&ended), text(&ended.stdout).as_str()), (74, ""));
    assert!(text(&ended.stderr).contains("/nonexistent/a.svg"), "{ended:?}");
    assert_eq!(server.stats().idle_locks.len(), 0, "nothing was acquired");
}

#[test]
fn a_benchmark_that_fails_leaves_the_file_of_its_picture_as_it_was() {
    let folder = Folder::new();
    let old = folder.write("old.svg", "<svg/>");
    let new = old.with_file_name("new.svg");
    let target = old.with_file_name("target.svg");
    let link = old.with_file_name("link.svg");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for picture in [&old, &new, &link] {
        let mut command = dflock();
        command.args(["bench", "pairs", "--servers", "127.0.0.1:1"]);
        command.args(["--set", "acquire_timeout=100ms", "--svg"]).arg(picture);
        let ended = command.output().unwrap();
        assert_eq!(code(&ended), 69, "{ended:?}");
    }
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "<svg/>");
    assert!(!new.exists());
    assert!(link.is_symlink() && !target.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_is_drawn_where_a_symbolic_link_leads() {
    let server = Witness::new().server(0).await;
    let address = server.local_addr().to_string();
    let folder = Folder::new();
    let (link, target) = (folder.path("link.svg"), folder.path("target.svg"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    bench(&[
        "pairs",
        "--servers",
        &address,
        "--tasks",
        "1",
        "--time",
        "10ms",
        "--warm-up",
        "0s",
        "--svg",
        link.to_str().unwrap(),
    ]);
    assert!(std::fs::read_to_string(&target).unwrap().starts_with("<svg"));
    assert!(link.is_symlink());
}

#[test]
fn numbers_and_times_that_it_cannot_handle_are_refused() {
    let most = usize::MAX.to_string();
    for arguments in [
        &["pairs", "--tasks", "0"][..],
        &["pairs", "--sweep", "1,,2"],
        &["pairs", "--sweep", "1,x"],
        &["pairs", "--time", "999999999999h"],
        &["pairs", "--warm-up", "25h"],
        &["hold", "--leases", &most],
        &["hold", "--idle", "25h"],
        &["waits", "--waits", &most],
        &["waits", "--releases", "2000000000"],
        &["waits", "--settle", "25h"],
        &["signals", "--signals", &most],
        &["signals", "--publishers", &most],
        &["failover", "--leases", &most],
        &["failover", "--rounds", &most],
        &["failover", "--servers", "a:1"],
        &["failover", "--set", "keepalive=5s"],
    ] {
        let ended = output(&[&["bench"], arguments].concat());
        assert_eq!(code(&ended), 64, "{arguments:?}: {}", text(&ended.stderr));
    }
}

/// Runs `bench pairs --embedded` for a moment.
fn embedded() -> Command {
    let mut command = dflock();
    command.args(["bench", "pairs", "--embedded", "--tasks", "1"]);
    command.args(["--time", "10ms", "--warm-up", "0s"]);
    command
}

/// The variables for servers are meant for the machine's server, and not for the one that is measured.
#[test]
fn the_embedded_server_does_not_take_the_variables_of_servers() {
    let mut command = embedded();
    command
        .env("DFLOCKD_HOST", "nowhere.invalid")
        .env("DFLOCKD_MAX_CONNECTIONS", "1");
    let ended = command.env("DFLOCKD_AUTH_TOKEN", "sesame").output().unwrap();
    assert_eq!(code(&ended), 0, "{}", text(&ended.stderr));
}

/// The embedded server has no auth token and no TLS, wherever the settings of other servers stand.
#[test]
fn the_clients_of_an_embedded_server_use_neither_an_auth_token_nor_tls() {
    let folder = Folder::new();
    let auth_token = "auth_token_file = \"/nonexistent\"\n";
    let shards = r#"
        servers = "a:1+b:1,c:1"
        stable_ref = "stable"
        previous_servers = "d:1"
        previous_sharding_strategy = "stable_hash_shard"
    "#;
    for (settings, variable) in [
        (auth_token, ("DFLOCKD_CLIENT_KEEPALIVE", "5s")),
        ("tls = true\n", ("DFLOCKD_AUTH_TOKEN", "sesame")),
        (
            "tls = true\ntls_server_name = \"a\"\n",
            ("DFLOCKD_AUTH_TOKEN_FILE", "/nonexistent"),
        ),
        (shards, ("DFLOCKD_URL", "dflockds://sesame@e:1?orphan_ttl.0=30s")),
    ] {
        let file = folder.write("settings.toml", settings);
        let mut command = embedded();
        command.arg("--config").arg(file).env(variable.0, variable.1);
        let ended = command.output().unwrap();
        assert_eq!(code(&ended), 0, "{settings} {variable:?}: {}", text(&ended.stderr));
    }
    let mut command = embedded();
    command
        .env("DFLOCKD_AUTH_TOKEN", "sesame")
        .env("DFLOCKD_AUTH_TOKEN_FILE", "/nonexistent");
    let ended = command.output().unwrap();
    assert_eq!(code(&ended), 78, "{ended:?}");
    let said = text(&ended.stderr);
    assert!(
        said.contains("DFLOCKD_AUTH_TOKEN") && said.contains("both given"),
        "{said}"
    );
}
