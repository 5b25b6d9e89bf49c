//! A span around each request.
//!
//! The spans have debug level, so that a production log at info level costs only a comparison. They never contain
//! tokens, but they do contain keys.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::{Level, Span};

use super::outcome::Outcome;
use super::request::{Request, Response};
use super::routes::Routes;
use crate::error::{Error, Result};

/// Opens a span for each request to a service. `R` points to the routes, in the same way as `M` of the metrics layer
/// points to the metrics.
#[derive(Clone)]
pub(crate) struct TraceLayer<R>(pub(crate) R);

impl<S, R: Clone> Layer<S> for TraceLayer<R> {
    type Service = Trace<S, R>;

    fn layer(&self, inner: S) -> Trace<S, R> {
        Trace {
            inner,
            routes: self.0.clone(),
        }
    }
}

/// A service whose requests have spans.
#[derive(Clone)]
pub(crate) struct Trace<S, R> {
    inner: S,
    routes: R,
}

impl<S, R> Service<Request> for Trace<S, R>
where
    S: Service<Request, Response = Response, Error = Error>,
    R: Deref<Target = Routes>,
{
    type Response = Response;
    type Error = Error;
    type Future = TraceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, request: Request) -> Self::Future {
        if !tracing::enabled!(Level::DEBUG) {
            let inner = self.inner.call(request);
            return TraceFuture { inner, span: None };
        }
        let span = request.span(self.routes.shard_of(&request), self.routes.client.as_deref());
        let inner = span.in_scope(|| self.inner.call(request));
        TraceFuture {
            inner,
            span: Some(span),
        }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for Trace<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// Runs within the span and records the outcome there. A span without an outcome belongs to a request that was
    /// dropped.
    pub(crate) struct TraceFuture<F> {
        #[pin]
        inner: F,
        span: Option<Span>,
    }
}

impl<F: Future<Output = Result<Response>>> Future for TraceFuture<F> {
    type Output = Result<Response>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response>> {
        let this = self.project();
        let Some(span) = this.span else {
            return this.inner.poll(cx);
        };
        let _entered = span.enter();
        let answer = ready!(this.inner.poll(cx));
        span.record("outcome", Outcome::of(&answer).as_str());
        match &answer {
            Ok(Response::Granted(lease)) => {
                span.record("contended", lease.was_contended());
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(error = %error.chain(), "failed"),
        }
        Poll::Ready(answer)
    }
}
