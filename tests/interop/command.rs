//! `dflock` against the Python server 0.5.0, which has locks only.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// A name, and a function that checks the server at an address.
type Check = (&'static str, fn(&str));

/// Each check uses its own keys.
pub(super) const CHECKS: [Check; 6] = [
    ("run_has_the_lock_and_ends_as_its_command", run),
    ("run_has_several_locks", several),
    ("run_lets_the_next_one_wait", contended),
    ("lock_tells_what_it_holds_without_a_fence", lock),
    ("elect_leads", elect),
    ("what_the_server_lacks_ends_with_a_reason", lacking),
];

fn dflock(server: &str, arguments: &[&str]) -> Output {
    start(server, arguments).wait_with_output().unwrap()
}

fn start(server: &str, arguments: &[&str]) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dflock"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DFLOCK") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .env("DFLOCKD_SERVERS", server)
        .env("HOME", "/nonexistent")
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn told(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(server: &str) {
    let script = "echo $DFLOCK_KEY ${DFLOCK_FENCE-none}; exit 3";
    let ended = dflock(server, &["run", "command/run", "--", "sh", "-c", script]);
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert_eq!(told(&ended.stdout), "command/run none\n");
}

fn several(server: &str) {
    let ended = dflock(
        server,
        &[
            "run",
            "--keys",
            "command/b,command/a",
            "--",
            "sh",
            "-c",
            "echo $DFLOCK_KEY",
        ],
    );
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(told(&ended.stdout), "command/a,command/b\n");
}

fn contended(server: &str) {
    let mut holder = start(
        server,
        &["run", "command/contended", "--", "sh", "-c", "echo held; read line"],
    );
    let mut first = [0];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut first).unwrap();
    let refused = dflock(server, &["run", "command/contended", "--try", "--", "true"]);
    assert_eq!(refused.status.code(), Some(75), "{refused:?}");
    let next = start(server, &["run", "command/contended", "--timeout", "1m", "--", "true"]);
    holder.stdin.take().unwrap().write_all(b"end\n").unwrap();
    assert_eq!(holder.wait().unwrap().code(), Some(0));
    let next = next.wait_with_output().unwrap();
    assert_eq!(next.status.code(), Some(0), "{next:?}");
}

fn lock(server: &str) {
    let ended = dflock(server, &["lock", "command/lock", "--ttl", "20s"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let shown: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let expected = serde_json::json!({"key": "command/lock", "kind": "lock", "server": server, "ttl_s": 20});
    assert_eq!(shown, expected);
}

fn elect(server: &str) {
    let ended = dflock(server, &["elect", "command/elect", "--", "sh", "-c", "exit 4"]);
    assert_eq!(ended.status.code(), Some(4), "{ended:?}");
}

/// The server has no semaphores, no `stats`, no signals and no fences.
fn lacking(server: &str) {
    let cases: [(&[&str], i32, &str); 5] = [
        (
            &["run", "command/slots", "--limit", "2", "--", "true"],
            69,
            "Releases before 1.0 know locks alone",
        ),
        (&["stats"], 69, "Releases before 1.0 know locks alone"),
        (&["listen", "command"], 76, "older than release 1.11"),
        (&["emit", "command", "x"], 76, "older than release 1.11"),
        (
            &["run", "command/fence", "--fence", "--", "true"],
            76,
            "tokens carry no fences",
        ),
    ];
    for (arguments, code, reason) in cases {
        let ended = dflock(server, arguments);
        let errors = told(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(reason), "{arguments:?}: {errors}");
    }
}
