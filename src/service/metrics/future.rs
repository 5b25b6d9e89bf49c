//! One request, from its call to its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;

use super::series::{RequestMetrics, ShardSeries};
use crate::error::Result;
use crate::service::outcome::Outcome;
use crate::service::request::{Operation, Request, Response};
use crate::types::Kind;

pin_project! {
    /// Passes the answer on, and takes note of it.
    pub(crate) struct MetricsFuture<F> {
        #[pin]
        inner: F,
        in_flight: Option<InFlight>,
    }
}

impl<F> MetricsFuture<F> {
    pub(super) fn new(inner: F, in_flight: InFlight) -> Self {
        Self {
            inner,
            in_flight: Some(in_flight),
        }
    }
}

impl<F: Future<Output = Result<Response>>> Future for MetricsFuture<F> {
    type Output = Result<Response>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response>> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        if let Some(in_flight) = this.in_flight.take() {
            in_flight.end(&answer);
        }
        Poll::Ready(answer)
    }
}

/// A request that has not ended. Dropping it is an end, too.
pub(super) struct InFlight {
    series: Arc<ShardSeries>,
    operation: Operation,
    kind: Option<Kind>,
    since: Instant,
    ended: bool,
}

impl InFlight {
    pub(super) fn begin(metrics: &RequestMetrics, request: &Request) -> Self {
        Self {
            series: metrics.of(request),
            operation: request.operation(),
            kind: request.kind(),
            since: Instant::now(),
            ended: false,
        }
    }

    fn end(mut self, answer: &Result<Response>) {
        if let Ok(Response::Granted(lease)) = answer {
            self.series
                .waited(lease.kind(), lease.was_contended(), self.since.elapsed());
        }
        self.record(Outcome::of(answer));
    }

    fn record(&mut self, outcome: Outcome) {
        self.ended = true;
        self.series
            .ended(self.operation, self.kind, outcome, self.since.elapsed());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.ended {
            self.record(Outcome::Dropped);
        }
    }
}
