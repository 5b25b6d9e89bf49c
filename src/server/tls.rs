//! The TLS configuration of a server: its certificate, and the clients that it accepts.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::error::{Error, ErrorKind, Result};
use crate::tls::{Pem, provider, refused_pair};

/// Makes the configuration for [`ServerBuilder::tls`](super::ServerBuilder::tls) from certificates in PEM form. It
/// supports TLS 1.2 and 1.3, with the same provider of cryptography as [clients](crate::Tls).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dflockd_client::server::{Server, ServerTls};
///
/// let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
/// let tls = ServerTls::pem(made.cert.pem(), made.signing_key.serialize_pem()).config()?;
/// let builder = Server::builder().tls(tls);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "the configuration has no effect until it is given to a server"]
pub struct ServerTls {
    certificate: Pem,
    key: Pem,
    client_authorities: Vec<Pem>,
}

impl ServerTls {
    /// Reads files: the certificate, followed by the intermediate certificates up to its authority, and its private
    /// key.
    pub fn pem_files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: Pem::File(certificate.into()),
            key: Pem::File(key.into()),
            client_authorities: Vec::new(),
        }
    }

    /// Takes the certificates and the key from memory.
    pub fn pem(certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self {
            certificate: Pem::text(certificate),
            key: Pem::text(key),
            client_authorities: Vec::new(),
        }
    }

    /// Accepts only clients that present a certificate of an authority in this file. Default: accepts every client.
    pub fn client_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.client_authorities.push(Pem::File(path.into()));
        self
    }

    /// Accepts only clients that present a certificate of an authority in this PEM text.
    pub fn client_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.client_authorities.push(Pem::text(pem));
        self
    }

    /// Reads all files and makes the configuration.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), naming the file and the problem; also if there is
    /// no provider of cryptography.
    pub fn config(self) -> Result<Arc<ServerConfig>> {
        self.read().map(Arc::new).map_err(|problem| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("TLS cannot be set up for the server: {problem}"),
            )
        })
    }

    fn read(self) -> Result<ServerConfig, String> {
        let provider = provider()?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        for pem in &self.client_authorities {
            for certificate in pem.certificates(&pem.read()?)? {
                roots.add(certificate).map_err(|error| {
                    format!("{pem} holds a certificate that cannot be trusted as an authority: {error}")
                })?;
            }
        }
        let builder = match roots.is_empty() {
            true => builder.with_no_client_auth(),
            false => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
            }
        };
        let certificates = self.certificate.certificates(&self.certificate.read()?)?;
        let key = self.key.private_key(&self.key.read()?)?;
        builder
            .with_single_cert(certificates, key)
            .map_err(|error| refused_pair(&self.certificate, &self.key, &error))
    }
}

/// Shows the names of files, but no contents.
impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("certificate", &self.certificate)
            .field("client_authorities", &self.client_authorities)
            .finish_non_exhaustive()
    }
}
