//! The lease is lost: no process of the command is alive when the server grants the key to the next holder.

use std::time::Duration;

use dflockd_client::Client;
use rustix::process::Signal;

use crate::support::proxy::Proxy;
use crate::support::{until, until_now};
use crate::tool::{Group, Running, Witness, dflock};

/// The number of rounds of each disturbance. `AT_ONCE` of them run at the same time.
pub const ROUNDS: usize = 50;
pub const AT_ONCE: usize = 10;

/// A script that ignores TERM. Its descendants ignore it, too, and one of them is an orphan.
pub const STUBBORN: &str =
    r#"trap "" TERM; (sh -c 'trap "" TERM; while :; do sleep 1; done' &); echo $$; while :; do sleep 1; done"#;

/// A margin that leaves a busy machine some time. The grace is longer than the margin. So if `dflock` sent TERM only
/// when the margin was left of the lease, its KILL would come too late, and the test would fail.
pub const TIMES: [&str; 6] = ["--ttl", "6s", "--grace", "1600ms", "--set", "loss_margin=1400ms"];

pub fn run(server: &str, key: &str, script: &str) -> Running {
    let mut command = dflock();
    command
        .args(["run", key, "--servers", server])
        .args(TIMES)
        .args(["--", "sh", "-c", script]);
    Running::start(&mut command)
}

async fn client(server: &str) -> Client {
    Client::builder().servers([server]).connect().await.unwrap()
}

/// Acquires the key with another client, which waits up to 60 s, and releases it.
async fn next_holder(client: &Client, key: &str) {
    let lock = client.lock(key).unwrap().acquire_timeout(Duration::from_secs(60));
    lock.acquire().await.unwrap().release().await.unwrap();
}

async fn rounds<F: Future<Output = ()>>(round: impl Fn(String) -> F) {
    for first in (0..ROUNDS).step_by(AT_ONCE) {
        let rounds = (first..first + AT_ONCE).map(|number| round(format!("key-{number}")));
        let mut rounds: Vec<_> = rounds.map(Box::pin).collect();
        std::future::poll_fn(|cx| {
            rounds.retain_mut(|round| round.as_mut().poll(cx).is_pending());
            match rounds.is_empty() {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
    }
}

/// Waits for the end of a process without blocking the other rounds, and returns its exit code.
async fn code(running: &mut Running) -> i32 {
    let mut code = None;
    until("the command ends", || {
        code = running.child.try_wait().unwrap();
        code.is_some()
    })
    .await;
    code.unwrap().code().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_ends_the_command_before_the_next_grant() {
    let witness = Witness::new();
    let server = witness.server(0).await;
    let address = server.local_addr().to_string();
    let others = client(&address).await;
    rounds(async |key| {
        let proxy = Proxy::start(&address).await;
        let mut holder = run(&proxy.address, &key, STUBBORN);
        witness.watch(&key, Group::read(&holder.line()));
        proxy.change(|treatment| {
            treatment.stall_up = true;
            treatment.stall_down = true;
            treatment.stall_ends = true;
        });
        next_holder(&others, &key).await;
        assert_eq!(code(&mut holder).await, 79);
        let said = holder.errors();
        assert!(
            said.contains("was lost, and the command was stopped: it could not be renewed in time"),
            "{said}"
        );
        assert_eq!(witness.grants(&key), 2);
    })
    .await;
    witness.assert_no_fault();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dflock_that_is_stopped_does_not_let_the_command_outlive_the_lease() {
    let witness = Witness::new();
    // The server keeps the lease for its TTL, because it does not see that its client is stopped.
    let server = witness.server(0).await;
    let address = server.local_addr().to_string();
    let others = client(&address).await;
    rounds(async |key| {
        let mut holder = run(&address, &key, STUBBORN);
        witness.watch(&key, Group::read(&holder.line()));
        holder.signal(Signal::STOP);
        next_holder(&others, &key).await;
        holder.signal(Signal::CONT);
        assert_eq!(code(&mut holder).await, 79);
    })
    .await;
    witness.assert_no_fault();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn term_comes_first_and_the_command_may_use_its_grace() {
    let server = Witness::new().server(0).await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let mut holder = run(
        &proxy.address,
        "key",
        r#"trap "echo tidy; exit 0" TERM; echo $$; while :; do sleep 0.01; done"#,
    );
    holder.line();
    proxy.change(|treatment| treatment.stall_up = true);
    assert_eq!(holder.line(), "tidy");
    assert_eq!(holder.code(), 79);
}

/// A script that prints TERM when it gets TERM, and goes on. So does an orphan of it.
pub const TALKATIVE: &str = r#"trap "echo TERM" TERM; (sh -c 'trap "echo TERM" TERM; while :; do sleep 1; done' &)
    echo $$; while :; do sleep 1; done"#;

/// Starts a command with a long grace. If the connection ends, the command gets none of it.
pub fn run_with_a_long_grace(server: &str, key: &str) -> Running {
    let mut command = dflock();
    command
        .args(["run", key, "--servers", server, "--ttl", "60s", "--grace", "25s"])
        .args(["--", "sh", "-c", TALKATIVE]);
    Running::start(&mut command)
}

/// The server grants the key to the next holder as soon as it sees the end of the connection, so there is no time for
/// the grace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_ends_the_command_without_its_grace() {
    let witness = Witness::new();
    let server = witness.server(0).await;
    let address = server.local_addr().to_string();
    let proxy = Proxy::start(&address).await;
    let mut holder = run_with_a_long_grace(&proxy.address, "key");
    let group = Group::read(&holder.line());
    let others = client(&address).await;
    let next = tokio::spawn(async move { next_holder(&others, "key").await });
    until("another waits", || {
        server.stats().locks.iter().any(|lock| lock.waiters == 1)
    })
    .await;
    proxy.change(|treatment| treatment.refuse = true);
    proxy.cut();
    next.await.unwrap();
    assert_eq!(code(&mut holder).await, 79);
    assert!(group.alive().is_empty());
    assert_eq!(holder.rest(), "", "it was asked to end first");
    assert_eq!(witness.grants("key"), 2);
}

/// One of two leases is lost by time. The command has its grace until the connection of the other lease ends: the
/// server of that lease may then grant its key at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grace_ends_with_the_connection_of_another_lease() {
    const GRACE: Duration = Duration::from_secs(9);
    let servers = [Witness::new().server(0).await, Witness::new().server(0).await];
    let mut proxies = Vec::new();
    for server in &servers {
        proxies.push(Proxy::start(&server.local_addr().to_string()).await);
    }
    let both = format!("{},{}", proxies[0].address, proxies[1].address);
    let sharded = Client::builder()
        .servers([&proxies[0].address, &proxies[1].address])
        .build()
        .unwrap();
    let key_of = |shard: usize| {
        let mut keys = (0..).map(|number| format!("key-{number}"));
        keys.find(|key| sharded.shard_of(key).unwrap() == shard).unwrap()
    };
    let keys = format!("{},{}", key_of(0), key_of(1));
    let mut command = dflock();
    command
        .args([
            "run",
            "--keys",
            &keys,
            "--servers",
            &both,
            "--ttl",
            "20s",
            "--grace",
            "9s",
        ])
        .args(["--", "sh", "-c", TALKATIVE]);
    let mut holder = Running::start(&mut command);
    let group = Group::read(&holder.line());
    proxies[0].change(|treatment| {
        treatment.stall_up = true;
        treatment.stall_down = true;
        treatment.stall_ends = true;
    });
    assert_eq!((holder.line(), holder.line()), ("TERM".to_owned(), "TERM".to_owned()));
    let cut = std::time::Instant::now();
    proxies[1].change(|treatment| treatment.refuse = true);
    proxies[1].cut();
    assert_eq!(code(&mut holder).await, 79);
    assert!(group.alive().is_empty());
    assert!(cut.elapsed() < GRACE / 2, "it had its grace: {:?}", cut.elapsed());
    let said = holder.errors();
    assert!(said.contains("it could not be renewed in time"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_watch_that_is_killed_is_replaced_but_not_without_pause() {
    let mut server = Running::start(dflock().args(["serve", "--port", "0"]));
    let address = server.line().strip_prefix("listening on ").unwrap().to_owned();
    let mut holder = run(&address, "key", STUBBORN);
    let group = Group::read(&holder.line());
    let watch = |holder: &Running, last: Option<i32>| {
        let mut found = None;
        until_now("there is a watch", || {
            let mut children = holder.children().into_iter();
            found = children.find(|(id, name)| name == "__watch" && Some(*id) != last);
            found.is_some()
        });
        found.unwrap().0
    };
    let kill = |id| rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
    let first = watch(&holder, None);
    let start = std::time::Instant::now();
    kill(first);
    let second = watch(&holder, Some(first));
    kill(second);
    watch(&holder, Some(second));
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    holder.signal(Signal::KILL);
    until_now("no process of the command is left", || group.alive().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ignored_loss_is_only_reported() {
    let server = Witness::new().server(0).await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let mut command = dflock();
    command
        .args(["run", "key", "--servers", &proxy.address, "--on-loss", "ignore"])
        .args([
            "--",
            "sh",
            "-c",
            r#"trap "echo TERM" TERM; echo $$; read line < "$FIFO"; exit 4"#,
        ]);
    let fifo = std::env::temp_dir().join(format!("dflock-fifo-{}", std::process::id()));
    drop(std::fs::remove_file(&fifo));
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let mut holder = Running::start(command.env("FIFO", &fifo));
    holder.line();
    proxy.change(|treatment| treatment.refuse = true);
    proxy.cut();
    let said = holder.error();
    assert!(said.contains("was lost, and the command goes on"), "{said}");
    std::fs::write(&fifo, "go on\n").unwrap();
    assert_eq!(holder.code(), 4);
    assert_eq!(holder.rest(), "", "no signal has come");
    std::fs::remove_file(fifo).unwrap();
}

#[test]
fn a_dflock_that_is_killed_takes_the_command_with_it() {
    let mut server = Running::start(dflock().args(["serve", "--port", "0"]));
    let address = server.line().strip_prefix("listening on ").unwrap().to_owned();
    for _ in 0..20 {
        let mut holder = run(&address, "key", STUBBORN);
        let group = Group::read(&holder.line());
        holder.signal(Signal::KILL);
        until_now("no process of the command is left", || group.alive().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reelected_leader_runs_the_command_again() {
    let server = Witness::new().server(0).await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let mut command = dflock();
    command
        .args(["elect", "leader", "--servers", &proxy.address])
        .args(TIMES)
        .args(["--", "sh", "-c", "echo $$; while :; do sleep 1; done"]);
    let mut candidate = Running::start(&mut command);
    let first = Group::read(&candidate.line());
    proxy.cut();
    let second = Group::read(&candidate.line());
    assert!(first.alive().is_empty());
    second.signal(Signal::TERM);
    assert_eq!(candidate.code(), 143);
    let said = candidate.errors();
    assert!(
        said.contains("dflock campaigns again") && !said.contains("try:"),
        "{said}"
    );
}
