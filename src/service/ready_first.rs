//! Readiness as a part of the call: what handles use, so that a wait for room is timed and measured with the rest.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::request::Request;

/// A service that is always ready, and waits for the inner one within the call.
#[derive(Clone, Debug)]
pub(crate) struct ReadyFirst<S>(pub(crate) S);

impl<S: Service<Request> + Clone> Service<Request> for ReadyFirst<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = ReadyFirstFuture<S>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        ReadyFirstFuture {
            waiting: Some(Waiting {
                service: self.0.clone(),
                request,
                since: None,
            }),
            called: None,
        }
    }
}

struct Waiting<S> {
    service: S,
    request: Request,
    /// When it was first found not ready.
    since: Option<Instant>,
}

pin_project! {
    /// Waits until the service is ready, calls it, and waits for its answer. What the first takes is taken off the time
    /// that the request itself may wait.
    pub(crate) struct ReadyFirstFuture<S: Service<Request>> {
        waiting: Option<Waiting<S>>,
        #[pin]
        called: Option<S::Future>,
    }
}

impl<S: Service<Request>> Future for ReadyFirstFuture<S> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(called) = this.called.as_mut().as_pin_mut() {
                return called.poll(cx);
            }
            let Some(mut waiting) = this.waiting.take() else {
                // It was polled after its end.
                return Poll::Pending;
            };
            match waiting.service.poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    waiting.since.get_or_insert_with(Instant::now);
                    *this.waiting = Some(waiting);
                    return Poll::Pending;
                }
            }
            if let Some(since) = waiting.since {
                waiting.request.spend(since.elapsed());
            }
            let called = waiting.service.call(waiting.request);
            this.called.set(Some(called));
        }
    }
}
