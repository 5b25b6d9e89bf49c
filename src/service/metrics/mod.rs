//! Metrics of requests, as callers see them: their number, their outcomes and their durations.

mod future;
mod series;

use std::fmt;
use std::ops::Deref;
use std::task::{Context, Poll};

use tower::{Layer, Service};

pub(crate) use self::future::MetricsFuture;
use self::future::RequestTimer;
pub(crate) use self::series::RequestMetrics;
use super::request::{Request, Response};
use crate::error::{Error, Result};

/// Measures the requests to a service, if there is a recorder. `M` points to the metrics. A long-lived service owns it;
/// a single call borrows it, so that the call needs no reference count.
#[derive(Clone)]
pub(crate) struct MetricsLayer<M>(pub(crate) Option<M>);

impl<S, M: Clone> Layer<S> for MetricsLayer<M> {
    type Service = Metrics<S, M>;

    fn layer(&self, inner: S) -> Metrics<S, M> {
        Metrics {
            inner,
            metrics: self.0.clone(),
        }
    }
}

/// A service whose requests are measured.
#[derive(Clone)]
pub(crate) struct Metrics<S, M> {
    inner: S,
    metrics: Option<M>,
}

impl<S, M> Service<Request> for Metrics<S, M>
where
    S: Service<Request, Response = Response, Error = Error>,
    M: Deref<Target = RequestMetrics> + Clone,
{
    type Response = Response;
    type Error = Error;
    type Future = MetricsFuture<S::Future, M>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, request: Request) -> Self::Future {
        let in_flight = self
            .metrics
            .clone()
            .map(|metrics| RequestTimer::begin(metrics, &request));
        MetricsFuture::new(self.inner.call(request), in_flight)
    }
}

impl<S: fmt::Debug, M> fmt::Debug for Metrics<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
