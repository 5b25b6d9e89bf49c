//! The tokens of grants.

use std::fmt;
use std::str::FromStr;

#[cfg(any(test, feature = "server"))]
use super::fence::Fence;
use crate::error::{Error, Result};

/// The secret of one grant: 32 hexadecimal digits. Any client that knows it can renew and release the lease.
///
/// `Debug` and `Display` show the first 8 digits only; [`Token::as_str`] shows all. It does not implement serde's
/// traits, so that no log or file contains it as a part of another value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; Self::DIGITS]);

impl Token {
    /// The number of digits.
    pub(crate) const DIGITS: usize = 32;

    /// A token that no server issues.
    pub(crate) const NEVER_ISSUED: Self = Self([b'0'; Self::DIGITS]);

    /// Parses the 32 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for anything else. The value is
    /// a secret, so the message gives its length only.
    pub fn new(digits: impl AsRef<[u8]>) -> Result<Self> {
        Self::parse(digits.as_ref()).ok_or_else(|| {
            Error::invalid(
                "token of length",
                digits.as_ref().len(),
                "a token is 32 hexadecimal digits",
            )
        })
    }

    /// Parses the digits. Returns `None` if they are invalid.
    pub(crate) fn parse(digits: &[u8]) -> Option<Self> {
        let digits: [u8; Self::DIGITS] = digits.try_into().ok()?;
        // Checks all digits, also after an invalid one, so that the compiler can vectorize the loop.
        let valid = digits
            .iter()
            .fold(true, |valid, digit| valid & digit.is_ascii_hexdigit());
        valid.then_some(Self(digits))
    }

    /// Creates a token from a fence and a random number, as servers do from 2.1 on.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn compose(fence: Fence, random: u64) -> Self {
        let mut digits = [0_u8; Self::DIGITS];
        let (first, second) = digits.split_at_mut(16);
        for (half, number) in [(first, fence.0), (second, random)] {
            for (pair, byte) in half.chunks_exact_mut(2).zip(number.to_be_bytes()) {
                let hex = |digit: u8| digit + if digit < 10 { b'0' } else { b'a' - 10 };
                pair.copy_from_slice(&[hex(byte >> 4), hex(byte & 0xf)]);
            }
        }
        Self(digits)
    }

    /// Returns all 32 digits. Keep them out of logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The digits were checked to be ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns all 32 digits, for the wire.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the first 16 digits as a number. Servers from 2.1 on put the [`Fence`] there. In the tokens of earlier
    /// servers these digits are random. The token does not show which of the two it contains.
    #[must_use]
    pub fn first_half(&self) -> u64 {
        // All digits are hexadecimal. The low four bits of a letter count from 1, so 9 is added.
        let value = |digit: u8| u64::from(digit & 0xf) + 9 * u64::from(digit >> 6);
        self.0[..16].iter().fold(0, |half, digit| (half << 4) | value(*digit))
    }
}

/// Parses the 32 hexadecimal digits, as [`Token::new`] does.
impl FromStr for Token {
    type Err = Error;

    fn from_str(digits: &str) -> Result<Self> {
        Self::new(digits)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", &self.as_str()[..8])
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}
