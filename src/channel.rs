//! Closing a channel.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::unconstrained;

/// The maximum number of polls that find a message that is still being sent: sending takes two steps, and the sender's
/// thread may be stopped between them.
const MAX_PENDING_POLLS: usize = 100_000;

/// Closes a channel and returns its messages. These include messages that are being sent at this moment: their `send`
/// returns success.
///
/// If the receiver were only dropped, such a message could stay in the channel for as long as there are senders, and
/// its caller would get no answer.
pub(crate) fn close<T>(receiver: &mut UnboundedReceiver<T>) -> Vec<T> {
    receiver.close();
    let mut left = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    let mut pending_polls = 0;
    while pending_polls < MAX_PENDING_POLLS {
        // Polls regardless of tokio's cooperative budget.
        match pin!(unconstrained(poll_fn(|cx| receiver.poll_recv(cx)))).poll(&mut cx) {
            Poll::Ready(Some(message)) => left.push(message),
            Poll::Ready(None) => break,
            Poll::Pending => {
                pending_polls += 1;
                std::thread::yield_now();
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn messages_sent_before_or_during_the_close_are_returned() {
        for _ in 0..2_000 {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let start = Arc::new(Barrier::new(3));
            let senders: Vec<_> = (0..2)
                .map(|_| {
                    let (sender, start) = (sender.clone(), Arc::clone(&start));
                    std::thread::spawn(move || {
                        start.wait();
                        (0..1_000).take_while(|number| sender.send(*number).is_ok()).count()
                    })
                })
                .collect();
            start.wait();
            let taken = close(&mut receiver).len();
            let sent: usize = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
            assert_eq!(taken, sent);
        }
    }

    #[tokio::test]
    async fn a_task_without_budget_gets_all_messages() {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let messages = 2 * MAX_PENDING_POLLS;
        for number in 0..messages {
            sender.send(number).unwrap();
        }
        assert_eq!(close(&mut receiver).len(), messages);
        assert!(sender.send(0).is_err());
    }
}
