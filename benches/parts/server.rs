//! Measures the embedded server, which has a thread of its own. The thread of the benchmark makes the load. This thread
//! has little work: it writes prepared bytes, and only copies tokens from the answers into the releases.

use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use dflockd_client::server::Server;
use tokio::runtime::{Builder, Handle};

use crate::CROWD;

/// The number of connections. While the benchmark's thread uses one of them, the server works on the others.
const CONNECTIONS: usize = 4;

/// The length in bytes of a grant, which is `ok <token> 30` and a line end.
const GRANT_BYTES: usize = 39;

/// The position of the token in a grant.
const TOKEN: std::ops::Range<usize> = 3..35;

const DONE: &[u8] = b"ok\n";

pub(crate) fn server(criterion: &mut Criterion) {
    let server = LoneServer::start();
    let mut senders: Vec<Sender> = (0..CONNECTIONS).map(|number| server.connect(number)).collect();
    let mut group = criterion.benchmark_group("embedded server in a thread of its own");
    for (what, rounds) in [
        ("pings", ping_rounds as fn(&mut [Sender], u64) -> u64),
        ("acquires and releases", pair_rounds),
    ] {
        group.throughput(Throughput::Elements(rounds(&mut senders, 1)));
        group.bench_function(what, |bencher| {
            bencher.iter_custom(|iterations| {
                let began = Instant::now();
                rounds(&mut senders, iterations);
                began.elapsed()
            });
        });
        if server.processor_time().is_some() {
            group.bench_function(format!("{what}, processor time of that thread"), |bencher| {
                bencher.iter_custom(|iterations| {
                    let before = server.processor_time().unwrap();
                    rounds(&mut senders, iterations);
                    server.processor_time().unwrap() - before
                });
            });
        }
    }
    group.finish();
}

/// An embedded server, and the runtime of its thread.
struct LoneServer {
    address: SocketAddr,
    runtime: Handle,
}

impl LoneServer {
    fn start() -> Self {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::builder().port(0).start().await.unwrap();
                let address = server.local_addr();
                let runtime = Handle::current();
                tell.send(Self { address, runtime }).unwrap();
                pending::<()>().await;
            })
        });
        told.recv().unwrap()
    }

    /// Returns the processor time of the server's thread, or `None` if the system is not Unix.
    fn processor_time(&self) -> Option<Duration> {
        let (tell, told) = mpsc::channel();
        self.runtime.spawn(async move { tell.send(thread_time()) });
        told.recv().unwrap()
    }

    fn connect(&self, number: usize) -> Sender {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        let keys = (0..CROWD).map(|key| format!("orders/{number}/{key}"));
        let (mut acquires, mut releases, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys {
            write!(acquires, "l\n{key}\n0 30\n").unwrap();
            write!(releases, "r\n{key}\n").unwrap();
            tokens.push(releases.len());
            writeln!(releases, "{}", "0".repeat(TOKEN.len())).unwrap();
        }
        Sender {
            stream,
            acquires,
            releases,
            tokens,
            answers: vec![0; GRANT_BYTES * CROWD],
        }
    }
}

#[cfg(unix)]
fn thread_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Some(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(not(unix))]
fn thread_time() -> Option<Duration> {
    None
}

/// A connection, and the bytes to send over the connection.
struct Sender {
    stream: TcpStream,
    acquires: Vec<u8>,
    releases: Vec<u8>,
    /// The positions of the tokens in `releases`.
    tokens: Vec<usize>,
    answers: Vec<u8>,
}

impl Sender {
    fn ping(&mut self) {
        self.stream.write_all("ping\n_\n_\n".repeat(CROWD).as_bytes()).unwrap();
    }

    fn acquire(&mut self) {
        self.stream.write_all(&self.acquires).unwrap();
    }

    /// Reads the grants, and sends releases with their tokens.
    fn release(&mut self) {
        self.stream.read_exact(&mut self.answers).unwrap();
        for (grant, start) in self.answers.chunks_exact(GRANT_BYTES).zip(&self.tokens) {
            self.releases[*start..start + TOKEN.len()].copy_from_slice(&grant[TOKEN]);
        }
        self.stream.write_all(&self.releases).unwrap();
    }

    /// Reads the answers to pings or releases.
    fn finish(&mut self) {
        let answers = &mut self.answers[..DONE.len() * CROWD];
        self.stream.read_exact(answers).unwrap();
        assert!(answers.chunks_exact(DONE.len()).all(|answer| answer == DONE));
    }
}

/// Makes this many rounds of pings over all connections, and returns the number of requests.
fn ping_rounds(senders: &mut [Sender], rounds: u64) -> u64 {
    senders.iter_mut().for_each(Sender::ping);
    for _ in 1..rounds {
        for sender in &mut *senders {
            sender.finish();
            sender.ping();
        }
    }
    senders.iter_mut().for_each(Sender::finish);
    rounds * (senders.len() * CROWD) as u64
}

/// Makes this many rounds of acquires and releases over all connections, and returns the number of requests.
fn pair_rounds(senders: &mut [Sender], rounds: u64) -> u64 {
    senders.iter_mut().for_each(Sender::acquire);
    for _ in 1..rounds {
        senders.iter_mut().for_each(Sender::release);
        for sender in &mut *senders {
            sender.finish();
            sender.acquire();
        }
    }
    senders.iter_mut().for_each(Sender::release);
    senders.iter_mut().for_each(Sender::finish);
    2 * rounds * (senders.len() * CROWD) as u64
}
