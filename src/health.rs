//! Whether a shard can be reached.

use std::sync::Arc;

use tokio::time::Instant;

use crate::error::Error;
use crate::net::endpoint::Endpoint;
use crate::net::failover::FailoverReason;

/// The state of one shard's connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShardHealth {
    /// The shard's index.
    pub shard: usize,
    /// The address of the server that serves it or is tried, as it was configured.
    pub endpoint: Arc<str>,
    /// How often another of its [servers](crate::Shard) took over. The first that was found is none.
    pub failovers: u64,
    /// Why the last of them did.
    pub last_failover: Option<FailoverReason>,
    /// What its state is.
    pub state: ConnectionState,
    /// Since when.
    pub since: Instant,
}

/// Whether requests can be sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The first attempt to connect is under way.
    Connecting,
    /// Connected.
    Connected,
    /// Not connected; attempts go on.
    Reconnecting {
        /// How many attempts have failed, at any of its servers, since a connection was last of use.
        attempt: u32,
        /// Why the last one failed, or the connection was lost.
        last_error: Error,
    },
    /// Shut down.
    Closed,
}

impl ShardHealth {
    /// That of a shard that begins to connect.
    pub(crate) fn connecting(shard: usize, endpoint: &Endpoint) -> Self {
        Self {
            shard,
            endpoint: Arc::clone(endpoint.as_text()),
            failovers: 0,
            last_failover: None,
            state: ConnectionState::Connecting,
            since: Instant::now(),
        }
    }

    /// Whether requests can be sent.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.state, ConnectionState::Connected)
    }

    /// Why the last attempt to connect failed, if it did.
    #[must_use]
    pub fn last_error(&self) -> Option<&Error> {
        match &self.state {
            ConnectionState::Reconnecting { last_error, .. } => Some(last_error),
            _ => None,
        }
    }
}
