//! Limits the time of every request: its own wait plus the request timeout.

mod future;
mod layer;
mod limit;

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use tower::Service;

pub use self::future::TimeoutFuture;
pub use self::layer::TimeoutLayer;
use self::limit::TimeLimit;
pub(crate) use self::limit::{Explain, RequestSummary, Scope, unanswered};
use super::request::{Operation, Request, Response};
use crate::error::{BoxError, Error, Result};

/// Ends requests whose time is over. Created by [`TimeoutLayer`].
#[derive(Clone)]
pub struct Timeout<S, X = ()> {
    inner: S,
    request_timeout: Duration,
    explain: X,
    waits_end: bool,
}

impl<S, X> Service<Request> for Timeout<S, X>
where
    X: Explain + Clone,
    S: Service<Request, Response = Response>,
    S::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Error;
    type Future = TimeoutFuture<S::Future, X>;

    /// Returns ready when the inner service is ready. The time of a request begins at the call.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx).map_err(|error| Error::of_layer(error.into()))
    }

    #[inline(always)]
    fn call(&mut self, mut request: Request) -> Self::Future {
        // Saves a timer, which costs about as much as all other layers together.
        let ends_by_itself = self.waits_end && !request.wait().is_zero();
        let limit = (!ends_by_itself).then(|| {
            // Records what the request waits for. Without a layer in between, an unanswered request always waits for
            // its server, except an enqueue, which may wait for a connection.
            if !self.waits_end || request.operation() == Operation::Enqueue {
                request.track();
            }
            TimeLimit::new(RequestSummary::of(&request), self.request_timeout, self.explain.clone())
        });
        TimeoutFuture::new(self.inner.call(request), limit)
    }
}

impl<S: fmt::Debug, X> fmt::Debug for Timeout<S, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout")
            .field("inner", &self.inner)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
