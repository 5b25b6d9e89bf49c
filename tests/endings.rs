//! Tests of processes that end while they hold a lock. Each process is a child of the test: the test starts its own
//! program again.
//!
//! A child that holds the lock drops the guard, panics, exits, aborts, forks, or is killed. No child hangs. The lock
//! becomes free at the end of its lease at the latest. It becomes free at once if the server releases locks on
//! disconnect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::io::{Read, Write};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dflockd_client::blocking::{self, DistributedLock, Enqueued};
use dflockd_client::server::{EventKind, Server};
use dflockd_client::{Client, Error, ErrorKind};
use libtest_mimic::{Arguments, Failed, Trial};
use support::process::first_line;
use support::until_now;
use tokio::runtime::Runtime;

/// The TTL of the children's leases.
const TTL: Duration = Duration::from_secs(2);

/// The longest time for which the test waits for a child.
const PATIENCE: Duration = Duration::from_secs(30);

/// The environment variables of a child: the name of its ending in [`ENDINGS`], and the address of its server.
const ENDING: &str = "DFLOCKD_TEST_ENDING";
const SERVER: &str = "DFLOCKD_TEST_ENDING_SERVER";

/// A way to end: its name, what the child does, and what must then happen to the child's process.
struct Ending {
    name: &'static str,
    run: fn(Setup),
    ends: Ends,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// The process ends with this exit code.
    Code(i32),
    /// The process ends by this signal, which it raises itself.
    Signal(i32),
    /// The process holds the lock until the test kills it.
    Killed,
    /// The process releases the lock, and lives on until the test tells it to end.
    Lives,
    /// The process lives on, but its runtime has ended. So the guard cannot release the lock. The connection ends.
    LivesWithoutRuntime,
}

const ENDINGS: &[Ending] = &[
    Ending {
        name: "a_guard_that_is_dropped",
        run: drop_the_guard,
        ends: Ends::Lives,
    },
    Ending {
        name: "a_guard_that_is_dropped_before_main_returns",
        run: drop_and_return,
        ends: Ends::Code(0),
    },
    Ending {
        name: "a_guard_that_is_forgotten",
        run: forget,
        ends: Ends::Code(0),
    },
    Ending {
        name: "an_exit_inside",
        run: exit_inside,
        ends: Ends::Code(3),
    },
    Ending {
        name: "an_exit_while_others_wait",
        run: exit_while_others_wait,
        ends: Ends::Code(3),
    },
    Ending {
        name: "an_abort_inside",
        run: abort_inside,
        ends: Ends::Signal(6),
    },
    Ending {
        name: "a_panic_in_a_thread",
        run: panic_in_a_thread,
        ends: Ends::Lives,
    },
    Ending {
        name: "a_panic_in_main",
        run: panic_in_main,
        ends: Ends::Code(101),
    },
    Ending {
        name: "a_kill",
        run: hold_for_ever,
        ends: Ends::Killed,
    },
    Ending {
        name: "everything_dropped_from_everywhere",
        run: drop_everything,
        ends: Ends::Code(0),
    },
    Ending {
        name: "async_a_guard_that_is_dropped",
        run: async_drop,
        ends: Ends::Lives,
    },
    Ending {
        name: "async_a_panic_in_a_task",
        run: async_panic_in_a_task,
        ends: Ends::Lives,
    },
    Ending {
        name: "async_a_panic_in_main",
        run: async_panic_in_main,
        ends: Ends::Code(101),
    },
    Ending {
        name: "async_an_exit_inside",
        run: async_exit,
        ends: Ends::Code(3),
    },
    Ending {
        name: "async_a_runtime_dropped_inside",
        run: async_runtime_dropped,
        ends: Ends::LivesWithoutRuntime,
    },
    Ending {
        name: "async_a_kill",
        run: async_hold_for_ever,
        ends: Ends::Killed,
    },
];

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(ENDING) {
        run_child(&name);
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for ending in ENDINGS {
        for auto_release in [true, false] {
            let server = if auto_release {
                ""
            } else {
                "_and_a_server_that_releases_nothing"
            };
            let name = format!("{}{server}", ending.name);
            trials.push(Trial::test(name, move || watch(ending, auto_release)));
        }
    }
    trials.push(Trial::test("two_background_threads_serve_all_clients", || {
        run_to_its_end("threads")
    }));
    trials.push(Trial::test("children_that_are_forked_neither_hang_nor_release", || {
        run_to_its_end("fork")
    }));
    // The tests mostly wait, so more tests run at once than there are cores.
    let arguments = Arguments {
        test_threads: arguments.test_threads.or(Some(8)),
        ..arguments
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

// Functions of the parent process.

/// A child that is killed when the test is over.
struct ChildProcess {
    child: Child,
    /// The standard input of the child. Closing it tells the child to end.
    stdin: Option<std::process::ChildStdin>,
}

impl ChildProcess {
    fn start(name: &str, server: &Server) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        lead_a_group(&mut command);
        let mut child = command
            .env(ENDING, name)
            .env(SERVER, server.local_addr().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Some children panic on purpose, so the test does not show their messages.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        Self { child, stdin }
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until_now("the child ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // After a child has ended, its process id may belong to another process.
        if self.lives() {
            kill_its_children(&self.child);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn server(runtime: &Runtime, auto_release: bool) -> Server {
    let server = Server::builder()
        .port(0)
        .record_events(true)
        .lease_sweep_interval(Duration::from_millis(20))
        .auto_release_on_disconnect(auto_release);
    runtime.block_on(server.start()).unwrap()
}

/// Watches how a child ends, and what happens to its lock.
fn watch(ending: &Ending, auto_release: bool) -> Result<(), Failed> {
    let runtime = Runtime::new().unwrap();
    let server = server(&runtime, auto_release);
    let mut process = ChildProcess::start(ending.name, &server);
    first_line(&mut process.child, "held");
    if ending.ends == Ends::Killed {
        // This is longer than the TTL. The holder renews its lease as long as the holder's process lives.
        thread::sleep(TTL.mul_f64(1.25));
        assert_eq!(server.stats().locks.len(), 1);
        process.child.kill().unwrap();
    }
    let over = Instant::now();
    let lives = matches!(ending.ends, Ends::Lives | Ends::LivesWithoutRuntime);
    if !lives {
        let status = process.ended();
        match ending.ends {
            Ends::Code(code) => assert_eq!(status.code(), Some(code), "{status}"),
            Ends::Signal(signal) => assert_eq!(signal_of(status), Some(signal), "{status}"),
            Ends::Killed | Ends::Lives | Ends::LivesWithoutRuntime => assert_eq!(status.code(), None),
        }
        assert!(over.elapsed() < PATIENCE / 2, "it hung for {:?}", over.elapsed());
    }
    until_now("its lock is free", || server.stats().locks.is_empty());
    assert!(over.elapsed() < TTL + Duration::from_secs(2), "{:?}", over.elapsed());
    if lives {
        assert!(process.lives());
        drop(process.stdin.take());
        assert!(process.ended().success());
    }
    if ending.ends == Ends::Lives || auto_release {
        assert_eq!(
            seen(&server, EventKind::Expired),
            0,
            "the lease was released, or the server saw the disconnect"
        );
    }
    Ok(())
}

fn seen(server: &Server, kind: EventKind) -> usize {
    server.events().iter().filter(|event| event.kind == kind).count()
}

/// Makes the command the leader of a process group, to which all processes that it forks belong.
#[cfg(unix)]
fn lead_a_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

/// Kills the processes that a child has forked. If a forked process hangs, the test fails, and the process must not
/// remain.
#[cfg(unix)]
fn kill_its_children(leader: &Child) {
    let group = format!("-{}", leader.id());
    let kill = Command::new("kill")
        .args(["-9", "--", &group])
        .stderr(Stdio::null())
        .status();
    drop(kill);
}

#[cfg(not(unix))]
fn lead_a_group(_: &mut Command) {}

#[cfg(not(unix))]
fn kill_its_children(_: &Child) {}

#[cfg(unix)]
fn signal_of(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal_of(_: ExitStatus) -> Option<i32> {
    None
}

/// Runs a child that checks its own results. If the child fails, the test fails with the child's output.
fn run_to_its_end(name: &str) -> Result<(), Failed> {
    let runtime = Runtime::new().unwrap();
    let server = server(&runtime, true);
    let mut process = ChildProcess::start(name, &server);
    let status = process.ended();
    let mut said = String::new();
    process.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.success(), "{status}: {said}");
    until_now("nothing is left", || server.stats().connections == 0);
    assert_eq!(seen(&server, EventKind::Expired), 0);
    Ok(())
}

// Functions of the child processes.

/// The argument of each child's function.
struct Setup {
    server: String,
}

fn run_child(name: &str) {
    let server = std::env::var(SERVER).unwrap();
    let setup = Setup { server };
    match name {
        "threads" => return count_threads(&setup),
        "fork" => return fork_again_and_again(&setup),
        _ => {}
    }
    let ending = ENDINGS.iter().find(|ending| ending.name == name).unwrap();
    (ending.run)(setup);
}

impl Setup {
    fn client(&self) -> blocking::Client {
        let builder = blocking::Client::builder().servers([&self.server]).lease_ttl(TTL);
        builder.connect_blocking().unwrap()
    }

    fn lock(&self) -> blocking::Lock {
        self.client().lock("k").unwrap()
    }

    fn runtime(&self) -> Runtime {
        Runtime::new().unwrap()
    }

    async fn async_lock(&self) -> dflockd_client::Lock {
        let builder = Client::builder().servers([&self.server]).lease_ttl(TTL);
        builder.connect().await.unwrap().lock("k").unwrap()
    }
}

/// Tells the parent that the lock is held.
fn held() {
    println!("held");
    std::io::stdout().flush().unwrap();
}

fn until_told_to_end() {
    drop(std::io::stdin().read(&mut [0]));
}

fn drop_the_guard(setup: Setup) {
    let guard = setup.lock().acquire().unwrap();
    held();
    drop(guard);
    until_told_to_end();
}

fn drop_and_return(setup: Setup) {
    let _guard = setup.lock().acquire().unwrap();
    held();
}

fn forget(setup: Setup) {
    std::mem::forget(setup.lock().acquire().unwrap());
    held();
}

fn exit_inside(setup: Setup) {
    let _guard = setup.lock().acquire().unwrap();
    held();
    std::process::exit(3);
}

fn exit_while_others_wait(setup: Setup) {
    let lock = setup.lock();
    let _guard = lock.acquire().unwrap();
    let (asking, asked) = std::sync::mpsc::channel();
    for _ in 0..4 {
        let (lock, asking) = (lock.clone(), asking.clone());
        thread::spawn(move || {
            asking.send(()).unwrap();
            drop(lock.acquire_timeout(PATIENCE).acquire());
        });
    }
    (0..4).for_each(|_| asked.recv().unwrap());
    let _place = lock.enqueue().unwrap();
    held();
    std::process::exit(3);
}

fn abort_inside(setup: Setup) {
    let _guard = setup.lock().acquire().unwrap();
    held();
    std::process::abort();
}

fn panic_in_a_thread(setup: Setup) {
    let lock = setup.lock();
    let working = thread::spawn(move || {
        let _guard = lock.acquire().unwrap();
        held();
        panic!("on purpose");
    });
    assert!(working.join().is_err());
    until_told_to_end();
}

fn panic_in_main(setup: Setup) {
    let _guard = setup.lock().acquire().unwrap();
    held();
    panic!("on purpose");
}

fn hold_for_ever(setup: Setup) {
    let _guard = setup.lock().acquire().unwrap();
    held();
    until_told_to_end();
}

/// Drops clients and all that they return in eight threads at the same time, and then returns from main.
fn drop_everything(setup: Setup) {
    let first = setup.lock().acquire().unwrap();
    held();
    let mut threads = Vec::new();
    for number in 0..8 {
        let (client, own) = (setup.client(), setup.server.clone());
        threads.push(thread::spawn(move || {
            let other = client.lock(format!("other/{number}")).unwrap();
            let guard = other.acquire().unwrap();
            guard.when_lost(|_| {}).unwrap();
            let place = client.lock("k").unwrap().enqueue().unwrap();
            let options = blocking::Client::builder().servers([own]).lease_ttl(TTL);
            let mut object = DistributedLock::with_options(format!("own/{number}"), options).unwrap();
            assert!(object.acquire().unwrap());
            if number % 2 == 0 {
                drop(client);
            }
            drop((object, place));
            // The thread drops its other values when it ends.
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(first);
}

fn async_drop(setup: Setup) {
    setup.runtime().block_on(async {
        let guard = setup.async_lock().await.acquire().await.unwrap();
        held();
        drop(guard);
        tokio::task::spawn_blocking(until_told_to_end).await.unwrap();
    });
}

fn async_panic_in_a_task(setup: Setup) {
    setup.runtime().block_on(async {
        let lock = setup.async_lock().await;
        let work = async move {
            lock.with_lock(async |_| -> Result<(), Error> {
                held();
                panic!("on purpose");
            })
            .await
        };
        assert!(tokio::spawn(work).await.unwrap_err().is_panic());
        tokio::task::spawn_blocking(until_told_to_end).await.unwrap();
    });
}

fn async_panic_in_main(setup: Setup) {
    setup.runtime().block_on(async {
        let _guard = setup.async_lock().await.acquire().await.unwrap();
        held();
        panic!("on purpose");
    });
}

fn async_exit(setup: Setup) {
    setup.runtime().block_on(async {
        let _guard = setup.async_lock().await.acquire().await.unwrap();
        held();
        std::process::exit(3);
    });
}

/// The guard outlives the runtime that renews it.
fn async_runtime_dropped(setup: Setup) {
    let runtime = setup.runtime();
    let guard = runtime.block_on(async { setup.async_lock().await.acquire().await.unwrap() });
    held();
    drop(runtime);
    assert!(!guard.is_held());
    drop(guard);
    until_told_to_end();
}

fn async_hold_for_ever(setup: Setup) {
    setup.runtime().block_on(async {
        let _guard = setup.async_lock().await.acquire().await.unwrap();
        held();
        tokio::task::spawn_blocking(until_told_to_end).await.unwrap();
    });
}

/// Checks on Linux that all clients together have two background threads.
fn count_threads(setup: &Setup) {
    let clients: Vec<_> = (0..8).map(|_| setup.client()).collect();
    let using: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(number, client)| {
            thread::spawn(move || {
                let lock = client.lock(format!("k{number}")).unwrap();
                (0..20).for_each(|_| lock.acquire().unwrap().release().unwrap());
            })
        })
        .collect();
    using.into_iter().for_each(|thread| thread.join().unwrap());
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return;
    };
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let names: Vec<_> = names.filter(|name| name.starts_with("dflockd")).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

/// Forks while other threads use the client. A child must not hang, and it must not use or release a lease of its
/// parent.
#[cfg(unix)]
fn fork_again_and_again(setup: &Setup) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    let done = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..4)
        .map(|number| {
            let (lock, done) = (
                setup.client().lock(format!("busy/{number}")).unwrap(),
                Arc::clone(&done),
            );
            thread::spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    lock.acquire().unwrap().release().unwrap();
                }
            })
        })
        .collect();
    let client = setup.client();
    let mut held = vec![client.lock("k").unwrap().acquire().unwrap()];
    held[0].when_lost(|reason| panic!("{reason}")).unwrap();
    let mut objects = vec![DistributedLock::from(client.lock("object").unwrap())];
    assert!(objects[0].acquire().unwrap());
    let mut all = vec![client.lock_all(["a", "b"]).unwrap().acquire().unwrap()];
    let Enqueued::Queued(place) = client.lock("k").unwrap().enqueue().unwrap() else {
        panic!("it is held");
    };
    let mut places = vec![place];
    let mut clients = vec![client];
    for _ in 0..100 {
        match fork::fork().unwrap() {
            fork::Fork::Child => {
                // The child prints nothing, because a thread of the parent may have held the mutex of standard output
                // during the fork.
                let misused = |result: Result<(), Error>| result.is_err_and(|error| error.kind() == ErrorKind::Misuse);
                let client = clients.remove(0);
                let mut good = misused(client.lock("new").and_then(|lock| lock.acquire().map(drop)));
                good &= misused(client.stats().map(drop));
                good &= misused(blocking::Client::builder().build_blocking().map(drop));
                good &= misused(places.remove(0).wait(PATIENCE).map(drop));
                good &= misused(objects.remove(0).release().map(drop));
                good &= misused(held.remove(0).release());
                drop(all.remove(0));
                drop(client);
                std::process::exit(if good { 0 } else { 17 });
            }
            fork::Fork::Parent(child) => assert_eq!(fork::waitpid(child).unwrap(), 0, "the child's status"),
        }
    }
    done.store(true, Ordering::SeqCst);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    // The children have changed nothing in the parent.
    thread::sleep(TTL);
    assert!(held[0].is_held() && objects[0].is_held() && all[0].is_held());
    assert_eq!(clients[0].stats().unwrap().locks.len(), 4);
    held.remove(0).release().unwrap();
    places.remove(0).wait(PATIENCE).unwrap().release().unwrap();
    assert!(objects[0].release().unwrap());
    all.remove(0).release().unwrap();
}

#[cfg(not(unix))]
fn fork_again_and_again(_: &Setup) {}
