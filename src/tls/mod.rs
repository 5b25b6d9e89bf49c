//! TLS with rustls: the settings of a client, the handshakes of both sides, and explanations of failures.
//!
//! Without the feature `tls`, `absent.rs` replaces this module: it has the same names for types without values.

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
pub(crate) use connector::TlsConnector;
pub use connector::TlsStream;
pub(crate) use explain::{explain_disconnect, no_tls};
pub(crate) use files::TlsFiles;
pub use options::Tls;
#[cfg(feature = "server")]
pub(crate) use pem::{Pem, refused_pair};
#[cfg(feature = "server")]
pub(crate) use provider::provider;
