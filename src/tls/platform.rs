//! The verifier of the operating system.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls_platform_verifier::Verifier;

/// Creates the verifier of the operating system, which trusts these authorities, too.
///
/// # Errors
///
/// A text that says why the verifier cannot be used. For example, the system has no root certificates, or its verifier
/// accepts no further authorities.
pub(super) fn platform_verifier(
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    match verifier(authorities, provider) {
        Ok(verifier) => Ok(Arc::new(verifier)),
        Err(error) => Err(format!("the platform's verifier cannot be used: {error}")),
    }
}

#[cfg(not(target_os = "android"))]
fn verifier(
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Verifier, rustls::Error> {
    Verifier::new_with_extra_roots(authorities, provider)
}

#[cfg(target_os = "android")]
fn verifier(
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Verifier, rustls::Error> {
    match authorities.is_empty() {
        true => Verifier::new(provider),
        false => Err(rustls::Error::General(
            "the verifier of Android accepts no further authorities".to_owned(),
        )),
    }
}
