//! The ends of simulated connections: streams, the listener of a server, the connector of a client.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use dflockd_client::Endpoint;
use dflockd_client::server::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::Service;

use super::net::{HostId, Network, PipeId};

/// One end of a connection.
pub struct SimStream {
    network: Network,
    writes: PipeId,
    reads: PipeId,
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.network.poll_read(self.reads, cx, into)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.network.poll_write(self.writes, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.shutdown(self.writes);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.network.close(self.writes, self.reads);
    }
}

/// The listener of a server. Dropping it stops listening.
pub struct SimListener {
    network: Network,
    address: SocketAddr,
}

impl SimListener {
    pub fn bind(network: &Network, host: HostId, address: SocketAddr) -> io::Result<Self> {
        network.listen(host, address)?;
        Ok(Self {
            network: network.clone(),
            address,
        })
    }
}

impl Listener for SimListener {
    type Io = SimStream;

    async fn accept(&mut self) -> io::Result<SimStream> {
        let connection = std::future::poll_fn(|cx| self.network.poll_accept(self.address, cx)).await?;
        Ok(SimStream {
            network: self.network.clone(),
            writes: connection + 1,
            reads: connection,
        })
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.network.stop_listening(self.address);
    }
}

/// The connector of a client, which connects its host to servers.
#[derive(Clone)]
pub struct SimConnector {
    network: Network,
    host: HostId,
}

impl SimConnector {
    pub fn new(network: &Network, host: HostId) -> Self {
        Self {
            network: network.clone(),
            host,
        }
    }
}

impl Service<Endpoint> for SimConnector {
    type Response = SimStream;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> Connecting {
        let address = endpoint.as_str().parse();
        Connecting {
            network: self.network.clone(),
            attempt: address.ok().map(|to| self.network.connect(self.host, to)),
        }
    }
}

/// An attempt to connect. Dropping this future cancels the attempt.
pub struct Connecting {
    network: Network,
    /// The number of the attempt. `None` if the endpoint is not an IP address and a port, or if the attempt is over.
    attempt: Option<u64>,
}

impl Future for Connecting {
    type Output = io::Result<SimStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<SimStream>> {
        let Some(attempt) = self.attempt else {
            return Poll::Ready(Err(io::ErrorKind::AddrNotAvailable.into()));
        };
        let connected = std::task::ready!(self.network.poll_connect(attempt, cx));
        self.attempt = None;
        Poll::Ready(connected.map(|connection| SimStream {
            network: self.network.clone(),
            writes: connection,
            reads: connection + 1,
        }))
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt {
            self.network.give_up_connect(attempt);
        }
    }
}
