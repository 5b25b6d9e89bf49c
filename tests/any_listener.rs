//! The embedded server and cluster on listeners that are no sockets, on a runtime without I/O.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dflockd_client::protocol::functions::{Wire, acquire, release};
use dflockd_client::server::{Cluster, Listener, Server, ServerBuilder};
use dflockd_client::{ErrorKind, Key, WaitSecs};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Where something listens in memory.
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

    /// Fails where nothing listens.
    fn connect(&self, address: SocketAddr) -> Option<DuplexStream> {
        let (ours, theirs) = duplex(4096);
        self.0.lock().unwrap().get(&address)?.send(theirs).ok()?;
        Some(ours)
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A runtime with nothing but a clock.
fn without_io(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test);
}

#[test]
fn a_server_serves_what_any_listener_accepts() {
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
        // It hangs up at the end, and its listener is gone.
        let mut idle = hub.connect(address).unwrap();
        sleep(Duration::from_millis(10)).await;
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
            .start_on(addresses, move |address| listens.listen(address))
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
        let nobody = Cluster::builder().start_on([], move |at| hub.listen(at)).await;
        assert_eq!(nobody.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_member_whose_listener_fails_is_told() {
    without_io(async {
        let fails = |_| Err::<InMemory, _>(io::Error::new(io::ErrorKind::AddrInUse, "taken"));
        let error = Cluster::builder()
            .start_on([at("10.0.0.1:1")], fails)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(error.to_string().contains("cannot listen on 10.0.0.1:1"), "{error}");
    });
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
