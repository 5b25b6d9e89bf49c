//! TLS, by rustls with the ring provider: what a client trusts and what it presents, the handshake on either side, and what
//! its failures mean.
//!
//! Where the feature `tls` is off, `absent.rs` stands in its place: the same names, for types that have no values.

#[cfg(feature = "server")]
mod acceptor;
mod connector;
mod explain;
mod files;
mod material;
mod options;
mod pem;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

#[cfg(feature = "server")]
pub(crate) use acceptor::TlsAcceptor;
pub(crate) use connector::{TlsConnector, TlsStream};
pub(crate) use explain::{explain_disconnect, no_tls};
pub(crate) use files::TlsFiles;
pub use options::Tls;
#[cfg(feature = "server")]
pub(crate) use pem::Pem;

/// Always given explicitly: what the process has set as its default, if anything, must not change what a lock client does.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
