//! Grants of a server.

use super::fence::Fence;
use super::seconds::Ttl;
use super::token::Token;

/// A lock or slot that the server has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// The secret that renews and releases it.
    pub token: Token,
    /// The TTL of the lease, as the server reported it. It may differ from the requested one.
    pub ttl: Ttl,
    /// The fence, if the grant has it as a third field. Otherwise it may be in the token: see [`Token::first_half`].
    pub fence: Option<Fence>,
}

impl Grant {
    /// Creates a grant without a separate fence.
    #[must_use]
    pub fn new(token: Token, ttl: Ttl) -> Self {
        Self {
            token,
            ttl,
            fence: None,
        }
    }
}
