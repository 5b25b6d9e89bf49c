//! Patterns and groups of signals as servers accept them, namely as bytes.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The name of a group.
pub(in crate::server) type RawGroup = Arc<[u8]>;

/// A pattern. Its wildcards follow the rules of [`protocol::Pattern`](crate::protocol::Pattern).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::server) struct RawPattern(Arc<[u8]>);

impl RawPattern {
    /// Checks a pattern: a wildcard must be a whole token, and `>` must be the last token.
    pub(in crate::server) fn read(pattern: &[u8]) -> Option<Self> {
        let mut tokens = tokens(pattern).peekable();
        while let Some(token) = tokens.next() {
            match token {
                b"*" => {}
                b">" if tokens.peek().is_none() => {}
                token if has_wildcards(token) => return None,
                _ => {}
            }
        }
        Some(Self(pattern.into()))
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = &[u8]> + Clone {
        tokens(&self.0)
    }

    /// Returns whether the pattern has wildcards, and so may match several channels.
    pub(super) fn has_wildcards(&self) -> bool {
        has_wildcards(&self.0)
    }
}

/// Splits a pattern or a channel into its tokens, which dots separate.
pub(super) fn tokens(name: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    name.split(|byte| *byte == b'.')
}

/// Returns whether the name contains a wildcard. A channel contains none.
pub(in crate::server) fn has_wildcards(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'*' | b'>'))
}

/// Lets maps look up a pattern by its bytes.
impl Borrow<[u8]> for RawPattern {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Shows the pattern as `stats` does: U+FFFD replaces invalid UTF-8.
impl fmt::Display for RawPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}
