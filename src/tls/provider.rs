//! The cryptography that TLS is made of.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The provider that clients and embedded servers use: the one that the process has installed, or else the one that this crate was
/// built with.
///
/// # Errors
///
/// There is neither, and what mends it.
pub(crate) fn provider() -> Result<Arc<CryptoProvider>, String> {
    let installed = CryptoProvider::get_default().map(Arc::clone);
    installed.or_else(|| built_in().map(Arc::new)).ok_or_else(|| {
        "this program has no provider of cryptography for it: turn on the feature tls-ring or tls-aws-lc-rs of dflockd-client, or \
         install a provider of rustls before (rustls::crypto::CryptoProvider::install_default)"
            .to_owned()
    })
}

/// It is never on by default, so that where it is on, it was asked for.
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
