//! The behaviour of calls while the shard is not connected.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, named};

/// The behaviour of calls while the shard of their key is not connected. It is shown, parsed and serialized as its
/// [name](Self::as_str).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnUnavailable {
    /// Calls wait until their own timeout.
    #[default]
    Wait,
    /// Calls fail at once with [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable).
    FailFast,
}

impl OnUnavailable {
    /// All values.
    pub(crate) const ALL: [Self; 2] = [Self::Wait, Self::FailFast];

    /// Returns the name, as configurations use it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::FailFast => "fail_fast",
        }
    }
}

impl fmt::Display for OnUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses a [name](OnUnavailable::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an unknown name; the message lists all names.
impl FromStr for OnUnavailable {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("on_unavailable", name, &Self::ALL, Self::as_str)
    }
}
