//! The provider of cryptography.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// Returns the provider that clients and embedded servers use: the one that the process has installed, or otherwise
/// the one that this crate was built with.
///
/// # Errors
///
/// Returns a text that says how to get a provider, if this process has no provider.
pub(crate) fn provider() -> Result<Arc<CryptoProvider>, String> {
    let installed = CryptoProvider::get_default().map(Arc::clone);
    installed.or_else(|| built_in().map(Arc::new)).ok_or_else(|| {
        "this program has no provider of cryptography: turn on the feature tls-ring or tls-aws-lc-rs of dflockd-client, or \
         install a provider of rustls before (rustls::crypto::CryptoProvider::install_default)"
            .to_owned()
    })
}

/// Returns AWS-LC if its feature is on. That feature is not on by default, so it was chosen explicitly.
#[cfg(feature = "tls-aws-lc-rs")]
fn built_in() -> Option<CryptoProvider> {
    Some(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
fn built_in() -> Option<CryptoProvider> {
    Some(rustls::crypto::ring::default_provider())
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
fn built_in() -> Option<CryptoProvider> {
    None
}
