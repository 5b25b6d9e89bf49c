//! What all connections of a client have in common.

use std::sync::Arc;
use std::time::Duration;

use super::abilities::KnownServers;
use super::auth::Credentials;
use super::fencing::Fencing;
use super::reach::Way;
use super::refusals::Refusals;
use crate::tls::TlsConnector;

/// How servers are reached, and how connections to them are treated.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionSettings {
    pub(crate) way: Way,
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) servers: Arc<KnownServers>,
    pub(crate) fencing: Fencing,
    /// For everything from reading the auth token to the last answer of the handshake.
    pub(crate) connect_timeout: Duration,
    /// The longest silence on a connection.
    pub(crate) keepalive: Duration,
    /// The longest time that a server may take to answer, on top of the wait it was asked for.
    pub(crate) reply_timeout: Duration,
    /// The most requests in flight on one connection.
    pub(crate) max_in_flight: usize,
}

impl ConnectionSettings {
    /// What the kernel may take to see that a peer is gone.
    pub(crate) fn dead_peer_timeout(&self) -> Duration {
        self.keepalive.saturating_add(self.reply_timeout)
    }

    /// Whether connections are sockets of the runtime: a connector opens what it likes, and may need none.
    pub(crate) fn opens_sockets(&self) -> bool {
        matches!(self.way, Way::Sockets(_))
    }

    /// The same, with another longest silence.
    pub(crate) fn with_keepalive(&self, keepalive: Duration) -> Self {
        Self {
            keepalive,
            ..self.clone()
        }
    }
}
