//! The events of a client.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, named};
use crate::lease::state::LostReason;
use crate::net::failover::FailoverReason;
use crate::types::{Fence, Key, Kind};

/// An event of a client. [`Client::events`](crate::Client::events) returns a stream of them.
///
/// A `shard` is the index of a shard, from 0, in the order in which the shards were given.
///
/// **Order.** Each task of the client emits its own events in order. A shard emits the events of its connections and
/// leases. A signal connection emits the events of its gaps. An attempt to connect emits the event of a failed
/// authentication. When a connection ends or another server takes over, [`LeaseLost`](Self::LeaseLost) of each affected
/// lease comes first, then [`Disconnected`](Self::Disconnected) or [`ServingChanged`](Self::ServingChanged), then
/// [`Connected`](Self::Connected). The [health](crate::Client::watch_health) of a shard changes before the event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A shard is connected: requests can be sent.
    #[non_exhaustive]
    Connected {
        /// The shard.
        shard: usize,
        /// The server that it is connected to.
        endpoint: Arc<str>,
    },
    /// A shard is no longer connected. The client tries to reconnect.
    #[non_exhaustive]
    Disconnected {
        /// The shard.
        shard: usize,
        /// The server that it was connected to.
        endpoint: Arc<str>,
        /// Why.
        cause: Error,
    },
    /// An attempt to connect failed. The client goes on trying.
    #[non_exhaustive]
    Reconnecting {
        /// The shard.
        shard: usize,
        /// The server that is tried next.
        endpoint: Arc<str>,
        /// How many attempts have failed, at any of its servers, since the last working connection.
        attempt: u32,
        /// Why the last attempt failed.
        error: Error,
    },
    /// Another of a shard's [servers](crate::Shard) has taken over.
    #[non_exhaustive]
    ServingChanged {
        /// The shard.
        shard: usize,
        /// The server that serves it now.
        endpoint: Arc<str>,
        /// Why the previous server no longer serves it.
        reason: FailoverReason,
    },
    /// A server rejected the authentication token, requires a token although the client has none, or has no token
    /// itself and so rejects every token. Or the client could not read its token. Emitted at the first such failure of
    /// an attempt to connect, whatever the connection is for. Emitted again for the same server only if that server has
    /// accepted the client since then.
    #[non_exhaustive]
    AuthRefused {
        /// The shard.
        shard: usize,
        /// The server, or the address that was tried.
        endpoint: Arc<str>,
        /// The server's answer, or why the token could not be read.
        error: Error,
    },
    /// A shard is closed permanently.
    #[non_exhaustive]
    Closed {
        /// The shard.
        shard: usize,
        /// Why.
        cause: Error,
    },
    /// A lease was lost while it was held.
    LeaseLost(LeaseLost),
    /// A renewal failed. The client repeats it while the lease is held.
    RenewalFailed(RenewalFailed),
    /// Callers that wait for keys have reached a limit: the client's or the server's limit of connections, or the
    /// server's limit of waiters for a key. Emitted when the limit is reached.
    #[non_exhaustive]
    WaitBoundReached {
        /// The shard.
        shard: usize,
        /// The limit.
        bound: WaitBound,
    },
    /// A connection with signal subscriptions was lost. Signals may be missed until its consumer gets
    /// [`Restored`](crate::SignalEvent::Restored).
    #[non_exhaustive]
    SignalsGap {
        /// The shard.
        shard: usize,
        /// Why.
        cause: Error,
    },
    /// The stream was not read in time: this many events before the next one were dropped.
    #[non_exhaustive]
    Missed {
        /// How many.
        count: u64,
    },
}

/// A lease that was lost while it was held: see [`ClientEvent::LeaseLost`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaseLost {
    /// The shard of its key.
    pub shard: usize,
    /// Its key.
    pub key: Key,
    /// Whether it is a lock or a semaphore slot.
    pub kind: Kind,
    /// Its fence, if the server is known to issue fences.
    pub fence: Option<Fence>,
    /// Why it was lost.
    pub reason: LostReason,
}

/// A renewal that failed: see [`ClientEvent::RenewalFailed`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RenewalFailed {
    /// The shard of the lease's key.
    pub shard: usize,
    /// The key of the lease.
    pub key: Key,
    /// Whether the lease is one of a lock or of a semaphore slot.
    pub kind: Kind,
    /// The server's answer, or why there was none.
    pub error: Error,
}

/// The limit that callers waiting for keys have reached. It is shown, parsed and serialized as its
/// [name](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WaitBound {
    /// The limit of [exclusive connections](crate::ClientBuilder::exclusive_connections): further callers have no
    /// position in the server's queue.
    ExclusiveConnections,
    /// The server's limit of connections (`--max-connections`), with the same consequence.
    ServerConnections,
    /// The server's limit of waiters for a key (`--max-waiters`): further callers get
    /// [`MaxWaiters`](crate::ErrorKind::MaxWaiters).
    ServerWaiters,
}

impl WaitBound {
    const ALL: [Self; 3] = [Self::ExclusiveConnections, Self::ServerConnections, Self::ServerWaiters];

    /// Returns the name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExclusiveConnections => "exclusive_connections",
            Self::ServerConnections => "server_connections",
            Self::ServerWaiters => "server_waiters",
        }
    }
}

impl fmt::Display for WaitBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses a [name](WaitBound::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an unknown name; the message lists all names.
impl FromStr for WaitBound {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("bound of waits", name, &Self::ALL, Self::as_str)
    }
}

/// Describes the event in one line.
impl fmt::Display for ClientEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { shard, endpoint } => write!(f, "shard {shard}: connected to {endpoint}"),
            Self::Disconnected { shard, endpoint, cause } => {
                write!(f, "shard {shard}: the connection to {endpoint} was lost: {cause}")
            }
            Self::Reconnecting {
                shard,
                endpoint,
                attempt,
                error,
            } => write!(
                f,
                "shard {shard}: attempt {attempt} to connect failed, {endpoint} is next: {error}"
            ),
            Self::ServingChanged {
                shard,
                endpoint,
                reason,
            } => {
                write!(f, "shard {shard}: {endpoint} has taken over (reason: {reason})")
            }
            Self::AuthRefused { shard, endpoint, error } => {
                write!(f, "shard {shard}: authentication at {endpoint} failed: {error}")
            }
            Self::Closed { shard, cause } => write!(f, "shard {shard}: closed: {cause}"),
            Self::LeaseLost(lost) => fmt::Display::fmt(lost, f),
            Self::RenewalFailed(failed) => fmt::Display::fmt(failed, f),
            Self::WaitBoundReached { shard, bound } => write!(f, "shard {shard}: waits have reached the bound {bound}"),
            Self::SignalsGap { shard, cause } => write!(f, "shard {shard}: signals may be missed: {cause}"),
            Self::Missed { count } => write!(f, "events that were missed: {count}"),
        }
    }
}

impl fmt::Display for LeaseLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            shard,
            key,
            kind,
            reason,
            ..
        } = self;
        write!(f, "shard {shard}: the lease of the {kind} {key} was lost: {reason}")
    }
}

impl fmt::Display for RenewalFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            shard,
            key,
            kind,
            error,
        } = self;
        write!(
            f,
            "shard {shard}: the lease of the {kind} {key} was not renewed: {error}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn events_are_described_in_one_line() {
        let error = || Error::new(ErrorKind::Connect, "no way there");
        let (shard, endpoint) = (1, || Arc::from("a:6388"));
        let lost = LeaseLost {
            shard,
            key: Key::new("a\u{1b}b").unwrap(),
            kind: Kind::Lock,
            fence: None,
            reason: LostReason::Expired,
        };
        let failed = RenewalFailed {
            shard,
            key: Key::new("k").unwrap(),
            kind: Kind::Semaphore,
            error: error(),
        };
        let (cause, reason) = (error, FailoverReason::Deposed);
        for (event, said) in [
            (
                ClientEvent::Connected {
                    shard,
                    endpoint: endpoint(),
                },
                "shard 1: connected to a:6388",
            ),
            (
                ClientEvent::Disconnected {
                    shard,
                    endpoint: endpoint(),
                    cause: cause(),
                },
                "shard 1: the connection to a:6388 was lost: no way there",
            ),
            (
                ClientEvent::Reconnecting {
                    shard,
                    endpoint: endpoint(),
                    attempt: 3,
                    error: error(),
                },
                "shard 1: attempt 3 to connect failed, a:6388 is next: no way there",
            ),
            (
                ClientEvent::ServingChanged {
                    shard,
                    endpoint: endpoint(),
                    reason,
                },
                "shard 1: a:6388 has taken over (reason: deposed)",
            ),
            (
                ClientEvent::AuthRefused {
                    shard,
                    endpoint: endpoint(),
                    error: error(),
                },
                "shard 1: authentication at a:6388 failed: no way there",
            ),
            (
                ClientEvent::Closed { shard, cause: cause() },
                "shard 1: closed: no way there",
            ),
            (
                ClientEvent::LeaseLost(lost),
                "shard 1: the lease of the lock a\\u{1b}b was lost: ",
            ),
            (
                ClientEvent::RenewalFailed(failed),
                "shard 1: the lease of the semaphore k was not renewed: no way there",
            ),
            (
                ClientEvent::WaitBoundReached {
                    shard,
                    bound: WaitBound::ServerWaiters,
                },
                "shard 1: waits have reached the bound server_waiters",
            ),
            (
                ClientEvent::SignalsGap { shard, cause: cause() },
                "shard 1: signals may be missed: no way there",
            ),
            (ClientEvent::Missed { count: 7 }, "events that were missed: 7"),
        ] {
            assert!(event.to_string().starts_with(said), "{event}");
            assert!(!event.to_string().contains(['\n', '\u{1b}']));
        }
        for bound in WaitBound::ALL {
            assert_eq!(bound.to_string().parse::<WaitBound>().unwrap(), bound);
            assert_eq!(serde_json::to_value(bound).unwrap(), bound.as_str());
        }
    }
}
