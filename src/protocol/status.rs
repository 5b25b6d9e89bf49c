//! The status words of refusals.

use std::fmt;

use super::MAX_SHORT_LINE;
use crate::error::{Error, ErrorKind};
use crate::types::{Key, Target};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// `error`: for example, the token holds nothing, the lease expired before the renewal, or the request is malformed
    /// or not supported.
    Error,
    /// `error_auth`: in answer to `auth`, the token is wrong; in answer to another request, no token was presented. The
    /// server closes the connection.
    Auth,
    /// `error_max_locks`: the limit on distinct keys is reached.
    MaxLocks,
    /// `error_max_waiters`: the limit on waiters of this key is reached.
    MaxWaiters,
    /// `error_limit_mismatch`: the semaphore exists with another limit.
    LimitMismatch,
    /// `error_not_enqueued`: a wait without an enqueue on this connection.
    NotEnqueued,
    /// `error_already_enqueued`: a second enqueue for this key on this connection.
    AlreadyEnqueued,
    /// `error_lease_expired`: the lease expired before the wait collected its grant, or, in cluster builds, before the
    /// renewal.
    LeaseExpired,
    /// `error_draining`: the server is shutting down.
    Draining,
    /// `error_not_leader [host:port]`: another member leads, at this address if it is given.
    NotLeader(Option<Box<str>>),
}

impl Status {
    /// Parses a whole response line as a refusal. Fields after the known ones are ignored.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        Some(match fields.next()? {
            "error" => Self::Error,
            "error_auth" => Self::Auth,
            "error_max_locks" => Self::MaxLocks,
            "error_max_waiters" => Self::MaxWaiters,
            "error_limit_mismatch" => Self::LimitMismatch,
            "error_not_enqueued" => Self::NotEnqueued,
            "error_already_enqueued" => Self::AlreadyEnqueued,
            "error_lease_expired" => Self::LeaseExpired,
            "error_draining" => Self::Draining,
            "error_not_leader" => {
                let leader = fields.next().filter(|leader| may_be_address(leader));
                Self::NotLeader(leader.map(Box::from))
            }
            _ => return None,
        })
    }

    /// Returns the error of an operation on `subject`, which usually is a key.
    #[must_use]
    pub fn to_error(&self, subject: &str) -> Error {
        let (kind, message) = match self {
            Self::Error => (
                ErrorKind::Refused,
                format!("the server refused the request for {subject:?} with a bare `error`"),
            ),
            Self::Auth => (
                ErrorKind::Auth,
                "this connection presented no authentication token, and the server wants one: give this client the one that \
                 the server was started with (ClientBuilder::auth_token)"
                    .to_owned(),
            ),
            Self::MaxLocks => (
                ErrorKind::MaxLocks,
                format!(
                    "no room for key {subject:?}: the server's cap on distinct keys is reached; it counts every key used \
                     in the last minute. Raise its --max-locks (default 1024), or lower its --gc-max-idle"
                ),
            ),
            Self::MaxWaiters => (
                ErrorKind::MaxWaiters,
                format!("too many waiters for key {subject:?}: try later, or raise the server's --max-waiters"),
            ),
            Self::LimitMismatch => (
                ErrorKind::LimitMismatch,
                format!(
                    "{subject:?} exists with another limit: every user of a semaphore must give the same limit, and before \
                     release 1.14 a lock is a semaphore of limit 1"
                ),
            ),
            Self::NotEnqueued => (
                ErrorKind::NotEnqueued,
                format!("wait without enqueue for key {subject:?} on this connection"),
            ),
            Self::AlreadyEnqueued => (
                ErrorKind::AlreadyEnqueued,
                format!("key {subject:?} is enqueued on this connection already: wait at that queue position, or give it up"),
            ),
            Self::LeaseExpired => (
                ErrorKind::LeaseExpired,
                format!(
                    "key {subject:?} was granted, but its lease ran out before the grant was collected: acquire again"
                ),
            ),
            Self::Draining => (
                ErrorKind::Draining,
                "the server is shutting down: try again when it is back".to_owned(),
            ),
            Self::NotLeader(leader) => (
                ErrorKind::NotLeader,
                match leader {
                    Some(leader) => format!("this server is not the leader of its cluster; the leader is {leader}"),
                    None => "this server is not the leader of its cluster, and does not know which member leads".to_owned(),
                },
            ),
        };
        let error = Error::new(kind, message);
        match self {
            Self::NotLeader(Some(leader)) => error.led_by(leader),
            _ => error,
        }
    }
}

/// Whether a server's locks and semaphores share one namespace, as in releases before 1.14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespaces {
    /// They do not share it.
    Apart,
    /// They share it: a lock is a semaphore with limit 1.
    Shared,
    /// The release of the server is unknown.
    Unknown,
}

/// Returns the error of an acquire whose key the server knows with a limit other than the requested one.
pub(crate) fn limit_mismatch(key: &Key, target: Target, namespaces: Namespaces) -> Error {
    let (what, namespace) = match target {
        Target::Semaphore(limit) => (
            format!(
                "semaphore {key:?} exists with a limit other than {}: every user of a semaphore must give the same limit",
                limit.get()
            ),
            match namespaces {
                Namespaces::Apart => "",
                Namespaces::Shared => {
                    "; or it is in use as a lock: this server is older than 1.14, where a lock is a semaphore of limit 1"
                }
                Namespaces::Unknown => {
                    "; or it is in use as a lock, if the server is older than 1.14, where a lock is a semaphore of limit 1"
                }
            },
        ),
        Target::Lock => (
            format!("{key:?} cannot be locked: it is in use as a semaphore with a limit other than 1"),
            "; servers before 1.14 keep locks and semaphores in one namespace: use different keys",
        ),
    };
    Error::new(ErrorKind::LimitMismatch, format!("{what}{namespace}"))
}

/// Returns whether a text may be an address. The text appears in messages and logs, so anything else is dropped: a
/// server could send a megabyte.
fn may_be_address(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_SHORT_LINE && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Auth => "error_auth",
            Self::MaxLocks => "error_max_locks",
            Self::MaxWaiters => "error_max_waiters",
            Self::LimitMismatch => "error_limit_mismatch",
            Self::NotEnqueued => "error_not_enqueued",
            Self::AlreadyEnqueued => "error_already_enqueued",
            Self::LeaseExpired => "error_lease_expired",
            Self::Draining => "error_draining",
            Self::NotLeader(None) => "error_not_leader",
            Self::NotLeader(Some(leader)) => return write!(f, "error_not_leader {leader}"),
        })
    }
}
