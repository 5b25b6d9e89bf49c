//! Blocks a thread until a future is ready.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Puts a thread to sleep until it is woken. This does not use `std::thread::park`, because a thread has only one token
/// for it, which may belong to other code on the thread. If this took the token, that code could sleep for ever.
#[derive(Default)]
struct Parker {
    woken: Mutex<bool>,
    told: Condvar,
}

impl Parker {
    fn park(&self) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !std::mem::take(&mut *woken) {
            woken = self.told.wait(woken).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Unlocks before the notification. Otherwise the woken thread would wait for the lock.
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_one();
    }
}

/// A parker and its waker. The thread keeps them for its next wait.
type Kept = (Arc<Parker>, Waker);

thread_local! {
    static KEPT: Cell<Option<Kept>> = const { Cell::new(None) };
}

fn new() -> Kept {
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(Arc::clone(&parker));
    (parker, waker)
}

/// Polls the future until it is ready. The thread sleeps between the polls.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    // Takes the parker. A nested wait thus gets another parker and cannot consume the wake-up of this one.
    let (parker, waker) = KEPT.try_with(Cell::take).ok().flatten().unwrap_or_else(new);
    let mut context = Context::from_waker(&waker);
    let output = loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            break output;
        }
        parker.park();
    };
    // A late wake-up only costs the next wait an extra poll.
    let _ = KEPT.try_with(|kept| kept.set(Some((parker, waker))));
    output
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_wait_ends_when_it_is_woken_from_another_thread_and_leaves_the_threads_own_token() {
        std::thread::current().unpark();
        for _ in 0..100 {
            let (told, answer) = oneshot::channel();
            let teller = std::thread::spawn(move || told.send(7));
            assert_eq!(block_on(answer), Ok(7));
            teller.join().unwrap().unwrap();
        }
        // This returns at once, because the wait did not take the thread's token.
        let began = std::time::Instant::now();
        std::thread::park_timeout(Duration::from_secs(30));
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_nested_wait_does_not_consume_the_wake_up_of_the_outer_wait() {
        let (tell_outer, outer) = oneshot::channel();
        let (tell_inner, inner) = oneshot::channel();
        let mut inner = Some(inner);
        let teller = std::thread::spawn(move || {
            tell_outer.send(1).unwrap();
            tell_inner.send(2).unwrap();
        });
        let both = async move {
            let mut outer = pin!(outer);
            let mut sum = 0;
            std::future::poll_fn(|cx| {
                let outer = outer.as_mut().poll(cx);
                if let Some(inner) = inner.take() {
                    sum += block_on(inner).unwrap();
                }
                outer.map(|first| first.unwrap() + sum)
            })
            .await
        };
        assert_eq!(block_on(both), 3);
        teller.join().unwrap();
    }
}
