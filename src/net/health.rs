//! The health of a shard.

use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::error::Error;
use crate::net::endpoint::Endpoint;
use crate::net::failover::FailoverReason;

/// The state of one shard's connection.
///
/// `Display` shows it in one line. It is serialized in the form that a service's health endpoint can show: `shard`,
/// `endpoint`, `state` (its [name](ConnectionState::as_str)), `seconds` (since the last change), `failovers`, and, if
/// present, `last_failover`, `attempt`, and `error`, which says why the shard is not connected.
#[derive(Clone)]
#[non_exhaustive]
pub struct ShardHealth {
    /// The shard's index.
    pub shard: usize,
    /// The address of the server that serves the shard or is tried, as it was configured, or as a cluster named it.
    pub endpoint: Arc<str>,
    /// How often another of the shard's [servers](crate::Shard) took over. The first connection does not count.
    pub failovers: u64,
    /// The reason for the last failover.
    pub last_failover: Option<FailoverReason>,
    /// The state.
    pub state: ConnectionState,
    /// When the state last changed.
    pub since: Instant,
    pub(crate) closed_because: Option<Error>,
    /// The error with which an actor of this shard last died.
    pub(crate) death: Option<Error>,
}

/// Whether requests can be sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The first attempt to connect is under way.
    Connecting,
    /// The shard is connected.
    Connected,
    /// The shard is not connected; attempts continue.
    #[non_exhaustive]
    Reconnecting {
        /// The number of failed attempts, at any of the shard's servers, since a connection was last useful.
        attempt: u32,
        /// Why the last attempt failed, or why the connection was lost.
        last_error: Error,
    },
    /// The shard is closed for ever: [`ShardHealth::closed_because`] returns the reason.
    Closed,
}

impl ConnectionState {
    /// Returns the name of the state, for a service's health endpoint.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting { .. } => "reconnecting",
            Self::Closed => "closed",
        }
    }
}

/// Writes the [name](ConnectionState::as_str) and, while the shard reconnects, the last error.
impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Self::Reconnecting { attempt, last_error } => write!(f, " (attempts that failed: {attempt}): {last_error}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ShardHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} at {}: {}", self.shard, self.endpoint, self.state)?;
        match &self.closed_because {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ShardHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardHealth")
            .field("shard", &self.shard)
            .field("endpoint", &self.endpoint)
            .field("failovers", &self.failovers)
            .field("last_failover", &self.last_failover)
            .field("state", &self.state)
            .field("for", &self.since.elapsed())
            .field("closed_because", &self.closed_because)
            .finish()
    }
}

impl Serialize for ShardHealth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attempt = match &self.state {
            ConnectionState::Reconnecting { attempt, .. } => Some(*attempt),
            _ => None,
        };
        let error = self.last_error().or(self.closed_because()).map(Error::to_string);
        let fields = 5 + [self.last_failover.is_some(), attempt.is_some(), error.is_some()]
            .into_iter()
            .filter(|there| *there)
            .count();
        let mut said = serializer.serialize_struct("ShardHealth", fields)?;
        said.serialize_field("shard", &self.shard)?;
        said.serialize_field("endpoint", &*self.endpoint)?;
        said.serialize_field("state", self.state.as_str())?;
        said.serialize_field("seconds", &self.since.elapsed().as_secs_f64())?;
        said.serialize_field("failovers", &self.failovers)?;
        if let Some(reason) = self.last_failover {
            said.serialize_field("last_failover", &reason)?;
        }
        if let Some(attempt) = attempt {
            said.serialize_field("attempt", &attempt)?;
        }
        if let Some(error) = error {
            said.serialize_field("error", &error)?;
        }
        said.end()
    }
}

impl ShardHealth {
    /// Creates the health of a shard that begins to connect.
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

    /// Replaces this health by the one that a shard reports, unless the shard is closed for ever.
    pub(crate) fn become_like(&mut self, said: Self) {
        if self.closed_because.is_none() {
            let death = self.death.take();
            *self = Self { death, ..said };
        }
    }

    /// Changes the state, unless the shard is closed.
    pub(crate) fn change(&mut self, state: ConnectionState) {
        if self.closed_because.is_none() {
            self.state = state;
            self.since = Instant::now();
        }
    }

    /// Closes the shard. An earlier reason stays. Returns whether the shard was open before.
    pub(crate) fn close(&mut self, why: &Error) -> bool {
        let is_news = self.closed_because.is_none();
        self.change(ConnectionState::Closed);
        self.closed_because.get_or_insert_with(|| why.clone());
        is_news
    }

    /// Notes that the shard's actor died: the shard is not connected, and its callers get the error.
    pub(crate) fn died(&mut self, last_error: Error) {
        let attempt = match &self.state {
            ConnectionState::Reconnecting { attempt, .. } => attempt.saturating_add(1),
            _ => 1,
        };
        self.death = Some(last_error.clone());
        self.change(ConnectionState::Reconnecting { attempt, last_error });
    }

    /// Returns the error with which an actor of this shard last died.
    pub(crate) fn death(&self) -> Option<&Error> {
        self.death.as_ref()
    }

    /// Returns whether requests can be sent.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.state, ConnectionState::Connected)
    }

    /// Returns why the last attempt to connect failed, or why the connection was lost, while the shard reconnects.
    #[must_use]
    pub fn last_error(&self) -> Option<&Error> {
        match &self.state {
            ConnectionState::Reconnecting { last_error, .. } => Some(last_error),
            _ => None,
        }
    }

    /// Returns why the shard is closed, if it is: the client was [shut down](crate::Client::shutdown), or the runtime
    /// on which it was created has ended. In the health of a signal connection, the reason can also be one of those of
    /// [`SignalConn::closed_because`](crate::SignalConn::closed_because). A closed shard stays closed, and its requests
    /// fail with this error.
    #[must_use]
    pub fn closed_because(&self) -> Option<&Error> {
        self.closed_because.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn health() -> ShardHealth {
        ShardHealth::connecting(2, &"127.0.0.1:6388".parse().unwrap())
    }

    /// Returns the health as text and as JSON, without the seconds.
    fn said(health: &ShardHealth) -> (String, serde_json::Value) {
        let mut json = serde_json::to_value(health).unwrap();
        let seconds = json.as_object_mut().unwrap().remove("seconds").unwrap();
        assert!(seconds.as_f64().unwrap() >= 0.0);
        (health.to_string(), json)
    }

    #[test]
    fn health_has_a_text_and_a_json_form() {
        let mut health = health();
        let (text, json) = said(&health);
        assert_eq!(text, "shard 2 at 127.0.0.1:6388: connecting");
        let expected = serde_json::json!({
            "shard": 2, "endpoint": "127.0.0.1:6388", "state": "connecting", "failovers": 0
        });
        assert_eq!(json, expected);

        health.last_failover = Some(FailoverReason::Lost);
        health.died(Error::new(ErrorKind::Connect, "no way there"));
        let (text, json) = said(&health);
        assert_eq!(
            text,
            "shard 2 at 127.0.0.1:6388: reconnecting (attempts that failed: 1): no way there"
        );
        assert_eq!((&json["attempt"], &json["last_failover"]), (&1.into(), &"lost".into()));
        assert_eq!(json["error"], "no way there");

        health.close(&Error::new(ErrorKind::Shutdown, "it was shut down"));
        let (text, json) = said(&health);
        assert_eq!(text, "shard 2 at 127.0.0.1:6388: closed: it was shut down");
        assert_eq!((&json["state"], json.get("attempt")), (&"closed".into(), None));
        assert_eq!(json["error"], "it was shut down");
    }
}
