//! The key of a request.

#[cfg(doc)]
use super::layer::{LockLayer, SemaphoreLayer};
use crate::error::Result;
use crate::types::Key;

/// The key of a request, as a closure returns it to a [`LockLayer`] or [`SemaphoreLayer`]: a [`Key`], a string, or an
/// `Option` of one.
///
/// `None` means that the request needs no lease: it passes through.
pub trait RequestKey {
    /// Checks the key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it is invalid; see [`Key::new`].
    fn into_key(self) -> Result<Option<Key>>;
}

impl RequestKey for Key {
    fn into_key(self) -> Result<Option<Key>> {
        Ok(Some(self))
    }
}

impl RequestKey for String {
    fn into_key(self) -> Result<Option<Key>> {
        Key::new(self).map(Some)
    }
}

impl RequestKey for &'static str {
    fn into_key(self) -> Result<Option<Key>> {
        Key::new(self).map(Some)
    }
}

impl<K: RequestKey> RequestKey for Option<K> {
    fn into_key(self) -> Result<Option<Key>> {
        self.map_or(Ok(None), RequestKey::into_key)
    }
}
