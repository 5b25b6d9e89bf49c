//! A port that stays a member's while it is stopped.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::net::{TcpListener, TcpSocket};

use crate::error::Result;
use crate::server::listen::{Listener, cannot_listen};
use crate::server::listener::{Served, Server, listen};

/// Serves a member on what listens for it.
pub(super) type Listening = Box<dyn FnOnce(Served) -> Server + Send>;

/// Makes something listen at an address.
type Listen = Box<dyn Fn(SocketAddr) -> Pin<Box<dyn Future<Output = Result<Listening>> + Send>> + Send + Sync>;

/// The address of a member, which listens there again after it was stopped.
pub(super) struct Port {
    address: SocketAddr,
    kind: PortKind,
}

enum PortKind {
    /// Bound, but not listening: who connects is refused, and the system gives the port to no outgoing connection.
    Tcp { _taken: Option<TcpSocket> },
    /// The user's listeners.
    Given(Listen),
}

impl Port {
    /// Takes any port that is free, and listens there.
    pub(super) async fn open(host: &str) -> Result<(Self, TcpListener)> {
        let (first, address) = listen(host, 0).await?;
        let Some((socket, address)) = take(address.ip()) else {
            return Ok((Self::tcp(address, None), first));
        };
        let (listener, _) = listen_at(address).await?;
        Ok((Self::tcp(address, Some(socket)), listener))
    }

    fn tcp(address: SocketAddr, taken: Option<TcpSocket>) -> Self {
        Self {
            address,
            kind: PortKind::Tcp { _taken: taken },
        }
    }

    /// An address at which something listens that is no TCP socket.
    pub(super) fn given<L: Listener, F: Future<Output = io::Result<L>> + Send + 'static>(
        address: SocketAddr,
        listen: impl Fn(SocketAddr) -> F + Send + Sync + 'static,
    ) -> Self {
        let listen: Listen = Box::new(move |address| {
            let listens = listen(address);
            Box::pin(async move {
                let listener = listens
                    .await
                    .map_err(|error| cannot_listen(&address.to_string(), error))?;
                Ok(serving((listener, address)))
            })
        });
        Self {
            address,
            kind: PortKind::Given(listen),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens there. What comes is served once the result is called, on the current runtime.
    pub(super) async fn listen(&self) -> Result<Listening> {
        crate::runtime::current("a member of a cluster", matches!(self.kind, PortKind::Tcp { .. }))?;
        match &self.kind {
            PortKind::Tcp { .. } => Ok(serving(listen_at(self.address).await?)),
            PortKind::Given(listen) => listen(self.address).await,
        }
    }
}

fn serving(listening: (impl Listener, SocketAddr)) -> Listening {
    Box::new(move |served| Server::serve(listening, served))
}

async fn listen_at(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    listen(&address.ip().to_string(), address.port()).await
}

/// A port of its own. Linux lets somebody listen beside a socket that is bound and does not; elsewhere a port is left
/// free while its member is stopped, and may be lost.
#[cfg(target_os = "linux")]
fn take(ip: std::net::IpAddr) -> Option<(TcpSocket, SocketAddr)> {
    let socket = match ip.is_ipv4() {
        true => TcpSocket::new_v4(),
        false => TcpSocket::new_v6(),
    };
    let socket = socket.ok()?;
    socket.set_reuseaddr(true).ok()?;
    socket.bind(SocketAddr::new(ip, 0)).ok()?;
    let address = socket.local_addr().ok()?;
    Some((socket, address))
}

#[cfg(not(target_os = "linux"))]
fn take(_: std::net::IpAddr) -> Option<(TcpSocket, SocketAddr)> {
    None
}
