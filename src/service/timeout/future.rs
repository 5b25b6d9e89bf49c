//! The answer to a request, or the end of its time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::limit::Limit;
use crate::clock::after;
use crate::error::{BoxError, Error, Result};
use crate::service::request::Response;

pin_project! {
    /// What a [`Timeout`](super::Timeout) answers.
    pub struct TimeoutFuture<F> {
        #[pin]
        inner: F,
        limit: Limit,
        called_at: Instant,
        // Set when the answer is not there at once.
        #[pin]
        alarm: Option<Sleep>,
    }
}

impl<F> TimeoutFuture<F> {
    pub(super) fn new(inner: F, limit: Limit) -> Self {
        Self {
            inner,
            limit,
            called_at: Instant::now(),
            alarm: None,
        }
    }
}

impl<F, E> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<Response, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response>> {
        let mut this = self.project();
        if let Poll::Ready(answer) = this.inner.poll(cx) {
            return Poll::Ready(answer.map_err(|error| Error::of_layer(error.into())));
        }
        if this.alarm.is_none() {
            let until = after(*this.called_at, this.limit.duration());
            this.alarm.set(Some(sleep_until(until)));
        }
        match this.alarm.as_pin_mut() {
            Some(alarm) => alarm.poll(cx).map(|()| Err(this.limit.error())),
            None => Poll::Pending,
        }
    }
}

impl<F> fmt::Debug for TimeoutFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutFuture").finish_non_exhaustive()
    }
}
