//! Readiness as a part of the call: what handles use, so that a wait for room is timed and measured with the rest.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use super::core::ready_too_late;
use super::request::{Request, Response};
use crate::clock::after;
use crate::error::{Budget, Error, Result};

/// A service that is always ready, and waits for the inner one within the call.
#[derive(Clone, Debug)]
pub(crate) struct ReadyFirst<S>(pub(crate) S);

impl<S> Service<Request> for ReadyFirst<S>
where
    S: Service<Request, Response = Response, Error = Error> + Clone,
{
    type Response = Response;
    type Error = Error;
    type Future = ReadyFirstFuture<S>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let mut service = self.0.clone();
        // As a rule it is ready; if not, it is asked again by the task that is to be woken.
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => ReadyFirstFuture {
                waiting: None,
                called: Some(service.call(request)),
            },
            Poll::Ready(Err(_)) | Poll::Pending => ReadyFirstFuture {
                waiting: Some(Box::new(Waiting::new(service, request))),
                called: None,
            },
        }
    }
}

/// A request whose service was not ready.
struct Waiting<S> {
    service: S,
    request: Request,
    since: Instant,
    /// When the request's own wait is over, if it has one.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S: Service<Request, Response = Response, Error = Error>> Waiting<S> {
    fn new(service: S, request: Request) -> Self {
        let since = Instant::now();
        let wait = Some(request.wait()).filter(|wait| !wait.is_zero());
        Self {
            alarm: wait.map(|wait| Box::pin(sleep_until(after(since, wait)))),
            service,
            request,
            since,
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Poll::Ready(ready) = self.service.poll_ready(cx) {
            return Poll::Ready(ready);
        }
        let Some(alarm) = &mut self.alarm else {
            return Poll::Pending;
        };
        alarm
            .as_mut()
            .poll(cx)
            .map(|()| Err(ready_too_late(Budget::Unanswered(self.request.wait()))))
    }
}

pin_project! {
    /// Waits until the service is ready, calls it, and waits for its answer. What the first takes is taken off the time
    /// that the request itself may wait.
    pub(crate) struct ReadyFirstFuture<S: Service<Request>> {
        waiting: Option<Box<Waiting<S>>>,
        #[pin]
        called: Option<S::Future>,
    }
}

impl<S> Future for ReadyFirstFuture<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    type Output = Result<Response>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(called) = this.called.as_mut().as_pin_mut() {
                return called.poll(cx);
            }
            let Some(waiting) = this.waiting else {
                // It was polled after its end.
                return Poll::Pending;
            };
            ready!(waiting.poll_ready(cx))?;
            let Some(mut waiting) = this.waiting.take() else {
                return Poll::Pending;
            };
            waiting.request.spend(waiting.since.elapsed());
            let called = waiting.service.call(waiting.request);
            this.called.set(Some(called));
        }
    }
}
