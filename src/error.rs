//! One error type for the whole crate: what happened, where, and what to do next.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and why.
///
/// Cloning is cheap: when a connection dies, every caller that was waiting on it gets the same cause.
/// Match on [`kind`](Error::kind); the text is for people.
#[derive(Clone)]
pub struct Error(Arc<Repr>);

struct Repr {
    kind: ErrorKind,
    message: Cow<'static, str>,
    endpoint: Option<Arc<str>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The category of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value given by the caller is not acceptable. Nothing was sent.
    InvalidInput,
    /// The time that the caller allowed for the operation ran out. Nothing is held.
    Timeout,
    /// The shard that serves this key is not connected, and the caller did not want to wait (longer).
    /// Nothing was sent.
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
    /// The server is shutting down.
    Draining,
    /// This member of a cluster is not the leader; the message names the one that is, where the server says so.
    NotLeader,
    /// The server answered a bare `error`: it did not accept the request.
    Refused,
    /// The server does not know the command.
    Unsupported,
    /// The actor of this shard died and is being restarted. Whether the request was carried out is unknown.
    ShardGone,
    /// The client is shut down.
    Shutdown,
}

impl Error {
    /// An error of this kind that says `message`.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Repr {
            kind,
            message: message.into(),
            endpoint: None,
            source: None,
        }))
    }

    /// A value that is refused before anything is sent: what it is, the value itself, and what would be right.
    pub(crate) fn invalid(what: &str, value: impl fmt::Debug, remedy: &str) -> Self {
        Self::new(
            ErrorKind::InvalidInput,
            format!("{what} {value:?} is not acceptable: {remedy}"),
        )
    }

    /// The same error with its cause.
    #[must_use]
    pub(crate) fn caused_by(self, source: impl StdError + Send + Sync + 'static) -> Self {
        Self(Arc::new(Repr {
            kind: self.0.kind,
            message: self.0.message.clone(),
            endpoint: self.0.endpoint.clone(),
            source: Some(Arc::new(source)),
        }))
    }

    /// The same error, saying which server it comes from.
    #[must_use]
    pub(crate) fn at(self, endpoint: &Arc<str>) -> Self {
        Self(Arc::new(Repr {
            kind: self.0.kind,
            message: self.0.message.clone(),
            endpoint: Some(Arc::clone(endpoint)),
            source: self.0.source.clone(),
        }))
    }

    /// What happened, without where.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The category.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The server that it concerns, as `host:port`, where one is known.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// Whether the time ran out: the lock was held by somebody else for all of it.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::Timeout
    }

    /// Whether the same call may succeed if it is simply made again, later.
    ///
    /// True for what passes by itself: a lost or missing connection, a draining server, a full server.
    /// Nothing is held after any error, so that trying again never takes a second grant.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use ErrorKind::{
            Connect, Disconnected, Draining, LeaseExpired, MaxLocks, MaxWaiters, NotLeader, ShardGone, Timeout,
            Unavailable,
        };
        matches!(
            self.0.kind,
            Timeout
                | Unavailable
                | Connect
                | Disconnected
                | Draining
                | LeaseExpired
                | MaxLocks
                | MaxWaiters
                | NotLeader
                | ShardGone
        )
    }

    /// Whether trying again is useless until a person changes something (an argument, a token, an address).
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        use ErrorKind::{Auth, InvalidInput, LimitMismatch, Protocol, Shutdown, Unsupported};
        matches!(
            self.0.kind,
            InvalidInput | Auth | Protocol | LimitMismatch | Unsupported | Shutdown
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(endpoint) = &self.0.endpoint {
            write!(f, " (server {endpoint})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(endpoint) = &self.0.endpoint {
            out.field("endpoint", endpoint);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_where_and_why() {
        let endpoint: Arc<str> = "127.0.0.1:6388".into();
        let error = Error::new(ErrorKind::Connect, "cannot connect")
            .caused_by(std::io::Error::other("refused"))
            .at(&endpoint);
        assert_eq!(error.to_string(), "cannot connect (server 127.0.0.1:6388)");
        assert_eq!(error.endpoint(), Some("127.0.0.1:6388"));
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("refused"));
        assert!(error.is_retryable() && !error.is_fatal());
    }

    #[test]
    fn an_invalid_value_is_named_with_its_remedy() {
        let error = Error::invalid("limit", 0, "give at least 1");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "limit 0 is not acceptable: give at least 1");
        assert!(error.is_fatal());
    }
}
