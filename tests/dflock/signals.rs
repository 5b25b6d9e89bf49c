//! Signals to a `dflock` without a terminal.

use rustix::process::Signal;

use crate::support::until_now;
use crate::tool::{Running, code, dflock, output};

fn server() -> (Running, String) {
    let mut server = Running::start(dflock().args(["serve", "--port", "0"]));
    let address = server.line().strip_prefix("listening on ").unwrap().to_owned();
    (server, address)
}

#[test]
fn signals_reach_the_command() {
    let (_server, address) = server();
    // The script waits without a child in the foreground: bash loses an INT that arrives while such a child ends.
    let script = r#"
        for name in TERM INT HUP QUIT USR1 USR2 WINCH; do trap "echo $name" $name; done
        echo ready
        while :; do sleep 1000 & wait $!; kill $! 2> /dev/null; done
    "#;
    let mut holder = Running::start(dflock().args([
        "run",
        "key",
        "--servers",
        &address,
        "--grace",
        "0s",
        "--",
        "bash",
        "-c",
        script,
    ]));
    assert_eq!(holder.line(), "ready");
    let all = [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        // INT a second time: the command decides what it means.
        (Signal::INT, "INT"),
    ];
    for (signal, name) in all {
        holder.signal(signal);
        assert_eq!(holder.line(), name);
    }
}

#[test]
fn a_signal_that_ends_the_command_is_reported_as_shells_report_it() {
    let (_server, address) = server();
    for (signal, expected) in [
        (Signal::TERM, 143),
        (Signal::INT, 130),
        (Signal::HUP, 129),
        (Signal::USR1, 138),
    ] {
        let mut holder = Running::start(dflock().args([
            "run",
            "key",
            "--servers",
            &address,
            "--",
            "bash",
            "-c",
            "echo ready; while :; do sleep 1; done",
        ]));
        assert_eq!(holder.line(), "ready");
        holder.signal(signal);
        assert_eq!(holder.code(), expected);
    }
}

#[test]
fn a_command_that_an_operator_stops_keeps_its_lease() {
    let (_server, address) = server();
    let mut holder = Running::start(
        dflock()
            .args(["run", "key", "--servers", &address, "--ttl", "2s"])
            .args(["--", "sh", "-c", "echo $$; sleep 0.3; exit 6"]),
    );
    let group = crate::tool::Group::read(&holder.line());
    group.signal(Signal::STOP);
    // D is the state of a shell that waits for a child that was stopped at its start.
    until_now("it is stopped", || {
        group.alive().iter().all(|(_, state)| "TD".contains(*state))
    });
    // This is longer than the TTL: without a renewal, the other command would get the key.
    let other = output(&["run", "key", "--servers", &address, "--timeout", "3s", "--", "true"]);
    assert_eq!(code(&other), 75);
    group.signal(Signal::CONT);
    assert_eq!(holder.code(), 6);
}

#[test]
fn a_waiting_command_ends_at_the_first_signal() {
    let (_server, address) = server();
    let mut holder = Running::start(dflock().args(["lock", "key", "--servers", &address, "--ignore-stdin"]));
    assert!(holder.line().contains(r#""key":"key""#));
    let mut waiter =
        Running::start(dflock().args(["run", "key", "--servers", &address, "--timeout", "60s", "--", "true"]));
    until_now("it waits", || {
        let stats = output(&["stats", "--json", "--servers", &address]);
        String::from_utf8_lossy(&stats.stdout).contains(r#""waiters":1"#)
    });
    waiter.signal(Signal::TERM);
    assert_eq!(waiter.code(), 143);
    holder.signal(Signal::INT);
    assert_eq!(holder.code(), 0);
    let free = output(&["run", "key", "--servers", &address, "--try", "--", "true"]);
    assert_eq!(code(&free), 0);
}
