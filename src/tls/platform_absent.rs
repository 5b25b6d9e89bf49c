//! Without the feature `tls-platform-verifier`: the text form of the options can still request the verifier of the
//! operating system.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;

/// Returns an error.
///
/// # Errors
///
/// Always.
pub(super) fn platform_verifier(
    _authorities: Vec<CertificateDer<'static>>,
    _provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    Err(
        "the options request the platform's verifier, but this program is built without it: turn on the feature tls-platform-verifier of \
         dflockd-client"
            .to_owned(),
    )
}
