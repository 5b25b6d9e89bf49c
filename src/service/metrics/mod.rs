//! What callers experience, measured: how many requests, how they end, how long they take.

mod future;
mod series;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use self::future::InFlight;
pub(crate) use self::future::MetricsFuture;
pub(crate) use self::series::RequestMetrics;
use super::request::{Request, Response};
use crate::error::{Error, Result};

/// Measures the requests to a service.
#[derive(Clone)]
pub(crate) struct MetricsLayer(pub(crate) Arc<RequestMetrics>);

impl<S> Layer<S> for MetricsLayer {
    type Service = Metrics<S>;

    fn layer(&self, inner: S) -> Metrics<S> {
        Metrics {
            inner,
            metrics: Arc::clone(&self.0),
        }
    }
}

/// A service whose requests are measured.
#[derive(Clone)]
pub(crate) struct Metrics<S> {
    inner: S,
    metrics: Arc<RequestMetrics>,
}

impl<S> Service<Request> for Metrics<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    type Response = Response;
    type Error = Error;
    type Future = MetricsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let in_flight = InFlight::begin(&self.metrics, &request);
        MetricsFuture::new(self.inner.call(request), in_flight)
    }
}

impl<S: fmt::Debug> fmt::Debug for Metrics<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
