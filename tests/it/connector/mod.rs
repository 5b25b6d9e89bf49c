//! Tests of clients with a connector. A connector is a service that opens the client's connections.
//! `examples/through_proxy.rs` has a connector that connects through a proxy.

mod failing;
mod streams;
mod timers;
mod tls;
mod whole;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, Endpoint, ReconnectPolicy};
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio::net::TcpStream;
use tower::{Service, service_fn};

/// Server names that no resolver knows, each with the address of its server. Clones share the network.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<Map>>);

#[derive(Default)]
struct Map {
    places: HashMap<String, SocketAddr>,
    asked: Vec<String>,
}

impl Network {
    fn with(self, name: &str, server: SocketAddr) -> Self {
        self.0.lock().unwrap().places.insert(name.to_owned(), server);
        self
    }

    /// Returns the names that the client has passed to the connector, in order.
    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }

    /// Opens a pipe to the server with this name. The pipe holds 16 bytes, so a request with a token does not fit into
    /// it at once.
    async fn pipe(&self, endpoint: &Endpoint) -> io::Result<DuplexStream> {
        let place = {
            let mut map = self.0.lock().unwrap();
            map.asked.push(endpoint.to_string());
            map.places.get(endpoint.as_str()).copied()
        };
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "an unknown name");
        let mut socket = TcpStream::connect(place.ok_or_else(unknown)?).await?;
        let (near, mut far) = duplex(16);
        tokio::spawn(async move { copy_bidirectional(&mut far, &mut socket).await });
        Ok(near)
    }

    fn connector(
        &self,
    ) -> impl Service<Endpoint, Response = DuplexStream, Error = io::Error, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static {
        let network = self.clone();
        service_fn(move |endpoint| {
            let network = network.clone();
            async move { network.pipe(&endpoint).await }
        })
    }
}

const NAME: &str = "locks.internal:6388";

/// Starts a server, and makes a network in which the server has the name [`NAME`].
async fn served() -> (Server, Network) {
    let server = Server::builder().port(0).release("1.16").start().await.unwrap();
    let network = Network::default().with(NAME, server.local_addr());
    (server, network)
}

/// Configures a client that connects to [`NAME`], and that reconnects after a pause of 2 ms to 10 ms.
fn builder() -> ClientBuilder {
    let pauses = ReconnectPolicy::exponential(
        std::time::Duration::from_millis(2),
        std::time::Duration::from_millis(10),
    );
    Client::builder().servers([NAME]).reconnect(pauses)
}
