//! With a real terminal: Ctrl-C, Ctrl-Z and a shell.

use crate::pty::{CTRL_C, CTRL_D, CTRL_Z, Terminal};
use crate::support::until_now;
use crate::tool::{Group, Running, code, dflock, output};

fn server() -> (Running, String) {
    let mut server = Running::start(dflock().args(["serve", "--port", "0"]));
    let address = server.line().strip_prefix("listening on ").unwrap().to_owned();
    (server, address)
}

/// Returns the path of `dflock`, for a shell.
fn program() -> &'static str {
    env!("CARGO_BIN_EXE_dflock")
}

#[test]
fn the_command_gets_every_ctrl_c() {
    let (_server, address) = server();
    let script = r#"n=0; trap 'n=$((n + 1)); echo "seen $n"; [ $n = 2 ] && exit 9' INT; echo ready; while :; do sleep 0.01; done"#;
    let mut terminal = Terminal::start(program(), &["run", "key", "--", "bash", "-c", script], &address);
    terminal.shown("ready\r\n");
    terminal.press(CTRL_C);
    terminal.shown("seen 1\r\n");
    terminal.press(CTRL_C);
    terminal.shown("seen 2\r\n");
    assert_eq!(terminal.code(), 9);
}

#[test]
fn ctrl_c_ends_a_command_that_does_not_handle_it() {
    let (_server, address) = server();
    // The command does not use `sleep`: dash loses a signal that arrives between its vfork and the start of the
    // program.
    let mut terminal = Terminal::start(
        program(),
        &["run", "key", "--", "sh", "-c", "echo ready; read line"],
        &address,
    );
    terminal.shown("ready\r\n");
    terminal.press(CTRL_C);
    assert_eq!(terminal.code(), 130);
    assert_eq!(
        code(&output(&["run", "key", "--servers", &address, "--try", "--", "true"])),
        0
    );
}

#[test]
fn the_command_reads_from_the_terminal_and_lock_ends_at_ctrl_d() {
    let (_server, address) = server();
    let mut terminal = Terminal::start(
        program(),
        &[
            "run",
            "key",
            "--",
            "sh",
            "-c",
            r#"echo ready; read line; echo "read $line"; exit 2"#,
        ],
        &address,
    );
    terminal.shown("ready\r\n");
    terminal.press("words\n");
    terminal.shown("read words\r\n");
    assert_eq!(terminal.code(), 2);
    let mut terminal = Terminal::start(program(), &["lock", "key"], &address);
    terminal.shown("\"key\":\"key\"");
    terminal.press(CTRL_D);
    assert_eq!(terminal.code(), 0);
}

#[test]
fn a_shell_stops_and_continues_it_as_any_job() {
    let (_server, address) = server();
    let mut shell = Terminal::start("bash", &["--norc", "--noediting", "-i"], &address);
    shell.shown("$ ");
    let script = r#"echo "group $$"; while read line; do echo "read $line"; done; exit 4"#;
    shell.press(&format!("{} run key --ttl 20s -- sh -c '{script}'\n", program()));
    shell.shown("\ngroup ");
    let group = Group::read(shell.shown("\r\n").trim());
    shell.press(CTRL_Z);
    shell.shown("Stopped");
    shell.shown("$ ");
    assert!(
        group.alive().iter().all(|(_, state)| *state == 'T'),
        "{:?}",
        group.alive()
    );
    // In the background the command runs, and the system stops it as soon as it reads.
    shell.press("bg\n");
    shell.shown("&\r\n");
    until_now("the shell sees that it is stopped", || {
        shell.press("jobs; echo all\n");
        shell.shown("jobs; echo all\r\n");
        shell.shown("all\r\n").contains("Stopped")
    });
    shell.press("fg\n");
    shell.shown("run key");
    shell.press("words\n");
    shell.shown("read words\r\n");
    shell.press(CTRL_D);
    shell.shown("$ ");
    shell.press("echo \"code $?\"\n");
    shell.shown("code 4");
    shell.press("exit\n");
    shell.code();
}

/// The inner `dflock` stops itself, as it does for a shell.
#[test]
fn a_dflock_in_a_dflock_is_a_job_of_the_shell() {
    let (_server, address) = server();
    let mut shell = Terminal::start("bash", &["--norc", "--noediting", "-i"], &address);
    shell.shown("$ ");
    let program = program();
    shell.press(&format!(
        "{program} run a -- {program} run b -- sh -c 'echo \"group $$\"; read line; echo \"read $line\"; exit 4'\n"
    ));
    shell.shown("\ngroup ");
    let group = Group::read(shell.shown("\r\n").trim());
    for _ in 0..3 {
        // bash prints the command before it gives the terminal away, and ignores Ctrl-Z until then.
        until_now("the command goes on", || {
            group.has(&shell.keys) && group.alive().iter().all(|(_, state)| *state != 'T')
        });
        shell.press(CTRL_Z);
        shell.shown("Stopped");
        shell.shown("$ ");
        shell.press("fg\n");
        shell.shown("exit 4'\r\n");
    }
    shell.press("words\n");
    shell.shown("read words\r\n");
    shell.shown("$ ");
    shell.press("echo \"code $?\"\n");
    shell.shown("code 4");
}

#[test]
fn a_command_whose_lease_was_lost_while_stopped_is_not_continued() {
    let (_server, address) = server();
    let mut shell = Terminal::start("bash", &["--norc", "--noediting", "-i"], &address);
    shell.shown("$ ");
    shell.press(&format!(
        "{} run key --ttl 2s -- sh -c 'echo \"group $$\"; read line; echo on'\n",
        program()
    ));
    shell.shown("\ngroup ");
    let group = Group::read(shell.shown("\r\n").trim());
    shell.press(CTRL_Z);
    shell.shown("Stopped");
    until_now("another command gets the key", || {
        code(&output(&[
            "run",
            "key",
            "--servers",
            &address,
            "--timeout",
            "10s",
            "--",
            "true",
        ])) == 0
    });
    assert!(group.alive().is_empty(), "{:?}", group.alive());
    shell.press("fg\n");
    shell.shown("was lost, and the command was stopped");
    shell.press("echo \"code $?\"\n");
    shell.shown("code 79");
}
