//! The words of signals as servers take them: bytes.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The name of a group.
pub(in crate::server) type RawGroup = Arc<[u8]>;

/// A pattern, by the rules of [`protocol::Pattern`](crate::protocol::Pattern) for its wildcards.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::server) struct RawPattern(Arc<[u8]>);

impl RawPattern {
    /// Checks a pattern: a wildcard is a whole token, and `>` the last one.
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

    /// Whether it may match more than the one channel of its name.
    pub(super) fn has_wildcards(&self) -> bool {
        has_wildcards(&self.0)
    }
}

/// The dot-separated tokens of a pattern or a channel.
pub(super) fn tokens(name: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    name.split(|byte| *byte == b'.')
}

/// Whether there is a wildcard in it. A channel has none.
pub(in crate::server) fn has_wildcards(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'*' | b'>'))
}

/// Patterns in maps are found by their bytes.
impl Borrow<[u8]> for RawPattern {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// As `stats` shows it: U+FFFD stands for what is not UTF-8.
impl fmt::Display for RawPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}
