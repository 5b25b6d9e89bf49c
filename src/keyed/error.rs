//! The error of a keyed service.

use std::error::Error as StdError;
use std::fmt;

#[cfg(doc)]
use super::layer::{LockLayer, SemaphoreLayer};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{BoxError, Error};

/// The error of a service in a [`LockLayer`] or [`SemaphoreLayer`]: the error of the lease or that of the inner
/// service.
///
/// It has the text and the source of the error that it contains.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeyedError<E> {
    /// The key is invalid ([`ErrorKind::InvalidInput`]) or the lease was not granted ([`ErrorKind::Timeout`],
    /// [`ErrorKind::Unavailable`], or a refusal of the server); in these cases the inner service was not called. Or the
    /// lease was lost ([`ErrorKind::LeaseLost`]), and the future of the inner service was dropped.
    Lease(Error),
    /// The inner service failed, in [`Service::poll_ready`](tower::Service::poll_ready) or in the future of its
    /// response. The lease was released.
    Inner(E),
}

impl<E> KeyedError<E> {
    /// Returns the contained error, for outer layers that accept any error.
    ///
    /// ```
    /// # use dflockd_client::{Client, KeyedError, LockLayer};
    /// # fn services(client: &Client) {
    /// let builder = tower::ServiceBuilder::new()
    ///     .map_err(KeyedError::<std::io::Error>::into_boxed)
    ///     .layer(LockLayer::new(client, |job: &String| job.clone()));
    /// # }
    /// ```
    pub fn into_boxed(self) -> Box<dyn StdError + Send + Sync>
    where
        E: Into<BoxError>,
    {
        match self {
            Self::Lease(error) => error.into(),
            Self::Inner(error) => error.into(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for KeyedError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(error) => fmt::Display::fmt(error, f),
            Self::Inner(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl<E: StdError + 'static> StdError for KeyedError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Lease(error) => error.source(),
            Self::Inner(error) => error.source(),
        }
    }
}
