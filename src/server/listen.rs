//! The sources of a server's connections.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

#[cfg(doc)]
use super::builder::ServerBuilder;
#[cfg(doc)]
use super::cluster::ClusterBuilder;
use crate::error::{Error, ErrorKind};
use crate::io_words::io_failed;

/// A source of a server's connections. Usually this is a TCP listener; with [`ServerBuilder::start_on`] and
/// [`ClusterBuilder::start_on`] it can be anything else, such as connections in memory for tests without sockets.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::io;
///
/// use dflockd_client::protocol::functions::{Wire, acquire};
/// use dflockd_client::server::{Listener, Server};
/// use dflockd_client::{Key, WaitSecs};
/// use tokio::io::{DuplexStream, duplex};
/// use tokio::sync::mpsc;
///
/// /// Accepts the connections that are sent over a channel.
/// struct InMemory(mpsc::Receiver<DuplexStream>);
///
/// impl Listener for InMemory {
///     type Io = DuplexStream;
///
///     async fn accept(&mut self) -> io::Result<DuplexStream> {
///         match self.0.recv().await {
///             Some(stream) => Ok(stream),
///             None => std::future::pending().await,
///         }
///     }
/// }
///
/// let (connect, accepted) = mpsc::channel(1);
/// let server = Server::builder().start_on(InMemory(accepted), "10.0.0.1:6388".parse()?).await?;
/// let (ours, theirs) = duplex(4096);
/// connect.send(theirs).await?;
/// let mut wire = Wire::new(ours);
/// acquire(&mut wire, &Key::new("orders/42")?, WaitSecs::TRY, None).await?;
/// assert_eq!(server.stats().locks.len(), 1);
/// # Ok(())
/// # }
/// ```
pub trait Listener: Send + 'static {
    /// A connection. When the server no longer needs it, it calls [`shutdown`](tokio::io::AsyncWriteExt::shutdown) and
    /// drops the connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection. After an error or a panic, the server waits for 100 ms and calls this again.
    ///
    /// # Cancel safety
    ///
    /// The future must be cancel safe: when the server shuts down, it drops first the future and then the listener.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "an accepted connection has ended already");
        }
        Ok(stream)
    }
}

/// Makes the error for an address that cannot be listened on.
pub(super) fn cannot_listen(address: &str, error: io::Error) -> Error {
    io_failed(ErrorKind::Connect, &format!("cannot listen on {address}"), error)
}
