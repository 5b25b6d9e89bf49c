//! What kinds of errors there are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, Result, named};

/// The category of an [`Error`](super::Error).
///
/// It is shown, parsed and serialized by its [name](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value given by the caller is not acceptable. Nothing was sent.
    InvalidInput,
    /// The time that the caller allowed for the operation ran out, and a server had said that the key is held:
    /// [`budget`](super::Error::budget) is [`Budget::Wait`](super::Budget::Wait). With [`Budget::Total`](super::Budget::Total) it ran out in a layer that was added to the client, or for
    /// want of a connection. Nothing is held.
    Timeout,
    /// No server answered: the shard is not connected, its server did not answer in the time that the caller allowed, or there
    /// was no room for the request. Whether the key is held is not known. Nothing is held by the caller: a grant that comes after
    /// all is given back.
    Unavailable,
    /// A connection could not be established: resolving, connecting or the first exchange failed.
    Connect,
    /// The connection was lost after the request had been written: whether the server carried it
    /// out is unknown. A grant that came of it was released by the server's disconnect rule, or is
    /// released by its lease.
    Disconnected,
    /// The server wants an authentication token, refused the one it got, or takes none.
    Auth,
    /// The peer said something that a dflockd server does not say. Its connection was closed.
    Protocol,
    /// The server's cap on distinct keys is reached (`--max-locks`).
    MaxLocks,
    /// The server's cap on waiters of this key is reached (`--max-waiters`).
    MaxWaiters,
    /// The semaphore exists with another limit.
    LimitMismatch,
    /// A wait without an enqueue on the same connection.
    NotEnqueued,
    /// A second enqueue for the same key on the same connection.
    AlreadyEnqueued,
    /// The lease ran out before its grant reached the caller: nothing is held.
    LeaseExpired,
    /// The lease that was to be released or renewed is not held: it expired, was lost or was released before.
    NotHeld,
    /// The lease was lost while it was in use.
    LeaseLost,
    /// The server is shutting down, or it ended a wait as servers do that are shutting down.
    Draining,
    /// This member of a cluster is not the leader; the message names the one that is, where the server says so.
    NotLeader,
    /// The server answered a bare `error`: it did not accept the request.
    Refused,
    /// The server does not know the command, or makes no fences where they are [required](crate::Fencing::Required).
    Unsupported,
    /// The actor of this shard panicked (the message says why), and another takes its place. Whether the request was carried out
    /// is unknown.
    ShardGone,
    /// The client, or the signal connection, is closed for ever: it was shut down, or the runtime on which it was made has ended. The
    /// message says which.
    Shutdown,
    /// The call is not allowed here or now, by its caller's own doing; the message says why. Nothing was sent.
    Misuse,
    /// A layer that was added to the client (see [`ClientBuilder::layer`](crate::ClientBuilder::layer)) refused the
    /// request or failed; the [source](std::error::Error::source) is its own error.
    Layer,
}

impl ErrorKind {
    /// All of them, in the order of their declaration.
    pub(crate) const ALL: [Self; 23] = [
        Self::InvalidInput,
        Self::Timeout,
        Self::Unavailable,
        Self::Connect,
        Self::Disconnected,
        Self::Auth,
        Self::Protocol,
        Self::MaxLocks,
        Self::MaxWaiters,
        Self::LimitMismatch,
        Self::NotEnqueued,
        Self::AlreadyEnqueued,
        Self::LeaseExpired,
        Self::NotHeld,
        Self::LeaseLost,
        Self::Draining,
        Self::NotLeader,
        Self::Refused,
        Self::Unsupported,
        Self::ShardGone,
        Self::Shutdown,
        Self::Misuse,
        Self::Layer,
    ];

    /// Its name as metrics and spans carry it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Connect => "connect",
            Self::Disconnected => "disconnected",
            Self::Auth => "auth",
            Self::Protocol => "protocol",
            Self::MaxLocks => "max_locks",
            Self::MaxWaiters => "max_waiters",
            Self::LimitMismatch => "limit_mismatch",
            Self::NotEnqueued => "not_enqueued",
            Self::AlreadyEnqueued => "already_enqueued",
            Self::LeaseExpired => "lease_expired",
            Self::NotHeld => "not_held",
            Self::LeaseLost => "lease_lost",
            Self::Draining => "draining",
            Self::NotLeader => "not_leader",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::ShardGone => "shard_gone",
            Self::Shutdown => "shutdown",
            Self::Misuse => "misuse",
            Self::Layer => "layer",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads a [name](ErrorKind::as_str).
///
/// # Errors
///
/// [`InvalidInput`](ErrorKind::InvalidInput), with all names.
impl FromStr for ErrorKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("kind of errors", name, &Self::ALL, Self::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names_of_their_own_and_are_counted_in_order() {
        let names: std::collections::BTreeSet<&str> = ErrorKind::ALL.into_iter().map(ErrorKind::as_str).collect();
        assert_eq!(names.len(), ErrorKind::ALL.len());
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind:?}");
        }
    }
}
