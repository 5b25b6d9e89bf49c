//! A user's connector: any service that opens connections, behind one type.

use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::{Service, ServiceExt};

use super::endpoint::Endpoint;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::unwind::catch;

/// A service that opens connections.
#[derive(Clone)]
pub(crate) struct Connector(Arc<dyn Fn(Endpoint) -> Connecting + Send + Sync>);

type Connecting = Pin<Box<dyn Future<Output = Result<ConnectorStream, BoxError>> + Send>>;

impl Connector {
    /// Wraps a service. Each attempt uses a clone of it, so that no attempt waits for another.
    pub(crate) fn new<C>(connector: C) -> Self
    where
        C: Service<Endpoint> + Clone + Send + Sync + 'static,
        C::Response: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send + 'static,
    {
        Self(Arc::new(move |endpoint| {
            let mut connector = connector.clone();
            Box::pin(async move {
                let ready = connector.ready().await.map_err(Into::into)?;
                let stream = ready.call(endpoint).await.map_err(Into::into)?;
                Ok(ConnectorStream(Box::new(stream)))
            })
        }))
    }

    /// Opens a connection to an endpoint.
    ///
    /// # Errors
    ///
    /// `Connect`, with the connector's own error as its source.
    ///
    /// # Cancel safety
    ///
    /// As safe as the connector: dropping this future drops the connector's.
    pub(super) async fn connect(&self, endpoint: &Endpoint) -> Result<ConnectorStream> {
        let message = "the connector of this client opened no connection";
        (self.0)(endpoint.clone())
            .await
            .map_err(|error| Error::new(ErrorKind::Connect, message).caused_by_other(error))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// The traits of a connector's stream.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// A stream that a connector opened.
pub(crate) struct ConnectorStream(Box<dyn Duplex>);

impl fmt::Debug for ConnectorStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectorStream")
    }
}

/// Catches a panic in the destructor of the stream, which is a user's code. A shard drops its connections while it
/// serves others, so a panic must not get past this point.
impl Drop for ConnectorStream {
    fn drop(&mut self) {
        let stream = mem::replace(&mut self.0, Box::new(tokio::io::empty()));
        if let Err(panic) = catch(|| drop(stream)) {
            tracing::error!(%panic, "a stream of the connector panicked when it was dropped");
        }
    }
}

impl AsyncRead for ConnectorStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ConnectorStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tower::service_fn;

    use super::*;
    use crate::net::socket::Socket;

    /// Only the connector knows how its streams are protected: the client neither warns about them nor asks the system.
    #[tokio::test]
    async fn streams_of_a_connector_are_never_reported_as_exposed_or_closed() {
        let connector = Connector::new(service_fn(async |_| io::Result::Ok(tokio::io::empty())));
        let endpoint = Endpoint::parse("a:1").unwrap();
        let socket = Socket::Connector(connector.connect(&endpoint).await.unwrap());
        assert!(!socket.is_exposed() && !socket.is_closed());
        assert_eq!(
            format!("{connector:?} {socket:?}"),
            "Connector Connector(ConnectorStream)"
        );
    }
}
