//! Connections in memory, from addresses that exist only in a test to their listeners.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::gate::{Gate, GatedStream};
use crate::net::endpoint::Endpoint;
use crate::server::Listener;

/// The network of one server, or of the members of one cluster. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Network(Arc<Mutex<Listening>>);

#[derive(Default)]
struct Listening {
    gate: Gate,
    listeners: BTreeMap<String, mpsc::UnboundedSender<GatedStream>>,
    refuses: bool,
    /// How many further attempts are refused.
    refused_next: usize,
}

/// The first address of a network that is reserved for tests (RFC 2544).
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// The number of addresses of that network.
const ADDRESSES: u32 = 1 << 17;

/// Returns an address that no other server of this process has, unless the process has had more than 131,072 servers.
pub(super) fn next_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let host = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(host)), 6388)
}

impl Network {
    pub(super) fn gate(&self) -> Gate {
        self.listening().gate.clone()
    }

    /// Listens on an address. An earlier listener there gets no more connections.
    pub(super) fn listen(&self, address: SocketAddr) -> InMemoryListener {
        let (connect, connections) = mpsc::unbounded_channel();
        self.listening().listeners.insert(address.to_string(), connect);
        InMemoryListener(connections)
    }

    /// Returns whether an address belongs to this network.
    pub(super) fn leads_to(&self, endpoint: &Endpoint) -> bool {
        self.listening().listeners.contains_key(endpoint.as_str())
    }

    pub(super) fn refuse_connections(&self, refuses: bool) {
        self.listening().refuses = refuses;
    }

    pub(super) fn refuse_next_connection(&self) {
        self.listening().refused_next += 1;
    }

    /// Opens a connection.
    pub(super) fn connect(&self, endpoint: &Endpoint) -> io::Result<GatedStream> {
        let mut listening = self.listening();
        let refused = |why: &str| io::Error::new(io::ErrorKind::ConnectionRefused, why);
        if listening.refuses {
            return Err(refused("the test server refuses connections"));
        }
        if listening.refused_next > 0 {
            listening.refused_next -= 1;
            return Err(refused("the test server refused this connection"));
        }
        let listener = listening.listeners.get(endpoint.as_str());
        let listener = listener.ok_or_else(|| refused("no test server has this address"))?;
        let (near, far) = GatedStream::pair(&listening.gate);
        listener.send(far).map_err(|_| refused("the test server is stopped"))?;
        Ok(near)
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts the connections to one address.
pub(super) struct InMemoryListener(mpsc::UnboundedReceiver<GatedStream>);

impl Listener for InMemoryListener {
    type Io = GatedStream;

    async fn accept(&mut self) -> io::Result<GatedStream> {
        match self.0.recv().await {
            Some(stream) => Ok(stream),
            None => pending().await,
        }
    }
}
