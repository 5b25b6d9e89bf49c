//! The settings that all connections of a client share.

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
    /// The time for everything from reading the auth token to the last answer of the greeting.
    pub(crate) connect_timeout: Duration,
    /// After this long without a request on a connection, the client sends a request of its own.
    pub(crate) keepalive: Duration,
    /// How long a server may take to answer, in addition to the wait that the request asks for.
    pub(crate) reply_timeout: Duration,
    /// The maximum number of requests in flight on one connection.
    pub(crate) max_in_flight: usize,
}

impl ConnectionSettings {
    /// Returns how long the kernel may take to notice that a peer is gone.
    pub(crate) fn dead_peer_timeout(&self) -> Duration {
        self.keepalive.saturating_add(self.reply_timeout)
    }

    /// Returns whether connections are sockets of the runtime. A connector may need none.
    pub(crate) fn opens_sockets(&self) -> bool {
        matches!(self.way, Way::Sockets(_))
    }

    /// Returns the same settings with another keepalive interval.
    pub(crate) fn with_keepalive(&self, keepalive: Duration) -> Self {
        Self {
            keepalive,
            ..self.clone()
        }
    }
}
