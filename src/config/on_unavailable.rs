//! What callers meet while no server serves their key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, named};

/// What callers meet while the shard of their key is not connected. It is shown, parsed and serialized by its [name](Self::as_str).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnUnavailable {
    /// They wait for it until their own timeout.
    #[default]
    Wait,
    /// They get [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) at once.
    FailFast,
}

impl OnUnavailable {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Wait, Self::FailFast];

    /// Its name, as configurations write it.
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

/// Reads a [name](OnUnavailable::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), with all names.
impl FromStr for OnUnavailable {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("on_unavailable", name, &Self::ALL, Self::as_str)
    }
}
