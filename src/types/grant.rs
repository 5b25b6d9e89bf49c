//! The grants of a server.

use super::fence::Fence;
use super::seconds::Ttl;
use super::token::Token;

/// A lock or slot that the server has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// The secret with which a client renews and releases the lease.
    pub token: Token,
    /// The TTL of the lease, as the server reported it. It may differ from the requested one.
    pub ttl: Ttl,
    /// The fence, if the server sent it as a third field. Otherwise the token may contain it: see
    /// [`Token::first_half`].
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
