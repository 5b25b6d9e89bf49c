//! The future of a request with a time limit.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use super::limit::{Explain, TimeLimit};
use crate::error::{BoxError, Error, Result};
use crate::service::request::Response;

pin_project! {
    /// The future of a [`Timeout`](super::Timeout).
    pub struct TimeoutFuture<F, X = ()> {
        // `None` after the time is over. A grant that comes later is released.
        #[pin]
        inner: Option<F>,
        // `None` if the inner service ends the request by itself.
        limit: Option<TimeLimit<X>>,
        // Created if the answer does not come at the first poll.
        #[pin]
        alarm: Option<Sleep>,
    }
}

impl<F, X> TimeoutFuture<F, X> {
    #[inline(always)]
    pub(super) fn new(inner: F, limit: Option<TimeLimit<X>>) -> Self {
        Self {
            inner: Some(inner),
            limit,
            alarm: None,
        }
    }
}

impl<F, E, X> Future for TimeoutFuture<F, X>
where
    X: Explain,
    F: Future<Output = Result<Response, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        if let Poll::Ready(answer) = inner.poll(cx) {
            return Poll::Ready(answer.map_err(|error| Error::of_layer(error.into())));
        }
        let Some(limit) = this.limit else {
            return Poll::Pending;
        };
        if this.alarm.is_none() {
            this.alarm.set(Some(sleep_until(limit.until())));
        }
        if let Some(alarm) = this.alarm.as_pin_mut() {
            ready!(alarm.poll(cx));
        }
        let error = limit.error();
        this.inner.set(None);
        Poll::Ready(Err(error))
    }
}

impl<F, X> fmt::Debug for TimeoutFuture<F, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutFuture").finish_non_exhaustive()
    }
}
