//! The auth token that a server may require.

use std::fmt;

use zeroize::Zeroizing;

use super::MAX_LONG_LINE;
use crate::error::{Error, Result};

/// The auth token of a server. `Debug` does not show it, and its memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthToken(Zeroizing<Box<str>>);

impl AuthToken {
    /// Checks a token.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the token is empty, longer than 64 KiB, or
    /// contains a line break or NUL. The message does not show the token.
    pub fn new(token: impl Into<Box<str>>) -> Result<Self> {
        let token = Zeroizing::new(token.into());
        if token.is_empty() || token.len() > MAX_LONG_LINE || token.contains(['\n', '\r', '\0']) {
            return Err(Error::invalid(
                "auth token of length",
                token.len(),
                "give 1 to 65536 bytes without line breaks and NUL",
            ));
        }
        Ok(Self(token))
    }

    /// Returns the token itself. Keep it out of logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_wiped_when_it_is_dropped() {
        fn is_wiped<T: zeroize::ZeroizeOnDrop>(_: &T) {}
        is_wiped(&AuthToken::new("sesame").unwrap().0);
    }
}
