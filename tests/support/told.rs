//! Records when a future was woken. That is the moment of the event, however late its task runs.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use tokio::time::Instant;

/// A future, and the time of its last wake.
pub struct Told<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    rung: Mutex<Option<Instant>>,
    sleeper: Mutex<Option<Waker>>,
}

impl<F: Future> Told<F> {
    pub fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            bell: Arc::default(),
        }
    }
}

impl<F: Future> Future for Told<F> {
    type Output = (F::Output, Instant);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let told = self.get_mut();
        *told.bell.sleeper.lock().unwrap() = Some(cx.waker().clone());
        let waker = Waker::from(Arc::clone(&told.bell));
        let output = told.future.as_mut().poll(&mut Context::from_waker(&waker));
        output.map(|output| (output, told.bell.rung.lock().unwrap().unwrap_or_else(Instant::now)))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = Some(Instant::now());
        if let Some(sleeper) = self.sleeper.lock().unwrap().take() {
            sleeper.wake();
        }
    }
}
