//! What is asked for: a lock, or a slot of a semaphore.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::limit::Limit;
use crate::error::{Error, Result, named};

/// Which of the server's two namespaces a key is in.
///
/// It is shown, parsed and serialized by its [name](Self::as_str). The protocol has these two, so a match may be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A lock: one holder.
    Lock,
    /// A semaphore: as many holders as its limit.
    Semaphore,
}

impl Kind {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Lock, Self::Semaphore];

    /// Its name as metrics and spans carry it.
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

/// Reads a [name](Kind::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), with both names.
impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("kind", name, &Self::ALL, Self::as_str)
    }
}

/// What is asked for: a lock, or one of a semaphore's slots. The protocol has these two, so a match may be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The lock.
    Lock,
    /// A slot of the semaphore of this limit.
    Semaphore(Limit),
}

impl Target {
    /// Its namespace.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Lock => Kind::Lock,
            Self::Semaphore(_) => Kind::Semaphore,
        }
    }
}

/// `lock`, or `semaphore of limit 3`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock => f.write_str("lock"),
            Self::Semaphore(limit) => write!(f, "semaphore of limit {limit}"),
        }
    }
}
