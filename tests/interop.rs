//! Strangers: the real Python server under this client, the real Python clients on the embedded server, and both kinds
//! of client in one queue.
//!
//! They need the virtual environments that `tests/interop/setup` makes. Without them nothing is run, and that is said;
//! with `DFLOCKD_REQUIRE_INTEROP=1` it is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod suite;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use dflockd_client::Client;
use dflockd_client::server::{EventKind, Server};
use libtest_mimic::{Arguments, Trial};
use suite::peer::{Abilities, PeerFactory};
use suite::trials::trials;
use support::process::ServerProcess;
use support::until;
use tokio::runtime::Runtime;

/// The read timeout that the Python server is started with: short, so that a test can outlive it.
const READ_TIMEOUT: Duration = Duration::from_secs(4);

/// Where `tests/interop/setup` puts its environments.
fn environments() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root.join(target).join("interop"),
        None => root.join("target/interop"),
    }
}

fn python(environment: &str) -> PathBuf {
    environments().join(environment).join("bin/python")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing: Vec<&str> = ["server", "client-1", "client-2"]
        .into_iter()
        .filter(|name| !environments().join(name).join("made").exists())
        .collect();
    if !missing.is_empty() {
        println!(
            "interop was not run: {} has no {} (tests/interop/setup makes them; it needs Python 3.11)",
            environments().display(),
            missing.join(", ")
        );
        let required = std::env::var_os("DFLOCKD_REQUIRE_INTEROP").is_some_and(|value| value != "0");
        return if required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();

    let mut command = Command::new(environments().join("server/bin/dflockd"));
    command.args(["--max-locks", "100000", "--read-timeout"]);
    command.arg(READ_TIMEOUT.as_secs().to_string());
    let server = ServerProcess::start(command);
    let factory = PeerFactory::of(&server.address, READ_TIMEOUT);
    let abilities = runtime.block_on(Abilities::probe(&factory));

    let mut all = trials(&runtime, &factory, &abilities, "python_server::");
    for (environment, name) in [("client-1", "client_1"), ("client-2", "client_2")] {
        for auth in [None, Some("s3cret")] {
            let with = if auth.is_some() { "with_auth" } else { "without_auth" };
            all.push(trial(&runtime, &format!("python_{name}::{with}"), move || {
                python_client(environment, auth)
            }));
        }
        all.push(trial(
            &runtime,
            &format!("python_{name}::waits_in_one_queue_with_rust"),
            move || one_queue(environment),
        ));
    }
    let arguments = Arguments {
        test_threads: arguments.test_threads.or(Some(16)),
        ..arguments
    };
    libtest_mimic::run(&arguments, all).exit_code()
}

fn trial<F>(runtime: &Runtime, name: &str, run: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let handle = runtime.handle().clone();
    Trial::test(name, move || {
        handle.block_on(run());
        Ok(())
    })
}

/// The whole Python suite on an embedded server of its own.
async fn python_client(environment: &'static str, auth: Option<&'static str>) {
    let mut builder = Server::builder().port(0);
    if let Some(secret) = auth {
        builder = builder.auth_token(secret).unwrap();
    }
    let server = builder.start().await.unwrap();
    let mut command = Command::new(python(environment));
    command
        .arg(script("client_suite.py"))
        .args(["127.0.0.1", &server.local_addr().port().to_string()])
        .args(auth.into_iter().flat_map(|secret| ["--auth", secret]))
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        said.lines().filter(|line| line.starts_with("ok ")).count(),
        20,
        "{said}"
    );
    let left = server.stats();
    assert!(
        left.locks.is_empty() && left.semaphores.is_empty(),
        "left behind: {left:?}"
    );
}

/// A Python process that waits for a lock.
struct Contender(Child);

impl Contender {
    fn start(environment: &str, server: &Server, key: &str) -> Self {
        let child = Command::new(python(environment))
            .arg(script("contend.py"))
            .args(["127.0.0.1", &server.local_addr().port().to_string(), key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Its token, once it holds the lock.
    async fn granted(&mut self) -> String {
        let stdout = self.0.stdout.take().unwrap();
        tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            line.trim().strip_prefix("granted ").expect("it says so").to_owned()
        })
        .await
        .unwrap()
    }

    async fn release(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let ended = tokio::task::spawn_blocking(move || self.0.wait().unwrap());
        assert!(ended.await.unwrap().success());
    }
}

/// Rust, Python, Rust, Python: whoever came first is served first.
async fn one_queue(environment: &'static str) {
    let server = Server::builder().port(0).record_events(true).start().await.unwrap();
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        .acquire_timeout(Duration::from_secs(60))
        .connect()
        .await
        .unwrap();
    let lock = client.lock("shared").unwrap();
    let first = lock.acquire().await.unwrap();
    let queued = |count: u64| {
        let server = &server;
        until("the next waits", move || server.stats().locks[0].waiters == count)
    };
    let mut second = Contender::start(environment, &server, "shared");
    queued(1).await;
    let third = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap() }
    });
    queued(2).await;
    let mut fourth = Contender::start(environment, &server, "shared");
    queued(3).await;

    let mut tokens = vec![first.token().as_str().to_owned()];
    first.release().await.unwrap();
    tokens.push(second.granted().await);
    assert!(!third.is_finished(), "Python came first");
    second.release().await;
    let third = third.await.unwrap();
    tokens.push(third.token().as_str().to_owned());
    third.release().await.unwrap();
    tokens.push(fourth.granted().await);
    fourth.release().await;

    let granted: Vec<String> = server
        .events()
        .iter()
        .filter(|event| event.kind == EventKind::Granted)
        .filter_map(|event| event.token.map(|token| token.as_str().to_owned()))
        .collect();
    assert_eq!(granted, tokens);
}
