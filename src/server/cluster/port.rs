//! A port that stays a member's while it is stopped.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::error::Result;
use crate::server::listen::{Listener, cannot_listen};
use crate::server::listener::{Served, Server, listen};

/// Serves a member at its address, on a listener of its own.
type Serve = Box<dyn Fn(SocketAddr, Served) -> Result<Server> + Send + Sync>;

/// The address of a member, which listens there again after it was stopped.
pub(super) struct Port {
    address: SocketAddr,
    listening: Listening,
}

enum Listening {
    /// Bound, but not listening: who connects is refused, and the system gives the port to no outgoing connection.
    Tcp { _taken: Option<TcpSocket> },
    /// The user's listeners.
    Given(Serve),
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
            listening: Listening::Tcp { _taken: taken },
        }
    }

    /// An address at which something listens that is no TCP socket.
    pub(super) fn given<L: Listener>(
        address: SocketAddr,
        listen: impl Fn(SocketAddr) -> io::Result<L> + Send + Sync + 'static,
    ) -> Self {
        let serve: Serve = Box::new(move |address, served| {
            let listener = listen(address).map_err(|error| cannot_listen(&address.to_string(), error))?;
            Ok(Server::serve((listener, address), served))
        });
        Self {
            address,
            listening: Listening::Given(serve),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens there, and serves what comes.
    pub(super) async fn serve(&self, served: Served) -> Result<Server> {
        match &self.listening {
            Listening::Tcp { .. } => Ok(Server::serve(listen_at(self.address).await?, served)),
            Listening::Given(serve) => serve(self.address, served),
        }
    }
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
