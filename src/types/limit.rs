//! The limit of a semaphore.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::escape::Shortened;

/// The maximum number of holders of a semaphore at the same time: at least one. It is shown, parsed and serialized as a
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Limit(NonZeroU32);

impl Limit {
    /// Creates a limit and checks the number.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0.
    pub fn new(limit: u32) -> Result<Self> {
        NonZeroU32::new(limit).map(Self).ok_or_else(|| {
            Error::invalid(
                "semaphore limit",
                limit,
                "give at least 1, and the same for every user of the key",
            )
        })
    }

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Parses a number and checks it as [`Limit::new`] does.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for anything but a number of at least 1.
impl FromStr for Limit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let limit = text.parse::<u32>();
        let limit = limit.map_err(|_| Error::invalid("semaphore limit", Shortened(text), "give a whole number"))?;
        Self::new(limit)
    }
}

/// Checks a limit, as [`Limit::new`] does.
impl TryFrom<u32> for Limit {
    type Error = Error;

    fn try_from(limit: u32) -> Result<Self> {
        Self::new(limit)
    }
}

impl From<NonZeroU32> for Limit {
    fn from(limit: NonZeroU32) -> Self {
        Self(limit)
    }
}

impl From<Limit> for u32 {
    fn from(limit: Limit) -> Self {
        limit.get()
    }
}
