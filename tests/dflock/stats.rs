//! `dflock stats`.

use dflockd_client::Client;
use dflockd_client::server::Server;
use rustix::process::Signal;
use serde_json::Value;

use crate::pty::{CTRL_C, Terminal};
use crate::support::fake::FakeServer;
use crate::support::until;
use crate::tool::{Running, Witness, code, dflock, output, text};

/// An address where no server listens.
const AWAY: &str = "127.0.0.1:1";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

async fn server() -> (Server, Client) {
    let server = Witness::new().server(0).await;
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        .build()
        .unwrap();
    (server, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_tell_what_servers_hold() {
    let server = Witness::new().server(0).await;
    let address = server.local_addr().to_string();
    let mut holder = Running::start(dflock().args(["lock", "orders/42", "--ignore-stdin", "--servers", &address]));
    holder.line();
    let table = text(&output(&["stats", "--servers", &address]).stdout);
    let row = table.lines().find(|line| line.contains("orders/42")).unwrap();
    assert_eq!(
        row.split_whitespace().take(4).collect::<Vec<_>>(),
        ["lock", "orders/42", "1/1", "0"]
    );
    let told = json(&text(&output(&["stats", "--json", "--servers", &address]).stdout));
    assert_eq!(told["shards"][0]["server"], *address);
    assert_eq!(told["shards"][0]["stats"]["locks"][0]["key"], "orders/42");
}

/// Returns the keys of the table, from top to bottom.
fn keys(table: &str) -> Vec<&str> {
    let rows = table.lines().skip_while(|line| !line.starts_with("KIND"));
    rows.skip(1).filter_map(|row| row.split_whitespace().nth(1)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_sorted_and_filtered() {
    let (server, client) = server().await;
    let address = server.local_addr().to_string();
    let mut slots = Vec::new();
    for _ in 0..3 {
        slots.push(client.semaphore("orders/2", 5).unwrap().acquire().await.unwrap());
    }
    let _others = (
        client.lock("orders/1").unwrap().acquire().await.unwrap(),
        client.lock("accounts/1").unwrap().acquire().await.unwrap(),
    );
    let shown = |more: &[&str]| {
        text(
            &dflock()
                .args(["stats", "--servers", &address])
                .args(more)
                .output()
                .unwrap()
                .stdout,
        )
    };
    let by_key = shown(&["--sort", "key"]);
    assert_eq!(keys(&by_key), ["accounts/1", "orders/1", "orders/2"], "{by_key}");
    assert_eq!(keys(&shown(&["--sort", "held"]))[0], "orders/2");
    assert_eq!(
        keys(&shown(&["--sort", "key", "--filter", "orders/?"])),
        ["orders/1", "orders/2"]
    );
    let told = json(&shown(&["--json", "--filter", "a*", "--sort", "key"]));
    let stats = &told["shards"][0]["stats"];
    assert_eq!(
        (&stats["locks"][0]["key"], stats["locks"].as_array().unwrap().len()),
        (&Value::from("accounts/1"), 1)
    );
    assert_eq!(stats["semaphores"], json("[]"));
}

#[test]
fn an_unknown_field_is_refused_with_all_fields() {
    let refused = output(&["stats", "--sort", "age"]);
    let said = text(&refused.stderr);
    assert_eq!(code(&refused), 64);
    for field in ["age", "waiters", "held", "lease", "idle", "key", "kind", "shard"] {
        assert!(said.contains(field), "{field}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_away_costs_the_others_nothing() {
    let (server, client) = server().await;
    let servers = format!("{AWAY},{}", server.local_addr());
    let _held = client.lock("orders/1").unwrap().acquire().await.unwrap();
    let shown = output(&["stats", "--servers", &servers]);
    let table = text(&shown.stdout);
    assert_eq!(code(&shown), 0, "{}", text(&shown.stderr));
    // `dflock` does not wait until the connection attempt fails.
    let away = table.lines().find(|line| line.starts_with("shard 0: "));
    assert!(away.is_some_and(|away| away.contains("(no answer for ")), "{table}");
    assert_eq!(keys(&table), ["orders/1"]);
    let told = json(&text(&output(&["stats", "--json", "--servers", &servers]).stdout));
    let [away, there] = told["shards"].as_array().unwrap().as_slice() else {
        panic!("{told}");
    };
    assert!(away["error"].is_string() && away.get("stats").is_none(), "{away}");
    assert!(
        there["latency_ms"].as_f64().unwrap() >= 0.0 && there["state"] == "connected",
        "{there}"
    );
    let all_away = output(&["stats", "--servers", AWAY]);
    assert_eq!((code(&all_away), text(&all_away.stdout).as_str()), (69, ""));
}

/// The server accepts connections and answers nothing, as a stopped server does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_never_answers_is_not_waited_for_until_its_timeouts() {
    let (server, client) = server().await;
    let silent = FakeServer::start(|connection, _| connection.until_hung_up()).await;
    let servers = format!("{},{}", silent.address, server.local_addr());
    let _held = client.lock("orders/1").unwrap().acquire().await.unwrap();
    let patient = ["--set", "connect_timeout=1h", "--set", "request_timeout=1h"];
    let mut stats = Running::start(dflock().args(["stats", "--servers", &servers]).args(patient));
    until("it ends", || stats.child.try_wait().unwrap().is_some()).await;
    let table = stats.rest();
    assert_eq!(stats.code(), 0, "{}", stats.errors());
    let away = table.lines().find(|line| line.starts_with("shard 0: "));
    assert!(away.is_some_and(|away| away.contains("no answer for ")), "{table}");
    assert_eq!(keys(&table), ["orders/1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_prints_block_after_block_where_there_is_no_terminal() {
    let (server, client) = server().await;
    let servers = format!("{},{AWAY}", server.local_addr());
    let mut watch = Running::start(dflock().args(["stats", "--watch", "100ms", "--servers", &servers]));
    let head = watch.line();
    assert!(head.ends_with("Z  every 100ms"), "{head}");
    let _held = client.lock("orders/1").unwrap().acquire().await.unwrap();
    // Any number of blocks may come before the one with the lock.
    while !watch.line().contains("orders/1") {}
    while !watch.line().contains("every 100ms") {}
    assert!(watch.line().starts_with("SHARD  SERVER"));
    assert!(watch.line().starts_with("0 "));
    assert!(watch.line().starts_with("1 "));
    assert!(watch.line().starts_with("shard 1: "));
    watch.signal(Signal::INT);
    assert_eq!(watch.code(), 0, "{}", watch.errors());
    assert!(!watch.rest().contains('\u{1b}'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_one_object_a_line() {
    let (server, client) = server().await;
    let address = server.local_addr().to_string();
    let mut watch = Running::start(dflock().args(["stats", "--watch", "100ms", "--json", "--servers", &address]));
    let first = json(&watch.line());
    let _held = client.lock("orders/1").unwrap().acquire().await.unwrap();
    let second = loop {
        let told = json(&watch.line());
        if told["shards"][0]["stats"]["locks"][0]["key"] == "orders/1" {
            break told;
        }
    };
    assert!(
        second["unix_ms"].as_u64() > first["unix_ms"].as_u64(),
        "{first} {second}"
    );
    watch.signal(Signal::TERM);
    assert_eq!(watch.code(), 128 + 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_draws_over_itself_on_a_terminal_and_ends_at_ctrl_c() {
    let (server, client) = server().await;
    let address = server.local_addr().to_string();
    let variables = [("DFLOCKD_SERVERS", address.as_str()), ("NO_COLOR", "")];
    let program = env!("CARGO_BIN_EXE_dflock");
    let mut terminal = Terminal::sized((60, 8), program, &["stats", "--watch", "100ms"], &variables);
    terminal.shown("\u{1b}[2J\u{1b}[H\u{1b}[1m");
    let _held = client.lock("orders/1").unwrap().acquire().await.unwrap();
    // The line is cut at the width of the terminal, and the rest of the row is cleared.
    terminal.shown("\u{1b}[H\u{1b}[1m");
    terminal.shown("lock  orders/1  1/1   0");
    let rest = terminal.shown("\u{1b}[J");
    assert!(rest.contains("\u{1b}[K\r\n"), "{rest:?}");
    terminal.press(CTRL_C);
    assert_eq!(terminal.code(), 0);
}

/// A line that is wider than the terminal would take two rows, and move the first lines out of sight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_fits_into_a_terminal_that_is_small() {
    let (server, client) = server().await;
    let address = server.local_addr().to_string();
    let mut held = Vec::new();
    for number in 0..9 {
        held.push(
            client
                .lock(format!("orders/{number}"))
                .unwrap()
                .acquire()
                .await
                .unwrap(),
        );
    }
    let variables = [("DFLOCKD_SERVERS", address.as_str())];
    let program = env!("CARGO_BIN_EXE_dflock");
    let mut terminal = Terminal::sized((20, 5), program, &["stats", "--watch", "100ms"], &variables);
    terminal.shown("more lines");
    terminal.shown("\u{1b}[H");
    let drawn = terminal.shown("\u{1b}[J");
    let rows: Vec<&str> = drawn.trim_end_matches("\u{1b}[J").split("\u{1b}[K\r\n").collect();
    assert_eq!(rows.len(), 5, "{drawn:?}");
    assert!(rows.iter().all(|row| row.chars().count() <= 20), "{drawn:?}");
    terminal.press(CTRL_C);
    assert_eq!(terminal.code(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn colours_are_for_terminals_without_no_color() {
    let (server, _client) = server().await;
    let address = server.local_addr().to_string();
    for (no_color, head) in [("", "\u{1b}[1mSHARD  SERVER"), ("1", "SHARD  SERVER")] {
        let variables = [("DFLOCKD_SERVERS", address.as_str()), ("NO_COLOR", no_color)];
        let mut terminal = Terminal::sized((200, 24), env!("CARGO_BIN_EXE_dflock"), &["stats"], &variables);
        let before = terminal.shown("SHARD  SERVER");
        assert!(before.ends_with(head), "{before:?}");
        assert_eq!(terminal.code(), 0);
    }
    let piped = dflock()
        .args(["stats", "--servers", &address])
        .env("NO_COLOR", "")
        .output()
        .unwrap();
    assert!(text(&piped.stdout).starts_with("SHARD  SERVER"));
}
