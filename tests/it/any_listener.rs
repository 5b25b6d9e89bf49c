//! The embedded server and cluster on listeners that are not sockets, on a runtime without I/O.

use std::collections::HashMap;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dflockd_client::protocol::functions::{Wire, acquire, release};
use dflockd_client::server::{Cluster, EventKind, Listener, Server, ServerBuilder};
use dflockd_client::{ErrorKind, Key, Ttl, WaitSecs};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::sleep;

/// The in-memory listeners, by address.
#[derive(Clone, Default)]
struct Hub(Arc<Mutex<HashMap<SocketAddr, mpsc::UnboundedSender<DuplexStream>>>>);

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

impl Hub {
    fn listen(&self, address: SocketAddr) -> io::Result<InMemory> {
        let (sender, accepted) = mpsc::unbounded_channel();
        self.0.lock().unwrap().insert(address, sender);
        Ok(InMemory(accepted))
    }

    /// Returns `None` if no listener has this address.
    fn connect(&self, address: SocketAddr) -> Option<DuplexStream> {
        let (ours, theirs) = duplex(4096);
        self.0.lock().unwrap().get(&address)?.send(theirs).ok()?;
        Some(ours)
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Runs a test on a runtime that has a clock and no I/O.
fn without_io(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test);
}

#[test]
fn a_server_serves_the_connections_that_any_listener_accepts() {
    without_io(async {
        let hub = Hub::default();
        let address = at("10.0.0.1:6388");
        let server = Server::builder()
            .start_on(hub.listen(address).unwrap(), address)
            .await
            .unwrap();
        assert_eq!(server.local_addr(), address);
        let mut wire = Wire::new(hub.connect(address).unwrap());
        let key = Key::new("k").unwrap();
        let grant = acquire(&mut wire, &key, WaitSecs::TRY, None).await.unwrap();
        assert_eq!(server.stats().connections, 1);
        release(&mut wire, &key, &grant.token).await.unwrap();
        // A killed server closes its connections and drops its listener.
        let mut idle = hub.connect(address).unwrap();
        while server.stats().connections < 2 {
            yield_now().await;
        }
        server.kill().await;
        assert_eq!(idle.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(hub.connect(address).is_none());
    });
}

#[test]
fn members_listen_again_after_they_were_stopped() {
    without_io(async {
        let hub = Hub::default();
        let addresses = [at("10.0.0.1:1"), at("10.0.0.2:1")];
        let listens = hub.clone();
        let cluster = Cluster::builder()
            .start_on(addresses, move |address| {
                let listens = listens.clone();
                async move {
                    // A program may need time before it listens, for example to resolve a name.
                    sleep(Duration::from_millis(5)).await;
                    listens.listen(address)
                }
            })
            .await
            .unwrap();
        assert_eq!(cluster.addresses(), ["10.0.0.1:1", "10.0.0.2:1"]);
        assert_eq!(cluster.leader(), Some(0));
        let key = Key::new("k").unwrap();
        let mut follower = Wire::new(hub.connect(addresses[1]).unwrap());
        let error = acquire(&mut follower, &key, WaitSecs::TRY, None).await.unwrap_err();
        assert!(error.to_string().contains("10.0.0.1:1"), "{error}");
        cluster.stop(0).await.unwrap();
        assert!(hub.connect(addresses[0]).is_none());
        cluster.start(0).await.unwrap();
        cluster.move_leader(0).unwrap();
        let mut leader = Wire::new(hub.connect(addresses[0]).unwrap());
        acquire(&mut leader, &key, WaitSecs::TRY, None).await.unwrap();
        let without_members = Cluster::builder().start_on([], move |at| ready(hub.listen(at))).await;
        assert_eq!(without_members.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_cluster_does_not_start_if_the_listener_of_a_member_fails() {
    without_io(async {
        let fails = |_| ready(Err::<InMemory, _>(io::Error::new(io::ErrorKind::AddrInUse, "taken")));
        let error = Cluster::builder()
            .start_on([at("10.0.0.1:1")], fails)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(error.to_string().contains("cannot listen on 10.0.0.1:1"), "{error}");
    });
}

#[test]
fn a_member_whose_listener_fails_stays_stopped_and_can_be_started_later() {
    without_io(async {
        let hub = Hub::default();
        let address = at("10.0.0.1:1");
        let is_taken = Arc::new(AtomicBool::new(false));
        let (listens, taken) = (hub.clone(), Arc::clone(&is_taken));
        let listen = move |address| {
            ready(match taken.load(Ordering::Relaxed) {
                true => Err(io::Error::new(io::ErrorKind::AddrInUse, "taken")),
                false => listens.listen(address),
            })
        };
        let cluster = Cluster::builder().start_on([address], listen).await.unwrap();
        cluster.stop(0).await.unwrap();
        is_taken.store(true, Ordering::Relaxed);
        assert_eq!(cluster.start(0).await.unwrap_err().kind(), ErrorKind::Connect);
        assert_eq!(cluster.move_leader(0).unwrap_err().kind(), ErrorKind::InvalidInput);
        is_taken.store(false, Ordering::Relaxed);
        cluster.start(0).await.unwrap();
        cluster.move_leader(0).unwrap();
        let mut leader = Wire::new(hub.connect(address).unwrap());
        acquire(&mut leader, &Key::new("k").unwrap(), WaitSecs::TRY, None)
            .await
            .unwrap();
    });
}

/// Panics in its first call of `accept`.
struct Panics(Option<InMemory>, InMemory);

impl Listener for Panics {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<DuplexStream> {
        assert!(self.0.take().is_none(), "a bug in the listener");
        self.1.accept().await
    }
}

#[test]
fn a_server_calls_accept_again_after_a_panic_of_its_listener() {
    without_io(async {
        let hub = Hub::default();
        let address = at("10.0.0.1:6388");
        let listener = Panics(Some(hub.listen(address).unwrap()), hub.listen(address).unwrap());
        let _server = Server::builder().start_on(listener, address).await.unwrap();
        let mut wire = Wire::new(hub.connect(address).unwrap());
        acquire(&mut wire, &Key::new("k").unwrap(), WaitSecs::TRY, None)
            .await
            .unwrap();
    });
}

#[test]
fn a_callback_for_events_that_panics_ends_neither_connections_nor_the_sweep_nor_the_shutdown() {
    without_io(async {
        let hub = Hub::default();
        let address = at("10.0.0.1:6388");
        let builder = Server::builder()
            .record_events(true)
            .on_event(|event| panic!("a bug at {event:?}"));
        let server = builder.start_on(hub.listen(address).unwrap(), address).await.unwrap();
        let connect = || Wire::new(hub.connect(address).unwrap());
        let (mut first, mut second, mut third) = (connect(), connect(), connect());
        let key = Key::new("k").unwrap();
        let wait = WaitSecs::from_secs(5).unwrap();
        let short = Ttl::from_secs(1).unwrap();
        acquire(&mut first, &key, WaitSecs::TRY, Some(short)).await.unwrap();
        // The server's sweep ends expired leases: it ends the first lease and grants the key to the second connection.
        acquire(&mut second, &key, wait, None).await.unwrap();
        // The second connection ends without a release, and the server grants the key to the third connection.
        drop(second);
        let grant = acquire(&mut third, &key, wait, None).await.unwrap();
        release(&mut third, &key, &grant.token).await.unwrap();
        acquire(&mut third, &key, WaitSecs::TRY, None).await.unwrap();
        drop((first, third));
        let kinds: Vec<_> = server.shutdown().await.iter().map(|event| event.kind).collect();
        let ends = [
            EventKind::Expired,
            EventKind::Disconnected,
            EventKind::Released,
            EventKind::Disconnected,
        ];
        assert_eq!(
            kinds
                .iter()
                .filter(|kind| ends.contains(kind))
                .copied()
                .collect::<Vec<_>>(),
            ends
        );
    });
}

#[test]
fn a_server_needs_a_runtime_with_a_clock() {
    async fn start() -> ErrorKind {
        let address = at("10.0.0.1:6388");
        let hub = Hub::default();
        let server = Server::builder().start_on(hub.listen(address).unwrap(), address);
        let alone = server.await.unwrap_err().kind();
        let listen = move |address| ready(hub.listen(address));
        let cluster = Cluster::builder().start_on([address], listen).await;
        assert_eq!(cluster.unwrap_err().kind(), alone);
        assert_eq!(Server::builder().port(0).start().await.unwrap_err().kind(), alone);
        assert_eq!(Cluster::builder().start().await.unwrap_err().kind(), alone);
        alone
    }
    let outside = pin!(start()).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(outside, Poll::Ready(ErrorKind::InvalidInput));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(start()), ErrorKind::InvalidInput);
}

#[test]
fn fences_and_tokens_follow_from_a_seed() {
    async fn token(options: ServerBuilder) -> String {
        let hub = Hub::default();
        let address = at("10.0.0.1:6388");
        let _server = options.start_on(hub.listen(address).unwrap(), address).await.unwrap();
        let mut wire = Wire::new(hub.connect(address).unwrap());
        let grant = acquire(&mut wire, &Key::new("k").unwrap(), WaitSecs::TRY, None).await;
        grant.unwrap().token.as_str().to_owned()
    }
    without_io(async {
        let first = token(Server::builder().seed(7)).await;
        assert_eq!(first[..16], format!("{:016x}", 8));
        assert_eq!(first, token(Server::builder().seed(7)).await);
        assert_ne!(first[16..], token(Server::builder().seed(8)).await[16..]);
        assert_ne!(first, token(Server::builder()).await);
    });
}
