//! The target of a request: a lock, or a slot of a semaphore.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::limit::Limit;
use crate::error::{Error, Result, named};

/// The namespace of a key on the server.
///
/// It is shown, parsed and serialized as its [name](Self::as_str). The protocol has only these two namespaces, so this
/// enum is exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A lock: at most one holder.
    Lock,
    /// A semaphore: at most as many holders as its limit.
    Semaphore,
}

impl Kind {
    /// Both values.
    pub(crate) const ALL: [Self; 2] = [Self::Lock, Self::Semaphore];

    /// Returns the name, as metrics and spans use it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Semaphore => "semaphore",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses a [name](Kind::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an unknown name; the message lists both names.
impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("kind", name, &Self::ALL, Self::as_str)
    }
}

/// The target of a request: a lock, or a slot of a semaphore. The protocol has only these two, so this enum is
/// exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The lock.
    Lock,
    /// A slot of the semaphore with this limit.
    Semaphore(Limit),
}

impl Target {
    /// Returns the namespace of the target.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Lock => Kind::Lock,
            Self::Semaphore(_) => Kind::Semaphore,
        }
    }
}

/// Shows `lock`, or, for example, `semaphore of limit 3`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock => f.write_str("lock"),
            Self::Semaphore(limit) => write!(f, "semaphore of limit {limit}"),
        }
    }
}
