//! Makes the wait for readiness a part of the call. The handles use this, so that the request's timeout and metrics
//! include the wait for room.

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

/// A service that is always ready. Its call waits until the inner service is ready.
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

    #[inline(always)]
    fn call(&mut self, request: Request) -> Self::Future {
        let mut service = self.0.clone();
        // Usually the service is ready. If not, the future polls it again with the waker of its task.
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
    /// Fires when the request's own wait is over. `None` if it has no wait.
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

    /// Returns ready when the request can be sent, and subtracts the time that has passed from its wait. If the wait is
    /// over, this returns an error, even if there is room now: a process that was stopped meanwhile can find both at
    /// once. If the request were sent with no wait left, it would be a try, and no timer would end it.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let (waited, wait) = (self.since.elapsed(), self.request.wait());
        let Some(alarm) = &mut self.alarm else {
            return self.service.poll_ready(cx);
        };
        if waited >= wait || alarm.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(ready_too_late(Budget::Unanswered(wait))));
        }
        ready!(self.service.poll_ready(cx))?;
        self.request.spend(waited);
        Poll::Ready(Ok(()))
    }
}

pin_project! {
    /// Waits until the service is ready, calls it, and waits for its answer. The time until it is ready is subtracted
    /// from the request's own wait.
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
                // The future was polled after its end.
                return Poll::Pending;
            };
            ready!(waiting.poll_ready(cx))?;
            let Some(mut waiting) = this.waiting.take() else {
                return Poll::Pending;
            };
            let called = waiting.service.call(waiting.request);
            this.called.set(Some(called));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Pending, pending, poll_fn};
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;
    use crate::service::request::AcquireRequest;
    use crate::types::{Key, Target};

    const WAIT: Duration = Duration::from_secs(1);

    /// A service that becomes ready when a test says so, and never answers.
    #[derive(Clone, Default)]
    struct Late {
        is_ready: Arc<AtomicBool>,
        was_called: Arc<AtomicBool>,
    }

    impl Service<Request> for Late {
        type Response = Response;
        type Error = Error;
        type Future = Pending<Result<Response>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
            match self.is_ready.load(Ordering::Relaxed) {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            }
        }

        fn call(&mut self, request: Request) -> Self::Future {
            assert!(
                !request.wait().is_zero(),
                "a request with no time left would become a try, which no timer ends"
            );
            self.was_called.store(true, Ordering::Relaxed);
            pending()
        }
    }

    fn request() -> Request {
        Request::Acquire(AcquireRequest::new(Target::Lock, Key::new("k").unwrap()).acquire_timeout(WAIT))
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_comes_when_the_wait_is_over_comes_too_late() {
        for late in [Duration::ZERO, Duration::from_secs(5)] {
            let service = Late::default();
            let mut waiting = pin!(ReadyFirst(service.clone()).call(request()));
            assert!(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await);
            // The process was stopped. When it continues, there is room and the wait is over at the same time.
            service.is_ready.store(true, Ordering::Relaxed);
            tokio::time::advance(WAIT + late).await;
            let answer = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
            let Poll::Ready(Err(error)) = answer else {
                panic!("the request did not fail");
            };
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(!service.was_called.load(Ordering::Relaxed));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_comes_in_time_is_used() {
        let service = Late::default();
        let mut waiting = pin!(ReadyFirst(service.clone()).call(request()));
        assert!(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await);
        service.is_ready.store(true, Ordering::Relaxed);
        tokio::time::advance(WAIT - Duration::from_millis(1)).await;
        assert!(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await);
        assert!(service.was_called.load(Ordering::Relaxed));
    }
}
