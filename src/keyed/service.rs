//! The service.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::Service;

use super::error::KeyedError;
use super::future::KeyedFuture;
#[cfg(doc)]
use super::layer::{LockLayer, SemaphoreLayer};
use super::section::Section;
use crate::handle::guard::Guard;

/// A service in which each request first acquires a lease. [`LockLayer`] and [`SemaphoreLayer`] make it and describe
/// it.
///
/// It is ready when the inner service is. A call leaves a clone of the inner service for the next request. The instance
/// that was ready gets the request of the call once the lease is granted.
pub struct Keyed<S, G, R> {
    inner: S,
    section: Arc<Section<G, R>>,
}

impl<S, G, R> Keyed<S, G, R> {
    pub(super) fn new(inner: S, section: Arc<Section<G, R>>) -> Self {
        Self { inner, section }
    }
}

impl<S, G, R> Service<R> for Keyed<S, G, R>
where
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
    G: Guard,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = KeyedError<S::Error>;
    type Future = KeyedFuture<S::Future, S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(KeyedError::Inner)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let key = match self.section.key(&request) {
            Ok(Some(key)) => key,
            Ok(None) => return KeyedFuture::passing_through(self.inner.call(request)),
            Err(error) => return KeyedFuture::refused(error),
        };
        let next = self.inner.clone();
        let ready = mem::replace(&mut self.inner, next);
        let section = Arc::clone(&self.section);
        KeyedFuture::with_lease(async move { section.run(&key, ready, request).await })
    }
}

impl<S: Clone, G, R> Clone for Keyed<S, G, R> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.section))
    }
}

impl<S: fmt::Debug, G, R> fmt::Debug for Keyed<S, G, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("inner", &self.inner)
            .field("target", &self.section.target)
            .finish_non_exhaustive()
    }
}
