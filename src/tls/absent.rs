//! Without the feature `tls`: types without values, so that code that uses TLS needs no conditional compilation.

#[path = "files.rs"]
mod files;

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) use self::files::TlsFiles;
use crate::error::{Error, ErrorKind, Result};

/// TLS cannot be configured.
#[derive(Clone, Debug)]
pub(crate) enum Tls {}

impl Tls {
    /// Returns an error: a text form of the options can still request TLS.
    pub(crate) fn of_files(_files: TlsFiles) -> Result<Self> {
        Err(Error::new(
            ErrorKind::InvalidInput,
            "the options request TLS, but this program is built without it: turn on the feature tls of dflockd-client",
        ))
    }

    pub(crate) fn files(&self) -> TlsFiles {
        match *self {}
    }

    pub(crate) fn check(self) -> Result<TlsConnector> {
        match self {}
    }
}

/// Cannot be created.
#[derive(Clone, Debug)]
pub(crate) enum TlsConnector {}

impl TlsConnector {
    pub(crate) fn check_host(&self, _host: Option<&str>) -> Result<()> {
        match *self {}
    }

    pub(crate) async fn handshake<IO>(&self, _stream: IO, _host: Option<&str>) -> Result<TlsStream<IO>> {
        match *self {}
    }
}

/// Cannot be created.
#[derive(Debug)]
pub(crate) struct TlsStream<IO>(Infallible, PhantomData<IO>);

impl<IO: Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl<IO: Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

/// Returns `None`: no connection was lost because of TLS.
pub(crate) fn explain_disconnect(_error: &Error) -> Option<Error> {
    None
}

/// Exists only so that both builds have the same functions. It is never called.
pub(crate) fn no_tls() -> Error {
    Error::new(ErrorKind::Connect, "the server answers, but it does not speak TLS").fatal()
}

/// Cannot be created.
#[cfg(feature = "server")]
#[derive(Clone)]
pub(crate) enum TlsAcceptor {}

#[cfg(feature = "server")]
impl TlsAcceptor {
    pub(crate) async fn accept<IO>(&self, _stream: IO) -> io::Result<TlsStream<IO>> {
        match *self {}
    }
}
