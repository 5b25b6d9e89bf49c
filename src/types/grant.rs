//! What servers grant.

use super::fence::Fence;
use super::seconds::Ttl;
use super::token::Token;

/// A lock or slot that the server has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// The secret to renew and release it with.
    pub token: Token,
    /// The lease: what the server says counts, not what was asked for.
    pub ttl: Ttl,
    /// The fence, if the grant names it as a third number. It may be in the token if not: see [`Token::first_half`].
    pub fence: Option<Fence>,
}

impl Grant {
    /// A grant that names no fence beside its token.
    #[must_use]
    pub fn new(token: Token, ttl: Ttl) -> Self {
        Self {
            token,
            ttl,
            fence: None,
        }
    }
}
