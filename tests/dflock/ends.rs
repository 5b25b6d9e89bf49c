//! The environment of a command, and the state after its end.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use dflockd_client::Client;
use rustix::process::Signal;
use tokio::net::unix::pipe;

use crate::support::{until, until_now};
use crate::tool::{Group, Running, Witness, around, code, dflock, output, text};

/// The server does not release the leases of a connection that ends, so `dflock` must.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_leaves_nothing_held() {
    let server = Witness::new()
        .describe()
        .port(0)
        .auto_release_on_disconnect(false)
        .start()
        .await
        .unwrap();
    let address = server.local_addr().to_string();
    let client = Client::builder().servers([&address]).connect().await.unwrap();
    let _held = client.lock("b").unwrap().acquire().await.unwrap();
    let keys = ["--keys", "a,b", "--servers", &address, "--timeout", "300ms"];
    for arguments in [
        [&["run"], &keys[..], &["--", "true"]].concat(),
        [&["lock"], &keys[..]].concat(),
    ] {
        let ended = output(&arguments);
        assert_eq!(code(&ended), 75, "{ended:?}");
        let held: Vec<String> = server.stats().locks.into_iter().map(|lock| lock.key).collect();
        assert_eq!(held, ["b"], "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_is_told_what_it_holds() {
    let server = Witness::new().server(0).await;
    let address = server.local_addr().to_string();
    let told = |arguments: &[&str]| {
        let script = "echo \"$DFLOCK_KEY|$DFLOCK_SERVER|${DFLOCK_FENCE-none}\"";
        let whole = [&["run", "--servers", &address], arguments, &["--", "sh", "-c", script]].concat();
        let ended = dflock().args(whole).env("DFLOCK_FENCE", "7").output().unwrap();
        text(&ended.stdout).trim().to_owned()
    };
    assert_eq!(told(&["k"]), format!("k|{address}|none"));
    assert_eq!(told(&["k", "--limit", "3"]), format!("k|{address}|none"));
    assert_eq!(told(&["--keys", "b,a"]), format!("a,b|{address}|none"));
    let fence = |line: &str| line.rsplit('|').next().unwrap().parse::<u64>().unwrap();
    let (first, second) = (told(&["k", "--fence"]), told(&["k", "--fence"]));
    assert!(fence(&first) < fence(&second), "{first} {second}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_command_leaves_behind_ends_before_the_lease_is_given_back() {
    let witness = Witness::new();
    witness.check_releases();
    let server = witness.server(0).await;
    let address = server.local_addr().to_string();
    let mut holder = Running::start(
        dflock()
            .args(["run", "key", "--servers", &address, "--grace", "200ms"])
            .args([
                "--",
                "sh",
                "-c",
                r#"echo $$; sh -c 'trap "" TERM; while :; do sleep 1; done' & exit 3"#,
            ]),
    );
    let group = Group::read(&holder.line());
    witness.watch("key", group);
    assert_eq!(holder.code(), 3);
    assert!(group.alive().is_empty());
    witness.assert_no_fault();
    assert!(server.stats().locks.is_empty());
}

/// As process 1 of a container, `dflock` reaps orphans, forwards TERM, and ends with all processes of the container.
///
/// If the system allows no PID namespace, the test says so and passes, unless `DFLOCKD_REQUIRE_NAMESPACES` is set, as
/// in CI.
#[test]
fn as_process_1_it_reaps_orphans_and_forwards_signals() {
    let namespace = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let may = around("unshare").args(namespace).arg("true").output();
    if !may.as_ref().is_ok_and(|may| may.status.success()) {
        assert!(
            std::env::var_os("DFLOCKD_REQUIRE_NAMESPACES").is_none(),
            "PID namespaces are required, and none may be made here: {may:?}"
        );
        println!("skipped: no PID namespace may be made here: {may:?}");
        return;
    }
    let mut server = Running::start(dflock().args(["serve", "--port", "0"]));
    let address = server.line().strip_prefix("listening on ").unwrap().to_owned();
    let script = r#"
        trap "echo got TERM; exit 5" TERM
        [ "$PPID" = 1 ] && echo first
        for i in 1 2 3; do (setsid sh -c 'sleep 0.05' &); done
        sleep 0.3
        n=0
        while cat /proc/[0-9]*/stat 2> /dev/null | grep -q ') Z ' && [ $n -lt 500 ]; do n=$((n + 1)); sleep 0.02; done
        echo "zombies: $(cat /proc/[0-9]*/stat 2> /dev/null | grep -c ') Z ')"
        while :; do sleep 0.01; done
    "#;
    let mut holder = Running::start(
        around("unshare")
            .args(namespace)
            .arg(env!("CARGO_BIN_EXE_dflock"))
            .args(["run", "key", "--servers", &address, "--", "sh", "-c", script]),
    );
    assert_eq!(holder.line(), "first");
    assert_eq!(holder.line(), "zombies: 0");
    // Process 1 of the namespace is the child of `unshare` outside.
    let unshare = holder.child.id();
    let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let inner = rustix::process::Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(inner, Signal::TERM).unwrap();
    assert_eq!(holder.line(), "got TERM");
    assert_eq!(holder.code(), 5);
    until_now("the lease is given back", || {
        let tried = output(&["run", "key", "--servers", &address, "--try", "--", "true"]);
        code(&tried) == 0
    });
}

/// As at the end of `dflock stats | head -1`: the reader wants no more output, so `dflock` ends with 74 and prints no
/// message.
#[test]
fn output_whose_reader_has_gone_causes_no_message() {
    for arguments in [
        &["config"][..],
        &["config", "--json"],
        &["doctor", "--servers", "127.0.0.1:1"],
    ] {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let child = dflock()
            .args(arguments)
            .stdout(OwnedFd::from(writer))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!((code(&ended), text(&ended.stderr).as_str()), (74, ""), "{arguments:?}");
    }
}

/// Nothing has started yet, so there is nothing to clean up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_it_while_its_settings_cannot_be_read() {
    let fifo = std::env::temp_dir().join(format!("dflock-pipe-{}", std::process::id()));
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let settings = fifo.to_str().unwrap();
    for arguments in [
        &["stats"][..],
        &["doctor"],
        &["lock", "key"],
        &["run", "key", "--", "true"],
        &["elect", "key", "--", "true"],
        &["listen", "channel"],
        &["emit", "channel", "payload"],
        &["bench", "pairs"],
    ] {
        let mut waits = Running::start(dflock().args([&["--config", settings], arguments].concat()));
        // The pipe can be opened for writing when `dflock` has opened it for reading. The test writes nothing to it.
        let mut writer = None;
        until(&format!("{arguments:?} opens its settings"), || {
            writer = pipe::OpenOptions::new().open_sender(settings).ok();
            writer.is_some()
        })
        .await;
        waits.signal(Signal::INT);
        let mut ended = None;
        until(&format!("{arguments:?} ends"), || {
            ended = waits.child.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        assert_eq!(ended.unwrap().signal(), Some(Signal::INT.as_raw()), "{arguments:?}");
    }
    std::fs::remove_file(&fifo).unwrap();
}
