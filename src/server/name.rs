//! Keys as servers accept them.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A key: any bytes except the space, the tab, `\r` and `\n`. Every [`Key`](crate::types::Key) is a valid name, but
/// some names are not valid as a `Key`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name(Arc<[u8]>);

impl Name {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(key.into())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Lets maps look up a name by its bytes: equality, order and hash of a name are those of its bytes.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Shows the key as `stats` does: U+FFFD replaces invalid UTF-8.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}
