//! The programs whose instructions are counted.

use std::error::Error;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use dflockd_client::server::{Listener, Server};
use dflockd_client::{Client, Lock};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

type Done = Result<(), Box<dyn Error>>;

pub(crate) struct Program {
    /// Describes one operation.
    pub(crate) name: &'static str,
    /// The number of operations of the shorter run.
    pub(crate) operations: usize,
    what: What,
}

enum What {
    Bare,
    Pairs { tasks: usize },
    Held,
    Signals,
    Greetings,
}

pub(crate) const PROGRAMS: [Program; 6] = [
    Program {
        name: "pair without the client",
        operations: 2_000,
        what: What::Bare,
    },
    Program {
        name: "pair of one task",
        operations: 1_000,
        what: What::Pairs { tasks: 1 },
    },
    Program {
        name: "pair of 100 tasks",
        operations: 2_000,
        what: What::Pairs { tasks: 100 },
    },
    Program {
        name: "lease of 100, held for a TTL of 10 s",
        operations: 400,
        what: What::Held,
    },
    Program {
        name: "signal from emit to a subscriber",
        operations: 1_000,
        what: What::Signals,
    },
    Program {
        name: "client that connects and shuts down",
        operations: 50,
        what: What::Greetings,
    },
];

/// The number of leases that one program holds at the same time.
const LEASES: usize = 100;

const TTL: Duration = Duration::from_secs(10);

impl Program {
    /// Makes this many operations.
    pub(crate) fn run(&self, operations: usize) -> Done {
        // The client adds random times (jitter) to its pauses. With this seed, these times are the same in each run.
        fastrand::seed(7);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        runtime.block_on(async {
            match self.what {
                What::Bare => bare(operations).await,
                What::Pairs { tasks } => pairs(tasks, operations / tasks).await,
                What::Held => held(operations / LEASES).await,
                What::Signals => signals(operations).await,
                What::Greetings => greetings(operations).await,
            }
        })
    }
}

/// Accepts pipes in memory as connections.
struct InMemory(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for InMemory {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<DuplexStream> {
        match self.0.recv().await {
            Some(stream) => Ok(stream),
            None => pending().await,
        }
    }
}

/// An embedded server whose connections are pipes in memory.
struct Lone {
    _server: Server,
    connect: mpsc::UnboundedSender<DuplexStream>,
}

impl Lone {
    async fn start(release: &str) -> Result<Self, Box<dyn Error>> {
        let (connect, accepted) = mpsc::unbounded_channel();
        let address = SocketAddr::from(([10, 0, 0, 1], 6388));
        let server = Server::builder().release(release).seed(7);
        Ok(Self {
            _server: server.start_on(InMemory(accepted), address).await?,
            connect,
        })
    }

    fn open(&self) -> io::Result<DuplexStream> {
        open(&self.connect)
    }

    async fn client(&self) -> Result<Client, dflockd_client::Error> {
        let connect = self.connect.clone();
        let connector = tower::service_fn(move |_| {
            let opened = open(&connect);
            async { opened }
        });
        let client = Client::builder().servers(["10.0.0.1:6388"]).connector(connector);
        client.connect().await
    }
}

fn open(connect: &mpsc::UnboundedSender<DuplexStream>) -> io::Result<DuplexStream> {
    let (near, far) = duplex(64 * 1024);
    connect.send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
    Ok(near)
}

/// Makes pairs without the client. The program `pair of one task` makes the same pairs with the client. The difference
/// between the two is the cost of the client.
async fn bare(pairs: usize) -> Done {
    let server = Lone::start("2.1").await?;
    let (mut stream, mut line) = (BufReader::new(server.open()?), String::new());
    for _ in 0..pairs {
        stream.write_all(b"l\nkeys/0\n0\n").await?;
        line.clear();
        stream.read_line(&mut line).await?;
        let token = line.split(' ').nth(1).ok_or("a grant without a token")?;
        let release = format!("r\nkeys/0\n{token}\n");
        stream.write_all(release.as_bytes()).await?;
        line.clear();
        stream.read_line(&mut line).await?;
    }
    Ok(())
}

async fn pairs(tasks: usize, each: usize) -> Done {
    let server = Lone::start("2.1").await?;
    let client = server.client().await?;
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let lock = client.lock(format!("keys/{task}"))?;
        running.spawn(async move {
            for _ in 0..each {
                lock.acquire().await?.release().await?;
            }
            Ok::<_, dflockd_client::Error>(())
        });
    }
    while let Some(finished) = running.join_next().await {
        finished??;
    }
    Ok(())
}

/// Holds leases for this many TTLs. The client renews the leases during this time.
async fn held(ttls: usize) -> Done {
    let server = Lone::start("2.1").await?;
    let client = server.client().await?;
    let mut guards = Vec::new();
    for number in 0..LEASES {
        let lock: Lock = client.lock(format!("keys/{number}"))?.lease_ttl(TTL);
        guards.push(lock.acquire().await?);
    }
    for _ in 0..ttls {
        sleep(TTL).await;
    }
    match guards.iter().all(|guard| guard.is_held()) {
        true => Ok(()),
        false => Err("a lease was lost".into()),
    }
}

async fn signals(signals: usize) -> Done {
    let server = Lone::start("1.16").await?;
    let client = server.client().await?;
    let mut subscribed = client.subscribe("orders.*").await?;
    for _ in 0..signals {
        client.emit("orders.new", "1").await?;
        subscribed.next_signal().await.ok_or("the subscription ended")?;
    }
    Ok(())
}

async fn greetings(clients: usize) -> Done {
    let server = Lone::start("2.1").await?;
    for _ in 0..clients {
        let client = server.client().await?;
        client.shutdown(Duration::from_secs(1)).await;
    }
    Ok(())
}
