//! Tests of this client with the real Python server, and of the real Python clients with the embedded server. In some
//! tests, Python clients and this client wait in one queue.
//!
//! These tests need the virtual environments that `tests/interop/setup` makes. If an environment is missing, the
//! program prints the name of the environment and runs no tests. With `DFLOCKD_REQUIRE_INTEROP=1`, the program then
//! fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[cfg(unix)]
#[path = "interop/command.rs"]
mod command;
#[path = "interop/signals.rs"]
mod signals;
mod suite;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dflockd_client::server::{Event, EventKind, Server, ServerBuilder, ServerTls};
use dflockd_client::{Client, blocking};
use libtest_mimic::{Arguments, Trial};
use suite::api::on_a_thread;
use suite::peer::{Abilities, PeerFactory};
use suite::trials::trials;
use support::pki::{Authority, Folder};
use support::process::ServerProcess;
use support::until;
use tokio::runtime::Runtime;

/// The read timeout of the Python server. The timeout is short because one test waits for longer than the timeout.
const READ_TIMEOUT: Duration = Duration::from_secs(4);

/// Returns the folder in which `tests/interop/setup` makes its environments.
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
            all.push(trial(&runtime, &format!("python_{name}::over_tls_{with}"), move || {
                python_client_over_tls(environment, auth)
            }));
        }
        all.push(trial(
            &runtime,
            &format!("python_{name}::waits_in_one_queue_with_rust"),
            move || one_queue(environment),
        ));
        all.push(trial(
            &runtime,
            &format!("python_{name}::shares_a_semaphore_with_blocking_threads_in_order"),
            move || one_semaphore_in_order(environment),
        ));
        all.push(trial(
            &runtime,
            &format!("python_{name}::shares_a_semaphore_with_blocking_threads_in_a_crowd"),
            move || one_semaphore_in_a_crowd(environment),
        ));
    }
    for api in ["async", "sync"] {
        let name = format!("python_client_1::signals_{api}");
        all.push(trial(&runtime, &format!("{name}::across"), move || {
            signals::across(api)
        }));
        all.push(trial(&runtime, &format!("{name}::one_group"), move || {
            signals::one_group(api)
        }));
        all.push(trial(&runtime, &format!("{name}::alone"), move || signals::alone(api)));
    }
    let address = server.address.clone();
    all.push(trial(&runtime, "python_server::has_no_signals", move || {
        signals::a_server_without_signals(address)
    }));
    #[cfg(unix)]
    for (name, check) in command::CHECKS {
        let address = server.address.clone();
        all.push(Trial::test(format!("python_server::the_command::{name}"), move || {
            check(&address);
            Ok(())
        }));
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

/// Runs the whole Python suite on its own embedded server.
async fn python_client(environment: &'static str, auth: Option<&'static str>) {
    python_suite(environment, auth, Server::builder(), Vec::new()).await;
}

/// Runs the same suite over TLS. If there is an auth token, the suite also uses a client certificate.
async fn python_client_over_tls(environment: &'static str, auth: Option<&'static str>) {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (identity, client) = (servers.issue(&["127.0.0.1"]), clients.issue(&["python"]));
    let folder = Folder::new();
    let mut tls = ServerTls::pem(identity.certificate, identity.key);
    let mut arguments = vec![("--ca", folder.write("ca.pem", &servers.pem()))];
    if auth.is_some() {
        tls = tls.client_ca_pem(clients.pem());
        arguments.push(("--certificate", folder.write("client.crt", &client.certificate)));
        arguments.push(("--key", folder.write("client.key", &client.key)));
    }
    python_suite(
        environment,
        auth,
        Server::builder().tls(tls.config().unwrap()),
        arguments,
    )
    .await;
}

async fn python_suite(
    environment: &str,
    auth: Option<&'static str>,
    mut builder: ServerBuilder,
    files: Vec<(&'static str, PathBuf)>,
) {
    if let Some(secret) = auth {
        builder = builder.auth_token(secret);
    }
    let server = builder.port(0).start().await.unwrap();
    let mut command = Command::new(python(environment));
    command
        .arg(script("client_suite.py"))
        .args(["127.0.0.1", &server.local_addr().port().to_string()])
        .args(auth.into_iter().flat_map(|secret| ["--auth", secret]))
        .stdin(Stdio::null());
    for (flag, path) in files {
        command.arg(flag).arg(path);
    }
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
        22,
        "{said}"
    );
    let left = server.stats();
    assert!(
        left.locks.is_empty() && left.semaphores.is_empty(),
        "left behind: {left:?}"
    );
}

/// A Python process that waits for a lock, or for a slot of a semaphore.
struct Contender(Child);

impl Contender {
    fn start(environment: &str, server: &Server, key: &str, limit: Option<u32>) -> Self {
        let child = Command::new(python(environment))
            .arg(script("contend.py"))
            .args(["127.0.0.1", &server.local_addr().port().to_string(), key])
            .args(limit.map(|limit| limit.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Waits until the process holds the lock or slot, and returns its token.
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

/// Two Rust tasks and two Python processes request the lock alternately, and get it in the order of their requests.
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
    let mut second = Contender::start(environment, &server, "shared", None);
    queued(1).await;
    let third = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap() }
    });
    queued(2).await;
    let mut fourth = Contender::start(environment, &server, "shared", None);
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

/// Connects a blocking client for threads that wait for at most a minute.
async fn blocking_client(server: &Server) -> blocking::Client {
    let builder = blocking::Client::builder()
        .servers([server.local_addr().to_string()])
        .acquire_timeout(Duration::from_secs(60));
    on_a_thread(|| builder.connect_blocking()).await.unwrap()
}

/// Two slots are held. Rust threads and Python processes then queue alternately, and get slots in the order of their
/// requests.
async fn one_semaphore_in_order(environment: &'static str) {
    const LIMIT: u32 = 2;
    let server = Server::builder().port(0).record_events(true).start().await.unwrap();
    let slots = blocking_client(&server).await.semaphore("shared", LIMIT).unwrap();
    let mut holders = Vec::new();
    for _ in 0..LIMIT {
        let slots = slots.clone();
        holders.push(on_a_thread(move || slots.acquire()).await.unwrap());
    }
    let mut threads = Vec::new();
    let mut processes = Vec::new();
    for number in 1..=6 {
        if number % 2 == 1 {
            let slots = slots.clone();
            threads.push(on_a_thread(move || slots.acquire()?.release()));
        } else {
            processes.push(Contender::start(environment, &server, "shared", Some(LIMIT)));
        }
        let server = &server;
        until("the next waits", move || server.stats().semaphores[0].waiters == number).await;
    }
    // All waiters use this one slot, one after the other.
    let last = holders.pop();
    on_a_thread(move || drop(last)).await;
    for mut process in processes {
        process.granted().await;
        process.release().await;
    }
    for thread in threads {
        thread.await.unwrap();
    }
    let of = |kind: EventKind| -> Vec<u64> {
        let events = server.events();
        events
            .iter()
            .filter(|event| event.kind == kind)
            .map(|event| event.connection)
            .collect()
    };
    // Each waiter has its own connection. So the connections in the events show the order of the waiters.
    assert_eq!(of(EventKind::Granted)[LIMIT as usize..], of(EventKind::Queued));
    assert_eq!(of(EventKind::Queued).len(), 6);
}

/// The number of callers that hold a slot now, and the largest number of callers that held a slot at the same time.
#[derive(Default)]
struct Occupancy {
    inside: AtomicU32,
    most: AtomicU32,
}

impl Occupancy {
    fn enter(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    /// Counts the callers of other processes. Each caller sends `enter` and `leave` over its own connection.
    fn serve(self: &Arc<Self>, listener: TcpListener) {
        let occupancy = Arc::clone(self);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (occupancy, stream) = (Arc::clone(&occupancy), stream.unwrap());
                std::thread::spawn(move || {
                    for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                        match line.as_str() {
                            "enter" => occupancy.enter(),
                            "leave" => occupancy.leave(),
                            other => panic!("{other:?}"),
                        }
                        (&stream).write_all(b"ok\n").unwrap();
                    }
                });
            }
        });
    }
}

/// Four Python threads and four Rust threads share three slots, and each thread acquires a slot 25 times. At most three
/// threads hold a slot at once.
async fn one_semaphore_in_a_crowd(environment: &'static str) {
    const LIMIT: u32 = 3;
    const THREADS: usize = 4;
    const ROUNDS: usize = 25;
    let server = Server::builder().port(0).record_events(true).start().await.unwrap();
    let occupancy = Arc::new(Occupancy::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let occupancy_port = listener.local_addr().unwrap().port();
    occupancy.serve(listener);
    let numbers = [usize::from(occupancy_port), THREADS, ROUNDS].map(|number| number.to_string());
    let mut command = Command::new(python(environment));
    command
        .arg(script("crowd.py"))
        .args(["127.0.0.1", &server.local_addr().port().to_string(), "shared"])
        .arg(LIMIT.to_string())
        .args(numbers)
        .stdin(Stdio::null());
    let crowd = on_a_thread(move || command.output().unwrap());
    let slots = blocking_client(&server).await.semaphore("shared", LIMIT).unwrap();
    let seen = |kind: EventKind| server.events().iter().filter(|event| event.kind == kind).count();
    until("Python has been granted a slot", || seen(EventKind::Granted) > 0).await;
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (slots, occupancy) = (slots.clone(), Arc::clone(&occupancy));
            on_a_thread(move || {
                for _ in 0..ROUNDS {
                    let permit = slots.acquire().unwrap();
                    occupancy.enter();
                    std::thread::yield_now();
                    occupancy.leave();
                    permit.release().unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.await;
    }
    let output = crowd.await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(said.trim(), format!("done {}", THREADS * ROUNDS));
    assert_eq!(seen(EventKind::Granted), 2 * THREADS * ROUNDS);
    assert!(
        seen(EventKind::Queued) > ROUNDS,
        "Python and Rust rarely waited at the same time"
    );
    let most = occupancy.most.load(Ordering::SeqCst);
    assert!((1..=LIMIT).contains(&most), "{most} threads held a slot at once");
    assert!(most_at_once(&server.events()) <= LIMIT);
    assert!(server.stats().semaphores.is_empty());
}

/// Returns the largest number of holders at one time in the events of the server.
fn most_at_once(events: &[Event]) -> u32 {
    let (mut held, mut most) = (0, 0);
    for event in events {
        match event.kind {
            EventKind::Granted => held += 1,
            EventKind::Released | EventKind::Disconnected | EventKind::Expired => held -= 1,
            _ => {}
        }
        most = most.max(held);
    }
    most
}
