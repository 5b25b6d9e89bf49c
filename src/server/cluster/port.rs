//! A port that stays a member's while it is stopped.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::error::Result;
use crate::server::listener::listen;

/// Listens, and where.
pub(super) type Listener = (TcpListener, SocketAddr);

/// An address that was free, and that nobody else gets.
pub(super) struct Port {
    address: SocketAddr,
    /// Bound, but not listening: who connects is refused, and the system gives the port to no outgoing connection.
    _taken: Option<TcpSocket>,
}

impl Port {
    /// Takes any port that is free, and listens there.
    pub(super) async fn open(host: &str) -> Result<(Self, Listener)> {
        let first = listen(host, 0).await?;
        let address = first.1;
        let Some(taken) = take(address.ip()) else {
            let port = Self { address, _taken: None };
            return Ok((port, first));
        };
        let (socket, address) = taken;
        let port = Self {
            address,
            _taken: Some(socket),
        };
        let listener = port.listen().await?;
        Ok((port, listener))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens there again.
    pub(super) async fn listen(&self) -> Result<Listener> {
        listen(&self.address.ip().to_string(), self.address.port()).await
    }
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
