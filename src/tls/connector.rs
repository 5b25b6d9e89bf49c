//! The client's side of a handshake, and the resulting stream.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client;

use super::explain::explain;
use super::material::{Configured, Material, Trusted, system_roots};
use super::provider::provider;
use crate::error::{Error, ErrorKind, Result};
use crate::escape::Shortened;

/// Performs the client's side of TLS handshakes. Clones share the configuration, including the sessions that can be
/// resumed.
#[derive(Clone)]
pub(crate) struct TlsConnector {
    source: Arc<ConfigSource>,
    /// The name to verify, instead of the server's host.
    name: Option<ServerName<'static>>,
}

enum ConfigSource {
    /// The user's configuration.
    Given(Arc<ClientConfig>),
    /// Made here, and again when a file has changed.
    Made {
        material: Material,
        system_roots: RootCertStore,
        /// The provider at the time when the client was built. A provider that is installed later has no effect.
        provider: Arc<CryptoProvider>,
        current: Mutex<Configured>,
    },
}

impl TlsConnector {
    pub(super) fn given(config: Arc<ClientConfig>, name: Option<ServerName<'static>>) -> Self {
        Self {
            source: Arc::new(ConfigSource::Given(config)),
            name,
        }
    }

    /// Reads the files and makes the configuration.
    pub(super) fn of(material: Material, name: Option<ServerName<'static>>) -> Result<Self, String> {
        let provider = provider()?;
        let system_roots = match material.trusted {
            Trusted::SystemRoots => system_roots()?,
            Trusted::NoOthers | Trusted::Platform => RootCertStore::empty(),
        };
        let reading = material.read()?;
        let config = Arc::new(material.configure(&reading, system_roots.clone(), &provider)?);
        let source = ConfigSource::Made {
            material,
            system_roots,
            provider,
            current: Mutex::new(Configured { reading, config }),
        };
        Ok(Self {
            source: Arc::new(source),
            name,
        })
    }

    /// Checks that there is a name for which a server's certificate can be verified: the one from the settings, or
    /// otherwise this host name. Returns an error if there is neither, or if no certificate can contain the host name.
    pub(crate) fn check_host(&self, host: Option<&str>) -> Result<()> {
        self.name_for(host).map(|_| ())
    }

    fn name_for(&self, host: Option<&str>) -> Result<ServerName<'static>> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let remedy = "no certificate can contain it: give the name in the server's certificate with Tls::server_name";
        host.and_then(|host| ServerName::try_from(host.to_owned()).ok())
            .ok_or_else(|| Error::invalid("host name for TLS", Shortened(host.unwrap_or_default()), remedy))
    }

    /// Performs a handshake over a stream. The server must prove that it is `host`.
    ///
    /// # Errors
    ///
    /// `Connect`, naming the cause; [fatal](Error::is_fatal) if a retry cannot succeed by itself.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future closes the stream.
    pub(crate) async fn handshake<IO>(&self, stream: IO, host: Option<&str>) -> Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = self.name_for(host)?;
        let config = self.config().await?;
        tokio_rustls::TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map(|stream| TlsStream(Box::new(stream)))
            .map_err(explain)
    }

    /// Returns the current configuration. Files are checked on a blocking thread.
    async fn config(&self) -> Result<Arc<ClientConfig>> {
        match &*self.source {
            ConfigSource::Given(config) => Ok(Arc::clone(config)),
            ConfigSource::Made { material, current, .. } if !material.has_files() => Ok(Arc::clone(
                &current.lock().unwrap_or_else(PoisonError::into_inner).config,
            )),
            ConfigSource::Made { .. } => {
                let source = Arc::clone(&self.source);
                let current = tokio::task::spawn_blocking(move || source.refreshed()).await;
                current
                    .unwrap_or_else(|error| Err(error.to_string()))
                    .map_err(|problem| {
                        Error::new(
                            ErrorKind::Connect,
                            format!("the files for TLS cannot be used any more: {problem}"),
                        )
                    })
            }
        }
    }
}

impl ConfigSource {
    /// Reads the files again, and makes a new configuration if a file has changed.
    fn refreshed(&self) -> Result<Arc<ClientConfig>, String> {
        let Self::Made {
            material,
            system_roots,
            provider,
            current,
        } = self
        else {
            return Err("there are none".to_owned());
        };
        let reading = material.read()?;
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.reading != reading {
            let config = Arc::new(material.configure(&reading, system_roots.clone(), provider)?);
            *current = Configured { reading, config };
        }
        Ok(Arc::clone(&current.config))
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A secure stream to a server, which [`Tls::handshake`](crate::Tls::handshake) returns.
pub struct TlsStream<IO>(Box<client::TlsStream<IO>>);

impl<IO> TlsStream<IO> {
    /// Returns the certificates that the server presented, its own first. They were verified.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        let (_, connection) = self.0.get_ref();
        connection.peer_certificates().unwrap_or_default()
    }

    /// Returns the version of TLS that both sides agreed on.
    #[must_use]
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        let (_, connection) = self.0.get_ref();
        connection.protocol_version()
    }
}

/// Treats a connection that ends without TLS's `close_notify` as closed. That is safe, because answers are whole
/// lines, so a truncated one is never accepted.
impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(cx, buffer) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
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

impl<IO> fmt::Debug for TlsStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsStream")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use crate::server::ServerTls;
    use crate::tls::{Tls, TlsAcceptor};

    #[tokio::test]
    async fn an_end_without_close_notify_is_not_a_failure() {
        let made = rcgen::generate_simple_self_signed(["here".to_owned()]).unwrap();
        let config = ServerTls::pem(made.cert.pem(), made.signing_key.serialize_pem()).config();
        let acceptor = TlsAcceptor::new(config.unwrap());
        let connector = Tls::new().ca_pem(made.cert.pem()).check().unwrap();
        let (near, far) = duplex(64 * 1024);
        let (near, far) = tokio::join!(connector.handshake(near, Some("here")), acceptor.accept(far));
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        far.write_all(b"ok\nhalf a li").await.unwrap();
        far.flush().await.unwrap();
        drop(far);
        let mut said = String::new();
        near.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "ok\nhalf a li");
    }

    #[test]
    fn only_keys_that_do_not_match_are_reported_as_not_belonging_together() {
        let made = || rcgen::generate_simple_self_signed(["here".to_owned()]).unwrap();
        let of_another = made().signing_key.serialize_pem();
        // No provider supports Ed448.
        let unsupported = "-----BEGIN PRIVATE KEY-----\n\
            MEcCAQAwBQYDK2VxBDsEOS/4GnscgCPFbs3iJ1lgWFgaOIZ+NNd4QDXXMC6I83CD\n\
            T3QELKuHKE6Ufe2dSh0o7JBGlPYUGznxZQ==\n\
            -----END PRIVATE KEY-----\n";
        let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let certificate = made().cert.pem();
        for (key, problem) in [
            (of_another.as_str(), "do not belong together"),
            (unsupported, "cannot be used together"),
            (garbage, "cannot be used together"),
        ] {
            let of_server = ServerTls::pem(certificate.as_str(), key).config().map(drop);
            let client = Tls::new().ca_pem(certificate.as_str());
            let of_client = client
                .client_certificate_pem(certificate.as_str(), key)
                .check()
                .map(drop);
            for refused in [of_server, of_client] {
                let error = refused.unwrap_err().to_string();
                assert!(error.contains(problem), "{error}");
            }
        }
    }
}
