//! The server's side of a handshake.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

/// Performs the server's side of TLS handshakes.
#[derive(Clone)]
pub(crate) struct TlsAcceptor(tokio_rustls::TlsAcceptor);

impl TlsAcceptor {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Self {
        Self(config.into())
    }

    /// Performs the handshake of one connection.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future closes the stream.
    pub(crate) async fn accept<IO>(&self, stream: IO) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.0.accept(stream).await
    }
}
