//! The port of a member, which is reserved while the member is stopped.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::net::{TcpListener, TcpSocket};

use crate::error::Result;
use crate::server::listen::{Listener, cannot_listen};
use crate::server::listener::{Served, Server, listen};

/// Serves a member on its listener.
pub(super) type Listening = Box<dyn FnOnce(Served) -> Server + Send>;

/// Creates a listener at an address.
type Listen = Box<dyn Fn(SocketAddr) -> Pin<Box<dyn Future<Output = Result<Listening>> + Send>> + Send + Sync>;

/// The address of a member, at which it listens again after a restart.
pub(super) struct Port {
    address: SocketAddr,
    kind: PortKind,
}

enum PortKind {
    /// A socket that is bound but does not listen: connections are refused while the member is stopped, and the system
    /// does not use the port for outgoing connections.
    Tcp { _taken: Option<TcpSocket> },
    /// A function of the user that creates listeners.
    Given(Listen),
}

impl Port {
    /// Takes a free port, and listens there.
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

    /// Creates an address at which a listener other than a TCP socket listens.
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

    /// Listens at the address. The result, once called, serves the connections on the current runtime.
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

/// Reserves a port. On Linux, a socket can listen on a port on which another socket is bound but does not listen. On
/// other systems, the port is free while its member is stopped, and may be lost.
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
