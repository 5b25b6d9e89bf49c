//! The embedded server as a process of its own, which tests can stop and kill, with its record of events.
//!
//! The process is this test binary, which runs one ignored test. At each grant it looks for living processes of the
//! groups that held the key before.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dflockd_client::server::{Event, EventKind, Server};
use rustix::process::{Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::tool::{Group, id};

const TEST: &str = "server_process::is_the_process_of_other_tests";
const PORT: &str = "DFLOCKD_TEST_SERVER_PORT";
const WATCHED: &str = "DFLOCKD_TEST_SERVER_WATCHED";
/// The start of the server's lines, among those of the test harness.
const MARK: &str = "@ ";

/// Longer than any wait for an event.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server process. It is killed when this is dropped.
pub struct ServerProcess {
    child: Child,
    orders: ChildStdin,
    events: Receiver<(Instant, String)>,
    pub address: String,
}

impl ServerProcess {
    /// Starts a server on a port, or on a free one if the port is 0. `watched` is a key and the group that held it at
    /// another server.
    pub fn start(port: u16, watched: Option<(&str, Group)>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([TEST, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(PORT, port.to_string());
        if let Some((key, group)) = watched {
            command.env(WATCHED, order(key, group));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, events) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // The harness may have begun the line with text of its own.
                if let Some((_, event)) = line.split_once(MARK) {
                    drop(tell.send((Instant::now(), event.to_owned())));
                }
            }
        });
        let mut server = Self {
            orders: child.stdin.take().unwrap(),
            child,
            events,
            address: String::new(),
        };
        let (_, address) = server.event("listening on ");
        server.address = address;
        server
    }

    /// Returns the time and the rest of the next event that begins with `start`. Skips other events.
    pub fn event(&self, start: &str) -> (Instant, String) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            let (at, event) = self
                .events
                .recv_timeout(left)
                .unwrap_or_else(|error| panic!("no event {start:?}: {error}"));
            if let Some(rest) = event.strip_prefix(start) {
                return (at, rest.to_owned());
            }
        }
    }

    /// Watches a group: each later grant of the key reports which of its processes are alive.
    pub fn watch(&mut self, key: &str, group: Group) {
        writeln!(self.orders, "{}", order(key, group)).unwrap();
        self.event(&format!("watches {key}"));
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(id(&self.child), signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn order(key: &str, group: Group) -> String {
    format!("{key} {}", group.number())
}

fn tell(event: &str) {
    println!("{MARK}{event}");
}

/// The groups that held a key before.
#[derive(Clone, Default)]
struct Watched(Arc<Mutex<Vec<(String, Group)>>>);

impl Watched {
    fn add(&self, order: &str) {
        let (key, group) = order.split_once(' ').unwrap();
        self.0.lock().unwrap().push((key.to_owned(), Group::read(group)));
        tell(&format!("watches {key}"));
    }

    fn alive(&self, key: &str) -> Vec<(i32, char)> {
        let watched = self.0.lock().unwrap();
        let of_key = watched.iter().filter(|(of, _)| of == key);
        of_key.flat_map(|(_, group)| group.alive()).collect()
    }

    fn take(&self, event: &Event) {
        let key = event.key.as_str();
        match event.kind {
            EventKind::Granted => tell(&format!("granted {key} {:?}", self.alive(key))),
            EventKind::Renewed => tell(&format!("renewed {key}")),
            EventKind::Queued => tell(&format!("queued {key}")),
            _ => {}
        }
    }
}

/// The server process. It ends when its standard input ends, and drains at TERM.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "other tests start it as a process of its own"]
async fn is_the_process_of_other_tests() {
    // `cargo test -- --include-ignored` runs it without another test.
    let Ok(port) = std::env::var(PORT) else {
        println!("skipped: {PORT} is not set, so no other test has started this one");
        return;
    };
    let mut term = signal(SignalKind::terminate()).unwrap();
    let watched = Watched::default();
    if let Ok(order) = std::env::var(WATCHED) {
        watched.add(&order);
    }
    let of_server = watched.clone();
    let server = Server::builder()
        .port(port.parse().unwrap())
        .lease_sweep_interval(Duration::from_millis(20))
        .shutdown_timeout(Duration::from_secs(5))
        .on_event(move |event| of_server.take(event))
        .start()
        .await
        .unwrap();
    std::thread::spawn(move || {
        for order in std::io::stdin().lock().lines().map_while(Result::ok) {
            watched.add(&order);
        }
        std::process::exit(0);
    });
    tell(&format!("listening on {}", server.local_addr()));
    term.recv().await;
    server.shutdown().await;
}
