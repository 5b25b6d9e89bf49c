//! A span around each request.
//!
//! At debug level, so that production at info pays a comparison for it. Tokens never appear, keys do.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::{Level, Span, field};

use super::outcome::Outcome;
use super::request::{Operation, Request, Response};
use super::routes::Routes;
use crate::error::{Error, Result};
use crate::escape::Escaped;
use crate::human::human;
use crate::types::{Key, Kind};

/// Opens a span for each request to a service. `R` points to the routes, as `M` of the metrics layer does to the metrics.
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

    fn call(&mut self, request: Request) -> Self::Future {
        if !tracing::enabled!(Level::DEBUG) {
            let inner = self.inner.call(request);
            return TraceFuture { inner, span: None };
        }
        let span = span(&request, &self.routes);
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

/// Names of spans are fixed where they are written, so each operation has its line.
fn span(request: &Request, routes: &Routes) -> Span {
    let shard = routes.shard_of(request);
    let key = Escaped(request.key().map(Key::as_str).unwrap_or_default());
    let subject = Escaped(match request {
        Request::Emit { channel, .. } => channel.as_str(),
        Request::Subscribe(subscribe) => subscribe.pattern.as_str(),
        _ => "",
    });
    let kind = request.kind().map_or("none", Kind::as_str);
    let wait = human(request.wait());
    let (outcome, contended) = (field::Empty, field::Empty);
    match request.operation() {
        Operation::Acquire => {
            tracing::debug_span!("acquire", shard, %key, kind, %wait, contended, outcome)
        }
        Operation::TryAcquire => tracing::debug_span!("try_acquire", shard, %key, kind, contended, outcome),
        Operation::Enqueue => tracing::debug_span!("enqueue", shard, %key, kind, contended, outcome),
        Operation::Collect => tracing::debug_span!("collect", shard, %key, kind, %wait, contended, outcome),
        Operation::Release => tracing::debug_span!("release", shard, %key, kind, outcome),
        Operation::Stats => tracing::debug_span!("stats", shard, outcome),
        Operation::Barrier => tracing::debug_span!("barrier", shard, outcome),
        Operation::Failback => tracing::debug_span!("failback", shard, outcome),
        Operation::Emit => tracing::debug_span!("emit", shard, channel = %subject, outcome),
        Operation::Subscribe => tracing::debug_span!("subscribe", pattern = %subject, outcome),
    }
}

pin_project! {
    /// Runs within the span, and says there how it ended. A span without an outcome is of a request that was dropped.
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
