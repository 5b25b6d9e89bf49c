//! Records when a future was woken. The task may run much later than that.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use tokio::time::Instant;

/// A future. Its output comes with the time of its last wake.
pub struct WithWakeTime<F> {
    future: Pin<Box<F>>,
    wake_time: Arc<WakeTime>,
}

#[derive(Default)]
struct WakeTime {
    woken_at: Mutex<Option<Instant>>,
    waker: Mutex<Option<Waker>>,
}

impl<F: Future> WithWakeTime<F> {
    pub fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            wake_time: Arc::default(),
        }
    }
}

impl<F: Future> Future for WithWakeTime<F> {
    type Output = (F::Output, Instant);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        *this.wake_time.waker.lock().unwrap() = Some(cx.waker().clone());
        let waker = Waker::from(Arc::clone(&this.wake_time));
        let output = this.future.as_mut().poll(&mut Context::from_waker(&waker));
        output.map(|output| {
            (
                output,
                this.wake_time.woken_at.lock().unwrap().unwrap_or_else(Instant::now),
            )
        })
    }
}

impl Wake for WakeTime {
    fn wake(self: Arc<Self>) {
        *self.woken_at.lock().unwrap() = Some(Instant::now());
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }
}
