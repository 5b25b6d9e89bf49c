//! Keys as servers take them.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A key: any bytes but blanks, tabs and line ends. A [`Key`](crate::types::Key) is one of these; not all of these are keys that the
/// client would send.
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

/// Equal, ordered and hashed as its bytes.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// As `stats` shows it: U+FFFD stands for what is not UTF-8.
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
