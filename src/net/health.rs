//! Whether a shard can be reached.

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
/// `Display` tells it in one line. It is serialized as what a health endpoint of a service would say: `shard`, `endpoint`, `state` (its
/// [name](ConnectionState::as_str)), `seconds` (since when), `failovers`, and where there are any `last_failover`, `attempt`, and `error`, which is why it
/// is not connected.
#[derive(Clone)]
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

impl ConnectionState {
    /// Its name, as a health endpoint of a service may show it.
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

/// The [name](ConnectionState::as_str), and what failed while it reconnects.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn health() -> ShardHealth {
        ShardHealth::connecting(2, &"127.0.0.1:6388".parse().unwrap())
    }

    /// What it says as text and as JSON, without the seconds.
    fn said(health: &ShardHealth) -> (String, serde_json::Value) {
        let mut json = serde_json::to_value(health).unwrap();
        let seconds = json.as_object_mut().unwrap().remove("seconds").unwrap();
        assert!(seconds.as_f64().unwrap() >= 0.0);
        (health.to_string(), json)
    }

    #[test]
    fn it_tells_what_a_health_endpoint_would_say() {
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
