//! `dflock top` on a real terminal.

use std::time::Duration;

use dflockd_client::Client;
use dflockd_client::server::Server;
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::pty::{CTRL_C, CTRL_Z, Terminal};
use crate::support::until;
use crate::tool::{Witness, code, output, text};

const ENTERED: &str = "\u{1b}[?1049h";
const LEFT: &str = "\u{1b}[?1049l";

/// A server at which two callers wait for `orders/42`.
struct Busy {
    server: Server,
    _tasks: JoinSet<()>,
}

impl Busy {
    async fn start() -> Self {
        let server = Witness::new().server(0).await;
        let client = Client::builder()
            .servers([server.local_addr().to_string()])
            .acquire_timeout(Duration::from_secs(600))
            .build()
            .unwrap();
        let lock = client.lock("orders/42").unwrap();
        let held = lock.acquire().await.unwrap();
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            let lock = lock.clone();
            tasks.spawn(async move { drop(lock.acquire().await) });
        }
        tasks.spawn(async move {
            let _held = held;
            std::future::pending().await
        });
        let is_waited_for = || server.stats().locks.iter().any(|lock| lock.waiters == 2);
        until("two wait", is_waited_for).await;
        Self { server, _tasks: tasks }
    }

    fn top(&self, interval: &str) -> Terminal {
        let address = self.server.local_addr().to_string();
        let arguments = ["top", "--interval", interval];
        Terminal::start(env!("CARGO_BIN_EXE_dflock"), &arguments, &address)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_a_key_with_waiters_helps_and_quits() {
    let busy = Busy::start().await;
    let mut terminal = busy.top("100ms");
    let before = terminal.shown(ENTERED);
    assert_eq!(before, ENTERED, "nothing is written before the alternate screen");
    terminal.shown("orders/42");
    // The cursor skips blanks that are there already, so the text follows a cursor movement, which ends with `H`.
    terminal.shown("H1/1");
    terminal.shown("H2");
    assert!(!terminal.is_cooked());
    terminal.press("?");
    terminal.shown("Help");
    terminal.shown("COMMITS/S");
    terminal.press("x");
    terminal.press("/acc*\r");
    terminal.shown("no key fits acc*");
    terminal.press("q");
    terminal.shown(LEFT);
    assert_eq!(terminal.code(), 0);
    assert!(terminal.is_cooked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_size_is_drawn_at_once_and_one_that_is_too_small_says_so() {
    let busy = Busy::start().await;
    // The server is not asked again during the test.
    let mut terminal = busy.top("1h");
    terminal.shown("orders/42");
    terminal.resize((200, 50));
    terminal.shown("LATENCY OVER TIME");
    terminal.shown("orders/42");
    terminal.resize((30, 5));
    terminal.shown("60x12");
    terminal.press(CTRL_C);
    assert_eq!(terminal.code(), 0);
    assert!(terminal.is_cooked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_end_it_and_the_terminal_is_as_it_was() {
    let busy = Busy::start().await;
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 0)] {
        let mut terminal = busy.top("100ms");
        terminal.shown("orders/42");
        terminal.signal(signal);
        terminal.shown(LEFT);
        assert_eq!(terminal.code(), code, "{signal:?}");
        assert!(terminal.is_cooked(), "{signal:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_stops_and_continues_it() {
    let busy = Busy::start().await;
    let address = busy.server.local_addr().to_string();
    let mut shell = Terminal::start("bash", &["--norc", "--noediting", "-i"], &address);
    shell.shown("$ ");
    let of_shell = shell.foreground();
    shell.press(&format!("{} top --interval 100ms\n", env!("CARGO_BIN_EXE_dflock")));
    shell.shown("orders/42");
    // The stop comes from the keyboard, and then from a signal.
    for is_key in [true, false] {
        match is_key {
            true => shell.press(CTRL_Z),
            false => shell.signal(Signal::TSTP),
        }
        shell.shown(LEFT);
        shell.shown("Stopped");
        shell.shown("$ ");
        assert_eq!(shell.foreground(), of_shell);
        assert!(shell.is_cooked());
        shell.press("fg\n");
        shell.shown(ENTERED);
        shell.shown("orders/42");
        assert!(!shell.is_cooked());
    }
    shell.press("q");
    shell.shown(LEFT);
    shell.shown("$ ");
    assert!(shell.is_cooked());
    shell.press("echo \"code $?\"\n");
    shell.shown("code 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_away_is_shown_with_its_error() {
    let busy = Busy::start().await;
    let mut terminal = busy.top("100ms");
    terminal.shown("orders/42");
    busy.server.kill().await;
    terminal.shown("reconnecting");
    terminal.press("q");
    assert_eq!(terminal.code(), 0);
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let refused = output(&["top", "--servers", "127.0.0.1:1"]);
    assert_eq!((code(&refused), text(&refused.stdout).as_str()), (64, ""));
    assert!(text(&refused.stderr).contains("dflock stats --watch"), "{refused:?}");
}
