//! The parts of a client's TLS configuration: as the user named them, as read from files, and combined.

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::pem::{Pem, PemText, refused_pair};
use super::platform::platform_verifier;

/// The authorities that a client trusts in addition to the named ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trusted {
    #[default]
    NoOthers,
    /// The authorities that this machine trusts.
    SystemRoots,
    /// The authorities that the operating system's own verifier trusts.
    Platform,
}

/// The named parts, before they are read.
#[derive(Clone, Debug, Default)]
pub(super) struct Material {
    pub(super) trusted: Trusted,
    pub(super) authorities: Vec<Pem>,
    /// Certificate and key.
    pub(super) client: Option<(Pem, Pem)>,
}

/// The parts after reading. Two readings are equal if no file has changed between them.
#[derive(PartialEq, Eq)]
pub(super) struct Reading {
    authorities: Vec<PemText>,
    client: Option<(PemText, PemText)>,
}

impl Material {
    pub(super) fn is_empty(&self) -> bool {
        self.trusts_no_authority() && self.client.is_none()
    }

    pub(super) fn trusts_no_authority(&self) -> bool {
        self.trusted == Trusted::NoOthers && self.authorities.is_empty()
    }

    /// Returns whether a part comes from a file, which may change.
    pub(super) fn has_files(&self) -> bool {
        self.authorities
            .iter()
            .chain(self.client.iter().flat_map(|(certificate, key)| [certificate, key]))
            .any(Pem::is_file)
    }

    pub(super) fn read(&self) -> Result<Reading, String> {
        Ok(Reading {
            authorities: self.authorities.iter().map(Pem::read).collect::<Result<_, _>>()?,
            client: match &self.client {
                Some((certificate, key)) => Some((certificate.read()?, key.read()?)),
                None => None,
            },
        })
    }

    /// Makes a configuration. `roots` are those of the system, if they are trusted.
    pub(super) fn configure(
        &self,
        reading: &Reading,
        mut roots: RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match self.trusted {
            Trusted::Platform => self.verify_by_platform(builder, reading, provider)?,
            Trusted::NoOthers | Trusted::SystemRoots => {
                self.add_authorities(reading, &mut roots)?;
                builder.with_root_certificates(roots)
            }
        };
        let (Some((certificate, key)), Some((certificate_text, key_text))) = (&self.client, &reading.client) else {
            return Ok(builder.with_no_client_auth());
        };
        builder
            .with_client_auth_cert(certificate.certificates(certificate_text)?, key.private_key(key_text)?)
            .map_err(|error| refused_pair(certificate, key, &error))
    }

    fn verify_by_platform(
        &self,
        builder: ConfigBuilder<ClientConfig, WantsVerifier>,
        reading: &Reading,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
        // The store is used only for this check, whose error names the file.
        let authorities = self.add_authorities(reading, &mut RootCertStore::empty())?;
        let verifier = platform_verifier(authorities, Arc::clone(provider))?;
        Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
    }

    /// Adds the named authorities to a store and returns their certificates.
    fn add_authorities(
        &self,
        reading: &Reading,
        roots: &mut RootCertStore,
    ) -> Result<Vec<CertificateDer<'static>>, String> {
        let mut all = Vec::new();
        for (pem, text) in self.authorities.iter().zip(&reading.authorities) {
            for certificate in pem.certificates(text)? {
                roots.add(certificate.clone()).map_err(|error| {
                    format!("{pem} holds a certificate that cannot be trusted as an authority: {error}")
                })?;
                all.push(certificate);
            }
        }
        Ok(all)
    }
}

/// Returns the certificates of the authorities that this machine trusts.
pub(super) fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems have certificates that no verifier accepts.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let reasons: Vec<String> = found.errors.iter().take(4).map(ToString::to_string).collect();
    Err(format!(
        "this machine has no root certificates that can be read ({}): install them (Debian: ca-certificates), point \
         SSL_CERT_FILE to them, or name an authority with Tls::new().ca_file(…)",
        if reasons.is_empty() {
            "none found".to_owned()
        } else {
            reasons.join("; ")
        }
    ))
}

/// A configuration, and the reading from which it was made.
pub(super) struct Configured {
    pub(super) reading: Reading,
    pub(super) config: Arc<ClientConfig>,
}
