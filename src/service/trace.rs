//! A span around each request.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::Level;

use super::core::Explainer;
use super::request::{Request, Response};
use super::span::{RequestSpan, Site};
use crate::error::{Error, Result};

/// Opens a span for each request to a service. `E` refers to the explainer, which knows the shards of requests.
#[derive(Clone)]
pub(crate) struct TraceLayer<E>(pub(crate) E);

impl<S, E: Clone> Layer<S> for TraceLayer<E> {
    type Service = Trace<S, E>;

    fn layer(&self, inner: S) -> Trace<S, E> {
        Trace {
            inner,
            explainer: self.0.clone(),
        }
    }
}

/// A service whose requests have spans.
#[derive(Clone)]
pub(crate) struct Trace<S, E> {
    inner: S,
    explainer: E,
}

impl<S, E> Service<Request> for Trace<S, E>
where
    S: Service<Request, Response = Response, Error = Error>,
    E: Deref<Target = Explainer>,
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
        let span = RequestSpan::of_request(&request, &Site::of(&request, &self.explainer));
        let inner = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        TraceFuture {
            inner,
            span: Some(span),
        }
    }
}

impl<S: fmt::Debug, E> fmt::Debug for Trace<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// Polls the request within its span, and records the outcome.
    pub(crate) struct TraceFuture<F> {
        #[pin]
        inner: F,
        span: Option<RequestSpan>,
    }
}

impl<F: Future<Output = Result<Response>>> Future for TraceFuture<F> {
    type Output = Result<Response>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response>> {
        let this = self.project();
        let Some(span) = this.span else {
            return this.inner.poll(cx);
        };
        let answer = {
            let _entered = span.enter();
            let answer = ready!(this.inner.poll(cx));
            if let Err(error) = &answer {
                tracing::debug!(error = %error.chain(), "failed");
            }
            answer
        };
        if let Some(span) = this.span.take() {
            span.end(&answer);
        }
        Poll::Ready(answer)
    }
}
