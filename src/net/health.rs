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
    pub(crate) closed_because: Option<Error>,
    /// Why the last of its actors that died did.
    pub(crate) death: Option<Error>,
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
    /// Closed, for ever: [`ShardHealth::closed_because`] says why.
    Closed,
}

impl ShardHealth {
    /// That of a shard that begins to connect.
    pub(crate) fn connecting(shard: usize, endpoint: &Endpoint) -> Self {
        Self {
            shard,
            endpoint: Arc::clone(endpoint.shared_text()),
            failovers: 0,
            last_failover: None,
            state: ConnectionState::Connecting,
            since: Instant::now(),
            closed_because: None,
            death: None,
        }
    }

    /// Takes over what a shard says of itself, unless it is closed: that is for ever.
    pub(crate) fn become_like(&mut self, said: Self) {
        if self.closed_because.is_none() {
            let death = self.death.take();
            *self = Self { death, ..said };
        }
    }

    /// It changes, unless it is closed.
    pub(crate) fn change(&mut self, state: ConnectionState) {
        if self.closed_because.is_none() {
            self.state = state;
            self.since = Instant::now();
        }
    }

    /// It is closed. A cause that was given before stays. Returns whether this is news.
    pub(crate) fn close(&mut self, why: &Error) -> bool {
        let is_news = self.closed_because.is_none();
        self.change(ConnectionState::Closed);
        self.closed_because.get_or_insert_with(|| why.clone());
        is_news
    }

    /// Its actor died: it is not connected, and its callers get that error.
    pub(crate) fn died(&mut self, last_error: Error) {
        let attempt = match &self.state {
            ConnectionState::Reconnecting { attempt, .. } => attempt.saturating_add(1),
            _ => 1,
        };
        self.death = Some(last_error.clone());
        self.change(ConnectionState::Reconnecting { attempt, last_error });
    }

    /// Why the last of its actors that died did, if one has.
    pub(crate) fn death(&self) -> Option<&Error> {
        self.death.as_ref()
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

    /// Why it is closed, if it is: it was [shut down](crate::Client::shutdown), or the runtime on which it was made has ended. A
    /// closed shard stays closed, and its requests fail with this error.
    #[must_use]
    pub fn closed_because(&self) -> Option<&Error> {
        self.closed_because.as_ref()
    }
}
