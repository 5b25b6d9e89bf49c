//! TLS, by rustls: what a client trusts and what it presents, the handshake on either side, and what its failures mean.
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
#[cfg(feature = "tls-platform-verifier")]
mod platform;
#[cfg(not(feature = "tls-platform-verifier"))]
#[path = "platform_absent.rs"]
mod platform;
mod provider;

#[cfg(feature = "server")]
pub(crate) use acceptor::TlsAcceptor;
pub(crate) use connector::{TlsConnector, TlsStream};
pub(crate) use explain::{explain_disconnect, no_tls};
pub(crate) use files::TlsFiles;
pub use options::Tls;
#[cfg(feature = "server")]
pub(crate) use pem::Pem;
#[cfg(feature = "server")]
pub(crate) use provider::provider;
