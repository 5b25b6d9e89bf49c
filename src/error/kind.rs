//! The kinds of errors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, Result, named};

/// The category of an [`Error`](super::Error).
///
/// It is shown, parsed and serialized as its [name](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value from the caller is invalid. The client sent nothing.
    InvalidInput,
    /// The operation timed out. If [`budget`](super::Error::budget) is [`Budget::Wait`](super::Budget::Wait), a server
    /// reported the key as held. If it is [`Budget::Total`](super::Budget::Total), the time passed in a layer that was
    /// added to the client, or while no connection was free. The caller holds nothing.
    Timeout,
    /// No server answered: the shard is not connected, its server did not answer before the timeout, or there was no
    /// room for the request. It is not known whether another holder has the key. The caller holds nothing: the client
    /// releases a grant that arrives later.
    Unavailable,
    /// A connection could not be established: resolving the name, connecting or the handshake failed.
    Connect,
    /// The connection was lost after the request had been written. It is not known whether the server executed the
    /// request. If it granted a lease, the server releases that lease because of the disconnect, or when the TTL is
    /// over.
    Disconnected,
    /// Authentication failed: the server requires a token, rejected the given token, or accepts no token at all, or the
    /// client could not read its token.
    Auth,
    /// The peer violated the dflockd protocol. Its connection was closed.
    Protocol,
    /// The server's limit of distinct keys is reached (`--max-locks`).
    MaxLocks,
    /// The server's limit of waiters for this key is reached (`--max-waiters`).
    MaxWaiters,
    /// The semaphore exists with another limit.
    LimitMismatch,
    /// A wait without a queue position: the server got no enqueue on the same connection, or a
    /// [`Holder`](crate::Holder) has no position.
    NotEnqueued,
    /// A second enqueue for the same key: the server got it on the same connection, or a [`Holder`](crate::Holder) has
    /// a queue position already.
    AlreadyEnqueued,
    /// The lease ended before its grant reached the caller. The caller holds nothing.
    LeaseExpired,
    /// A release or renewal failed because the lease is not held: it expired, was lost or was released before.
    NotHeld,
    /// The lease was lost while it was in use.
    LeaseLost,
    /// The server is shutting down, or ended a wait in the way that usually means a shutdown.
    Draining,
    /// This member of a cluster is not the leader. The message names the leader if the member reported it.
    NotLeader,
    /// The server answered `error` without a reason: it did not accept the request.
    Refused,
    /// The server does not know the command, or issues no fences although they are
    /// [required](crate::Fencing::Required).
    Unsupported,
    /// The actor of this shard panicked (see the message) and was replaced. It is not known whether the server executed
    /// the request.
    ShardGone,
    /// The client or signal connection is closed permanently: it was shut down, or its runtime has ended. The message
    /// says which.
    Shutdown,
    /// The call is not allowed in this state or on this thread; the message says why. The client sent nothing.
    Misuse,
    /// A layer that was added to the client (see [`ClientBuilder::layer`](crate::ClientBuilder::layer)) rejected the
    /// request or failed; the [source](std::error::Error::source) is the layer's error.
    Layer,
}

impl ErrorKind {
    /// All kinds, in the order of declaration.
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

    /// Returns the name, as metrics and spans use it.
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

/// Parses a [name](ErrorKind::as_str).
///
/// # Errors
///
/// [`InvalidInput`](ErrorKind::InvalidInput) for an unknown name; the message lists all names.
impl FromStr for ErrorKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("error kind", name, &Self::ALL, Self::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_unique_names_and_are_listed_in_order() {
        let names: std::collections::BTreeSet<&str> = ErrorKind::ALL.into_iter().map(ErrorKind::as_str).collect();
        assert_eq!(names.len(), ErrorKind::ALL.len());
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind:?}");
        }
    }
}
