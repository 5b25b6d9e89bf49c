//! The names of locks and semaphores.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::escape::{Escaped, Shortened};

/// The maximum length of a key or pattern that every server accepts, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// The name of a lock or semaphore: 1 to 256 bytes of UTF-8 without whitespace or NUL.
///
/// A map whose keys are `Key`s can be searched with a `&str`. A key is serialized as its text, and checked when it is
/// deserialized.
///
/// ```
/// use std::collections::HashMap;
///
/// use dflockd_client::Key;
///
/// let key: Key = "jobs/42".parse()?;
/// let owners = HashMap::from([(key, "worker-7")]);
/// assert_eq!(owners.get("jobs/42"), Some(&"worker-7"));
/// # Ok::<(), dflockd_client::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Key(Arc<str>);

impl Key {
    /// Creates a key and checks the name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the name is empty, longer than [`MAX_KEY_BYTES`]
    /// bytes (bytes, not characters), or contains whitespace or NUL, which the line protocol cannot represent.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        check_word("key", name.as_ref())?;
        Ok(Self(name.as_ref().into()))
    }

    /// Returns a key that shows possibly invalid bytes: U+FFFD replaces invalid characters, and the end of a long key
    /// is cut off.
    #[cfg(feature = "server")]
    pub(crate) fn lossy(key: &[u8]) -> Self {
        const INVALID: char = char::REPLACEMENT_CHARACTER;
        let text = String::from_utf8_lossy(key);
        let valid = text.chars().map(|c| match c {
            '\0' => INVALID,
            c if c.is_whitespace() => INVALID,
            c => c,
        });
        let mut name = String::with_capacity(key.len());
        for c in valid {
            if name.len() + c.len_utf8() > MAX_KEY_BYTES {
                break;
            }
            name.push(c);
        }
        Self(name.into())
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks a word for the protocol's key line.
pub(crate) fn check_word(what: &str, word: &str) -> Result<()> {
    let problem = if word.is_empty() {
        Some("it is empty; give at least one character".to_owned())
    } else if word.len() > MAX_KEY_BYTES {
        Some(format!(
            "it has {} bytes; the server takes at most {MAX_KEY_BYTES}",
            word.len()
        ))
    } else {
        word.chars()
            .find(|c| c.is_whitespace() || *c == '\0')
            .map(|c| format!("it contains {c:?}; use no whitespace and no NUL"))
    };
    match problem {
        None => Ok(()),
        Some(problem) => Err(Error::invalid(what, Shortened(word), &problem)),
    }
}

/// Shows the name, with invisible characters escaped; [`Key::as_str`] returns it unchanged.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Escaped(&self.0), f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Lets maps find keys by their text.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Checks a name, as [`Key::new`] does.
impl FromStr for Key {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

/// Checks a name, as [`Key::new`] does.
impl TryFrom<&str> for Key {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

/// Checks a name, as [`Key::new`] does.
impl TryFrom<String> for Key {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.as_str().to_owned()
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
