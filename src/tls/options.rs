//! The TLS options of users.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connector::{TlsConnector, TlsStream};
use super::files::TlsFiles;
use super::material::{Material, Trusted};
use super::pem::Pem;
use crate::error::{Error, ErrorKind, Result};
use crate::escape::Shortened;

/// The TLS settings of a client: which authorities it trusts, and which certificate it presents. Pass it to
/// [`ClientBuilder::tls`](crate::ClientBuilder::tls).
///
/// The client supports TLS 1.2 and 1.3. It always verifies the server's certificate, because a lock from an unknown
/// server protects nothing. No setting turns this off; only a rustls [configuration of your own](Self::config) can have
/// a verifier that accepts every certificate.
///
/// The cryptography is that of a rustls provider. If the process has
/// [installed](crate::rustls::crypto::CryptoProvider::install_default) a provider before the client is built, the
/// client uses that one. Otherwise it uses the provider that this crate was built with: AWS-LC with the feature
/// `tls-aws-lc-rs`, or ring with `tls-ring`, which is on by default. A program that builds this crate with the feature
/// `tls` alone must install a provider first, here one of the crate `rustls`:
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// use dflockd_client::{Client, Tls};
/// use rustls::crypto::CryptoProvider;
///
/// // The first installed provider counts for the whole process. An error means that there is one already.
/// let _ = CryptoProvider::install_default(rustls::crypto::ring::default_provider());
/// let client = Client::builder().servers(["locks.example.org:6388"]).tls(Tls::system_roots()).connect().await?;
/// # client.lock("orders/42")?.acquire().await?.release().await
/// # }
/// ```
///
/// Files are read when the client is built, and checked again before each connection. A changed file takes effect then,
/// so certificates can be renewed while the client runs. If a file cannot be used at that time, the attempt to connect
/// fails with an error that says so; the client does not continue with the earlier content.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dflockd_client::server::{Server, ServerTls};
/// use dflockd_client::{Client, Tls};
///
/// let made = rcgen::generate_simple_self_signed(["locks.example.org".to_owned()])?;
/// let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let server = Server::builder().port(0).tls(ServerTls::pem(&*certificate, key).config()?).start().await?;
///
/// let tls = Tls::new().ca_pem(certificate).server_name("locks.example.org");
/// let client = Client::builder().servers([server.local_addr().to_string()]).tls(tls).connect().await?;
/// client.lock("orders/42")?.acquire().await?.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "the settings have no effect until a client is built with them"]
pub struct Tls {
    given: Option<Arc<ClientConfig>>,
    material: Material,
    server_name: Option<String>,
}

impl Tls {
    /// Creates settings that trust no authority yet: add one with [`ca_file`](Self::ca_file) or
    /// [`ca_pem`](Self::ca_pem).
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates settings that trust the authorities of this machine, which are read once, when the client is built. More
    /// authorities can be added.
    pub fn system_roots() -> Self {
        Self::trusting(Trusted::SystemRoots)
    }

    /// Creates settings that verify the servers' certificates as the operating system does. Windows, macOS, iOS and
    /// Android have verifiers, which respect what an administrator has added or distrusted, and check revocations as
    /// far as the system does. On Linux and other systems without a verifier, rustls verifies, with the authorities
    /// that the machine trusts. More can be added, except on Android, where the crate `rustls-platform-verifier` must
    /// have been initialized before.
    ///
    /// ```
    /// use dflockd_client::{Client, Tls};
    ///
    /// let builder = Client::builder().servers(["locks.example.org:6388"]).tls(Tls::platform_verifier());
    /// ```
    #[cfg(feature = "tls-platform-verifier")]
    pub fn platform_verifier() -> Self {
        Self::trusting(Trusted::Platform)
    }

    fn trusting(trusted: Trusted) -> Self {
        Self {
            material: Material {
                trusted,
                ..Material::default()
            },
            ..Self::default()
        }
    }

    /// Uses a rustls configuration unchanged; only [`server_name`](Self::server_name) may be added. Its type is that
    /// of [`dflockd_client::rustls`](crate::rustls).
    pub fn config(config: Arc<ClientConfig>) -> Self {
        Self {
            given: Some(config),
            ..Self::default()
        }
    }

    /// Adds the authorities whose certificates are in this file, in PEM form.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.material.authorities.push(Pem::File(path.into()));
        self
    }

    /// Adds the authorities whose certificates are in this PEM text.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.material.authorities.push(Pem::text(pem));
        self
    }

    /// Presents a certificate to servers that ask for one. The files contain, in PEM form, the certificate (followed
    /// by its intermediate certificates) and its private key.
    pub fn client_certificate_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.material.client = Some((Pem::File(certificate.into()), Pem::File(key.into())));
        self
    }

    /// Presents a certificate to servers that ask for one. Takes the certificate (followed by its intermediate
    /// certificates) and its private key as PEM text.
    pub fn client_certificate_pem(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.material.client = Some((Pem::text(certificate), Pem::text(key)));
        self
    }

    /// Sets the name or IP address that the servers' certificates must contain. Default: the host of the server's
    /// address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Performs a handshake over a stream, as clients do. For programs that talk to a server with the
    /// [functions](crate::protocol::functions) of the protocol, and for programs that inspect certificates. The server
    /// must prove that it is `host`, or the name that [`server_name`](Self::server_name) has set. `host` can be `None`
    /// only if that name is set. Files are read each time.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use dflockd_client::Tls;
    /// use dflockd_client::protocol::functions::{Wire, ping};
    /// use dflockd_client::server::{Server, ServerTls};
    ///
    /// let made = rcgen::generate_simple_self_signed(["locks.example.org".to_owned()])?;
    /// let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    /// let server = Server::builder().port(0).tls(ServerTls::pem(&*certificate, key).config()?).start().await?;
    ///
    /// let tls = Tls::new().ca_pem(certificate);
    /// let stream = tokio::net::TcpStream::connect(server.local_addr()).await?;
    /// let stream = tls.handshake(stream, Some("locks.example.org")).await?;
    /// assert_eq!(stream.peer_certificates().len(), 1);
    /// ping(&mut Wire::new(stream)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`] for the same reasons as in [`build`](crate::ClientBuilder::build).
    /// - [`ErrorKind::Connect`] if the handshake fails. The message says what is wrong with the certificate, or what
    ///   the server did.
    ///
    /// # Cancel safety
    ///
    /// Safe: the stream is dropped.
    pub async fn handshake<IO>(&self, stream: IO, host: Option<&str>) -> Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.clone().check()?.handshake(stream, host).await
    }

    /// Makes settings from their text form. If it names neither an authority nor the platform's verifier, the
    /// authorities of this machine are trusted.
    pub(crate) fn of_files(files: TlsFiles) -> Result<Self> {
        let mut tls = match (files.platform_verifier, files.system_roots || files.ca.is_none()) {
            (true, _) => Self::trusting(Trusted::Platform),
            (false, true) => Self::system_roots(),
            (false, false) => Self::new(),
        };
        if let Some(path) = files.ca {
            tls = tls.ca_file(path);
        }
        if let Some((certificate, key)) = files.client {
            tls = tls.client_certificate_files(certificate, key);
        }
        if let Some(name) = files.server_name {
            tls = tls.server_name(name);
        }
        Ok(tls)
    }

    /// Returns the text form. PEM text and a user's configuration have no text form; a description stands in their
    /// place.
    pub(crate) fn files(&self) -> TlsFiles {
        let name = |pem: &Pem| match pem {
            Pem::File(path) => path.display().to_string(),
            Pem::Text(_) => pem.to_string(),
        };
        let authorities: Vec<String> = self.material.authorities.iter().map(name).collect();
        let has_config = self
            .given
            .is_some()
            .then(|| "a configuration of the program's own".to_owned());
        TlsFiles {
            system_roots: self.material.trusted == Trusted::SystemRoots && !authorities.is_empty(),
            platform_verifier: self.material.trusted == Trusted::Platform,
            ca: (!authorities.is_empty()).then(|| authorities.join(", ")).or(has_config),
            client: self
                .material
                .client
                .as_ref()
                .map(|(certificate, key)| (name(certificate), name(key))),
            server_name: self.server_name.clone(),
        }
    }

    /// Reads the files and makes the connector.
    pub(crate) fn check(self) -> Result<TlsConnector> {
        let unusable =
            |problem: String| Error::new(ErrorKind::InvalidInput, format!("TLS cannot be set up: {problem}"));
        let name = match self.server_name {
            None => None,
            Some(name) => Some(name.clone().try_into().map_err(|_| {
                Error::invalid(
                    "TLS server name",
                    Shortened(&name),
                    "give a host name or an IP address, without a port",
                )
            })?),
        };
        match self.given {
            Some(config) if self.material.is_empty() => Ok(TlsConnector::given(config, name)),
            Some(_) => Err(unusable(
                "beside a configuration of your own, only server_name can be set: put the rest into the configuration"
                    .to_owned(),
            )),
            None if self.material.trusts_no_authority() => Err(unusable(
                "no authority is trusted: add one with ca_file or ca_pem, or begin with Tls::system_roots()".to_owned(),
            )),
            None => TlsConnector::of(self.material, name).map_err(unusable),
        }
    }
}

/// Shows the names of files, but not their contents.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("own_config", &self.given.is_some())
            .field("trusted", &self.material.trusted)
            .field("authorities", &self.material.authorities)
            .field("client_certificate", &self.material.client)
            .field("server_name", &self.server_name)
            .finish()
    }
}
