//! The ways to make a pair.

use std::error::Error;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::str::FromStr;
use std::time::Instant;

use dflockd_client::blocking::{self, allow_in_runtime};
use dflockd_client::{Client, ClientBuilder, Error as ClientError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};

use crate::round::Latencies;

type Failure = Box<dyn Error + Send + Sync>;

/// A way to make pairs. The table in `main.rs` describes each way.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    Tasks { connections: usize },
    Tls,
    Recorder,
    Layer,
    Threads,
    Bare,
    Socket,
    Handoff,
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "tasks" => Self::Tasks { connections: 1 },
            "tls" => Self::Tls,
            "recorder" => Self::Recorder,
            "layer" => Self::Layer,
            "threads" => Self::Threads,
            "bare" => Self::Bare,
            "socket" => Self::Socket,
            "handoff" => Self::Handoff,
            _ => match text.strip_prefix("tasks:").map(str::parse) {
                Some(Ok(connections)) => Self::Tasks { connections },
                _ => {
                    return Err(
                        "the ways are tasks, tasks:N, tls, recorder, layer, threads, bare, socket and handoff"
                            .to_owned(),
                    );
                }
            },
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tasks { connections: 1 } => f.write_str("tasks"),
            Self::Tasks { connections } => write!(f, "tasks:{connections}"),
            Self::Tls => f.write_str("tls"),
            Self::Recorder => f.write_str("recorder"),
            Self::Layer => f.write_str("layer"),
            Self::Threads => f.write_str("threads"),
            Self::Bare => f.write_str("bare"),
            Self::Socket => f.write_str("socket"),
            Self::Handoff => f.write_str("handoff"),
        }
    }
}

/// What the workers of a way use: a client, the address of a server, or a channel to a task.
pub(crate) enum Workers {
    Tasks(Client),
    Threads(blocking::Client),
    Bare(String),
    Sockets(String),
    Handoffs(mpsc::UnboundedSender<oneshot::Sender<()>>),
}

impl Workers {
    pub(crate) async fn start(way: Way, builder: ClientBuilder, addresses: &[String]) -> Result<Self, Box<dyn Error>> {
        let first = addresses.first().cloned().ok_or("--servers names no server")?;
        Ok(match way {
            Way::Tasks { connections } => Self::Tasks(builder.pipelined_connections(connections).connect().await?),
            Way::Tls | Way::Recorder | Way::Layer => Self::Tasks(builder.connect().await?),
            Way::Threads => Self::Threads(spawn_blocking(|| allow_in_runtime(|| builder.connect_blocking())).await??),
            Way::Bare => Self::Bare(first),
            Way::Socket => Self::Sockets(first),
            Way::Handoff => {
                let (asks, mut asked) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
                tokio::spawn(async move {
                    while let Some(told) = asked.recv().await {
                        let _ = told.send(());
                    }
                });
                Self::Handoffs(asks)
            }
        })
    }

    /// Lets each of `at_once` workers make `each` pairs. Returns the duration of each pair.
    pub(crate) async fn pairs(&self, at_once: usize, each: usize) -> Result<Latencies, Box<dyn Error>> {
        let done = match self {
            Self::Tasks(client) => in_tasks(client, at_once, each).await,
            Self::Bare(server) => over_tokio_sockets(server, at_once, each).await,
            // The threads are outside this runtime, so they do not block the embedded server, which runs in it.
            Self::Threads(client) => {
                let client = client.clone();
                in_threads(
                    at_once,
                    move |worker| {
                        let lock = client.lock(key(worker))?;
                        Ok(move || Ok(lock.acquire()?.release()?))
                    },
                    each,
                )
                .await
            }
            Self::Sockets(server) => {
                let server = server.clone();
                in_threads(at_once, move |worker| blocking_pair(&server, worker), each).await
            }
            Self::Handoffs(asks) => {
                let asks = asks.clone();
                let make = move |_| {
                    let asks = asks.clone();
                    Ok(move || {
                        for _ in 0..2 {
                            let (told, answer) = oneshot::channel();
                            asks.send(told)?;
                            answer.blocking_recv()?;
                        }
                        Ok(())
                    })
                };
                in_threads(at_once, make, each).await
            }
        };
        done.map_err(|error| error.to_string().into())
    }
}

fn key(worker: usize) -> String {
    format!("pairs/{worker}")
}

async fn in_tasks(client: &Client, tasks: usize, each: usize) -> Result<Latencies, Failure> {
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let lock = client.lock(key(task))?;
        running.spawn(async move {
            let mut latencies = Latencies::with_capacity(each);
            for _ in 0..each {
                let began = Instant::now();
                lock.acquire().await?.release().await?;
                latencies.push(began.elapsed());
            }
            Ok::<_, ClientError>(latencies)
        });
    }
    let mut all = Latencies::with_capacity(tasks * each);
    while let Some(finished) = running.join_next().await {
        all.extend(finished??);
    }
    Ok(all)
}

async fn over_tokio_sockets(server: &str, tasks: usize, each: usize) -> Result<Latencies, Failure> {
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        running.spawn(async move {
            let mut latencies = Latencies::with_capacity(each);
            let (mut stream, mut line) = (BufStream::new(stream), String::new());
            let acquire = acquire(task);
            for _ in 0..each {
                let began = Instant::now();
                for step in [Step::Acquire, Step::Release] {
                    let request = step.request(&acquire, task, &line)?;
                    stream.write_all(request.as_bytes()).await?;
                    stream.flush().await?;
                    line.clear();
                    stream.read_line(&mut line).await?;
                    check(&line)?;
                }
                latencies.push(began.elapsed());
            }
            Ok::<_, Failure>(latencies)
        });
    }
    let mut all = Latencies::with_capacity(tasks * each);
    while let Some(finished) = running.join_next().await {
        all.extend(finished??);
    }
    Ok(all)
}

/// Lets each thread make `each` pairs. `make` gets the number of a thread, and returns the function that makes one
/// pair.
async fn in_threads<P>(
    threads: usize,
    make: impl Fn(usize) -> Result<P, Failure>,
    each: usize,
) -> Result<Latencies, Failure>
where
    P: FnMut() -> Result<(), Failure> + Send + 'static,
{
    let mut running = Vec::new();
    for thread in 0..threads {
        let mut pair = make(thread)?;
        running.push(std::thread::spawn(move || {
            let mut latencies = Latencies::with_capacity(each);
            for _ in 0..each {
                let began = Instant::now();
                pair()?;
                latencies.push(began.elapsed());
            }
            Ok::<_, Failure>(latencies)
        }));
    }
    let joined = spawn_blocking(move || {
        let mut all = Latencies::with_capacity(threads * each);
        for thread in running {
            all.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok::<_, Failure>(all)
    });
    joined.await?
}

/// Connects a blocking socket, and returns a function that makes one pair over the socket.
fn blocking_pair(server: &str, worker: usize) -> Result<impl FnMut() -> Result<(), Failure> + use<>, Failure> {
    let stream = std::net::TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    let (mut stream, mut line, acquire) = (BufReader::new(stream), String::new(), acquire(worker));
    Ok(move || {
        for step in [Step::Acquire, Step::Release] {
            let request = step.request(&acquire, worker, &line)?;
            stream.get_mut().write_all(request.as_bytes())?;
            line.clear();
            stream.read_line(&mut line)?;
            check(&line)?;
        }
        Ok(())
    })
}

/// The requests of a pair.
enum Step {
    Acquire,
    Release,
}

impl Step {
    /// Returns the request of this step. `answer` is the answer to the previous request.
    fn request(&self, acquire: &str, worker: usize, answer: &str) -> Result<String, Failure> {
        Ok(match self {
            Self::Acquire => acquire.to_owned(),
            Self::Release => {
                let token = answer.split(' ').nth(1).ok_or("a grant without a token")?;
                format!("r\n{}\n{token}\n", key(worker))
            }
        })
    }
}

fn acquire(worker: usize) -> String {
    format!("l\n{}\n10\n", key(worker))
}

fn check(line: &str) -> Result<(), Failure> {
    match line.trim_end().split(' ').next() {
        Some("ok") => Ok(()),
        _ => Err(format!("the server answered {line:?}").into()),
    }
}
