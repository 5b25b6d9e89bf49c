//! Several futures at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// A future, or its output.
enum Slot<F: Future> {
    Running(Pin<Box<F>>),
    Done(F::Output),
}

/// Polls all futures concurrently and returns their outputs, in order.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut slots: Vec<_> = futures
        .into_iter()
        .map(|future| Slot::Running(Box::pin(future)))
        .collect();
    poll_fn(|cx| {
        let mut waiting = false;
        for slot in &mut slots {
            if let Slot::Running(future) = slot {
                match future.as_mut().poll(cx) {
                    Poll::Ready(output) => *slot = Slot::Done(output),
                    Poll::Pending => waiting = true,
                }
            }
        }
        if waiting { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    let outputs = slots.into_iter().filter_map(|slot| match slot {
        Slot::Done(output) => Some(output),
        Slot::Running(_) => None,
    });
    outputs.collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn all_run_at_once_and_answer_in_order() {
        let (first, second) = (oneshot::channel(), oneshot::channel());
        // Each future waits until the other one has started.
        let ahead = async {
            second.0.send(1).unwrap();
            first.1.await.unwrap()
        };
        let behind = async {
            first.0.send(2).unwrap();
            second.1.await.unwrap()
        };
        let both: Vec<Pin<Box<dyn Future<Output = i32>>>> = vec![Box::pin(ahead), Box::pin(behind)];
        assert_eq!(join_all(both).await, [2, 1]);
    }
}
