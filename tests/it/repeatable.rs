//! Two runs with the same seed send the same bytes at the same times, because every random choice of the library comes
//! from the seed. Only the names of sessions differ. An unbiased `tokio::select!` chooses among ready branches by a
//! random number that does not come from the seed. So each `select!` is `biased;`. Clippy checks that no code depends
//! on the order of a hash map (see `src/lib.rs`).

use std::collections::HashMap;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use dflockd_client::server::{Cluster, Listener, Server};
use dflockd_client::{Client, Endpoint, Shard};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::service_fn;

use crate::support::sources::sources;

/// Returns the number of all `select!` calls, and the text of each unbiased call.
fn selects(code: &str) -> (usize, Vec<String>) {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: Vec<&str> = lines.collect();
    let code = code.join("\n");
    let bodies: Vec<&str> = code.split("select!").skip(1).collect();
    let is_biased = |body: &&str| body.trim_start_matches([' ', '\n', '{', '(']).starts_with("biased;");
    let others = bodies.iter().filter(|body| !is_biased(body));
    (
        bodies.len(),
        others.map(|body| body.chars().take(60).collect()).collect(),
    )
}

#[test]
fn each_select_is_biased() {
    let mut all = 0;
    for (path, text) in sources() {
        let (count, others) = selects(&text);
        assert!(others.is_empty(), "{path}: {others:?} needs `biased;`");
        all += count;
    }
    assert!(all >= 10, "only {all} were found");
}

#[test]
fn the_search_finds_an_unbiased_select() {
    let code = "tokio::select! {\n  biased;\n}\n// select! { a }\nselect! { b = c => {} }\nselect! { biased; }";
    assert_eq!(selects(code), (3, vec![" { b = c => {} }\n".to_owned()]));
}

/// A network in memory: its listeners, and a log of all bytes that passed. Clones share the network.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<Traffic>>);

#[derive(Default)]
struct Traffic {
    listeners: HashMap<SocketAddr, mpsc::UnboundedSender<DuplexStream>>,
    connections: usize,
    log: Vec<String>,
}

struct InMemory(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for InMemory {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<DuplexStream> {
        match self.0.recv().await {
            Some(stream) => Ok(stream),
            None => std::future::pending().await,
        }
    }
}

/// A client's end of a connection.
struct Watched {
    stream: DuplexStream,
    network: Network,
    number: usize,
    began: Instant,
}

impl Network {
    fn listen(&self, address: SocketAddr) -> InMemory {
        let (connect, accepted) = mpsc::unbounded_channel();
        self.0.lock().unwrap().listeners.insert(address, connect);
        InMemory(accepted)
    }

    fn connect(&self, endpoint: &Endpoint, began: Instant) -> io::Result<Watched> {
        let mut traffic = self.0.lock().unwrap();
        let (stream, theirs) = duplex(64);
        let listener = traffic.listeners.get(&endpoint.as_str().parse().unwrap());
        let sent = listener.and_then(|listener| listener.send(theirs).ok());
        let number = traffic.connections;
        traffic.connections += 1;
        traffic
            .log
            .push(format!("{:?} {number} to {endpoint}: {sent:?}", began.elapsed()));
        sent.ok_or_else(|| io::Error::other("no server listens there"))?;
        Ok(Watched {
            stream,
            network: self.clone(),
            number,
            began,
        })
    }
}

impl Watched {
    fn log(&self, what: &str, bytes: &[u8]) {
        let text = without_session_names(&String::from_utf8_lossy(bytes));
        let entry = format!("{:?} {} {what} {text:?}", self.began.elapsed(), self.number);
        self.network.0.lock().unwrap().log.push(entry);
    }
}

/// Replaces the names of sessions, and all texts that look like such a name. The names are random numbers from the
/// operating system, so they do not come from the seed. Nothing else in the history depends on the names.
fn without_session_names(text: &str) -> String {
    let is_session_name = |word: &&str| word.len() >= 32 && word.chars().all(|c| c.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    words
        .map(
            |word| match is_session_name(&word.trim_end_matches(|c: char| !c.is_ascii_hexdigit())) {
                true => "#",
                false => word,
            },
        )
        .collect()
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            self.log("<", &buffer.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &polled {
            self.log(">", &bytes[..*count]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.log("closed", b"");
    }
}

/// Returns all bytes that pass while callers of two clients compete for the keys of a server and of a cluster.
/// Meanwhile other clients receive signals, some acquires are dropped, the server is killed, and the leader changes.
/// The history ends before the runtime is dropped, because a runtime does not always drop its tasks in the same order.
fn history(seed: u64) -> Vec<String> {
    fastrand::seed(seed);
    let network = Network::default();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(live(&network, seed))
}

async fn live(network: &Network, seed: u64) -> Vec<String> {
    let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 6388));
    let alone = Server::builder().release("1.16").seed(seed);
    let server = alone.clone().start_on(network.listen(at(1)), at(1)).await.unwrap();
    let listen = network.clone();
    let cluster = Cluster::builder()
        .options(Server::builder().seed(seed + 1).orphan_ttl(Duration::from_secs(20)))
        .start_on([2, 3, 4].map(at), move |address| ready(Ok(listen.listen(address))))
        .await
        .unwrap();
    let mut callers = JoinSet::new();
    for number in 0..2 {
        let alone = Shard::single(at(1).to_string());
        let cluster = Shard::cluster(cluster.addresses()).orphan_ttl(Duration::from_secs(20));
        let client = connect(network, vec![alone.clone(), cluster]).await;
        // A cluster knows no signals, so this client uses the standalone server only.
        let listener = connect(network, vec![alone]).await;
        let mut signals = listener.subscribe("a.>").await.unwrap();
        for pattern in ["b.*", "c", "d.>"] {
            signals.listen(pattern, None).await.unwrap();
        }
        callers.spawn(async move { while signals.next_event().await.is_some() {} });
        for caller in 0..12 {
            callers.spawn(compete(client.clone(), listener.clone(), number * 100 + caller));
        }
    }
    sleep(Duration::from_secs(8)).await;
    drop(server.kill().await);
    sleep(Duration::from_secs(2)).await;
    let _server = alone.start_on(network.listen(at(1)), at(1)).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    cluster.stop(0).await.unwrap();
    cluster.move_leader(1).unwrap();
    sleep(Duration::from_secs(30)).await;
    std::mem::take(&mut network.0.lock().unwrap().log)
}

async fn connect(network: &Network, shards: Vec<Shard>) -> Client {
    let (network, began) = (network.clone(), Instant::now());
    let connector = service_fn(move |endpoint| std::future::ready(network.connect(&endpoint, began)));
    let client = Client::builder().shards(shards).connector(connector);
    client.exclusive_connections(4).connect().await.unwrap()
}

/// A caller that acquires keys, holds them for a while and emits signals. It drops some acquires.
async fn compete(client: Client, teller: Client, caller: u64) {
    let mut random = fastrand::Rng::with_seed(caller);
    loop {
        let key = format!("key{}", random.u8(..6));
        let wait = Duration::from_millis(random.u64(..3000));
        let lock = client.lock(key).unwrap().acquire_timeout(wait);
        let patience = Duration::from_millis(random.u64(..4000));
        if let Ok(Ok(guard)) = tokio::time::timeout(patience, lock.acquire()).await {
            drop(teller.emit("a.b", caller.to_string()).await);
            sleep(Duration::from_millis(random.u64(..1500))).await;
            match random.bool() {
                true => drop(guard),
                false => drop(guard.release().await),
            }
        }
    }
}

#[test]
fn the_same_seed_has_the_same_history() {
    let histories = [7, 7, 8].map(history);
    assert!(histories[0].len() > 2000, "{}", histories[0].len());
    let mut pairs = histories[0].iter().zip(&histories[1]).enumerate();
    if let Some((index, (one, other))) = pairs.find(|(_, (one, other))| one != other) {
        panic!("at {index}:\n{one}\n{other}");
    }
    assert_eq!(histories[0].len(), histories[1].len());
    assert!(histories[0] != histories[2], "another seed has another history");
}
