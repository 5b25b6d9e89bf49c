//! The future of a measured request.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use super::series::{RequestMetrics, SeriesId};
use crate::error::Result;
use crate::service::outcome::Outcome;
use crate::service::request::{Operation, Request, Response};
use crate::types::Kind;
use crate::unwind::catch;

pin_project! {
    /// Returns the answer, and records it.
    pub(crate) struct MetricsFuture<F, M: Deref<Target = RequestMetrics>> {
        #[pin]
        inner: F,
        in_flight: Option<RequestTimer<M>>,
    }
}

impl<F, M: Deref<Target = RequestMetrics>> MetricsFuture<F, M> {
    #[inline(always)]
    pub(super) fn new(inner: F, in_flight: Option<RequestTimer<M>>) -> Self {
        Self { inner, in_flight }
    }
}

impl<F, M> Future for MetricsFuture<F, M>
where
    F: Future<Output = Result<Response>>,
    M: Deref<Target = RequestMetrics>,
{
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

/// A request that has not ended. If it is dropped, the drop records the end.
pub(super) struct RequestTimer<M: Deref<Target = RequestMetrics>> {
    metrics: M,
    series: SeriesId,
    operation: Operation,
    kind: Option<Kind>,
    since: Instant,
    ended: bool,
}

impl<M: Deref<Target = RequestMetrics>> RequestTimer<M> {
    pub(super) fn begin(metrics: M, request: &Request) -> Self {
        Self {
            series: metrics.series_of(request),
            metrics,
            operation: request.operation(),
            kind: request.kind(),
            since: Instant::now(),
            ended: false,
        }
    }

    fn end(mut self, answer: &Result<Response>) {
        let took = self.since.elapsed();
        if let Ok(Response::Granted(lease)) = answer {
            let series = self.metrics.get(&self.series);
            series.waited(lease.kind(), lease.was_contended(), took);
        }
        self.record(Outcome::of(answer), took);
    }

    fn record(&mut self, outcome: Outcome, took: Duration) {
        self.ended = true;
        self.metrics
            .get(&self.series)
            .ended(self.operation, self.kind, outcome, took);
    }
}

/// Catches a panic of the recorder, which would abort the process if another panic is under way.
impl<M: Deref<Target = RequestMetrics>> Drop for RequestTimer<M> {
    fn drop(&mut self) {
        if !self.ended {
            drop(catch(|| self.record(Outcome::Dropped, self.since.elapsed())));
        }
    }
}
