//! Delivers the outcome of a release to the task that waits for it. The outcome goes through the lease's cell, and the
//! waker that came with the release wakes the task. So a release needs no channel.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

#[cfg(any(test, fuzzing))]
use tokio::sync::oneshot::error::TryRecvError;

use super::cell::{LeaseCell, ReleaseOutcome};
use crate::error::Result;

/// Delivers a release's outcome to the task that waits for it. Dropping this value without an outcome tells that task
/// that no outcome will come.
///
/// It keeps the waker, and so the memory of the releasing task, until the release has ended, even if that task no
/// longer waits. The release has ended at the latest when the TTL of the lease is over.
pub(crate) struct ReleaseReply {
    cell: Arc<LeaseCell>,
    waker: Option<Waker>,
}

impl ReleaseReply {
    /// Creates the value for a lease's only release. `waker` belongs to the task that is about to wait for the outcome,
    /// if it is known.
    pub(crate) fn new(cell: &Arc<LeaseCell>, waker: Option<Waker>) -> Self {
        let cell = Arc::clone(cell);
        Self { cell, waker }
    }

    pub(crate) fn tell(self, outcome: Result<()>) {
        self.cell.end_release(Some(outcome));
    }
}

impl Drop for ReleaseReply {
    fn drop(&mut self) {
        self.cell.end_release(None);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The future outcome of a release; `None` if the shard is gone.
pub(crate) enum ReleaseAnswer {
    /// The task whose waker was sent with the release waits for it.
    Direct { cell: Arc<LeaseCell>, waker: Option<Waker> },
    /// Another task waits for it.
    Watched(Pin<Box<dyn Future<Output = ReleaseOutcome> + Send>>),
}

impl ReleaseAnswer {
    /// Creates the future. The outcome wakes `waker`.
    pub(crate) fn new(cell: &Arc<LeaseCell>, waker: Option<Waker>) -> Self {
        let cell = Arc::clone(cell);
        Self::Direct { cell, waker }
    }

    /// Returns the outcome if it has arrived, as a channel's receiver does.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn try_recv(&mut self) -> std::result::Result<Result<()>, TryRecvError> {
        match Pin::new(self).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(outcome)) => Ok(outcome),
            Poll::Ready(None) => Err(TryRecvError::Closed),
            Poll::Pending => Err(TryRecvError::Empty),
        }
    }
}

impl Future for ReleaseAnswer {
    type Output = ReleaseOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ReleaseOutcome> {
        loop {
            match &mut *self {
                Self::Direct { cell, waker } => {
                    if let Some(outcome) = cell.release_outcome() {
                        return Poll::Ready(outcome);
                    }
                    if waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                        return Poll::Pending;
                    }
                    let cell = Arc::clone(cell);
                    *self = Self::Watched(Box::pin(async move { cell.release_ended().await }));
                }
                Self::Watched(ended) => return ended.as_mut().poll(cx),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;
    use crate::clock::Moment;
    use crate::error::{Error, ErrorKind};
    use crate::lease::cell::CellTimes;
    use crate::lease::state::LeaseState;
    use crate::types::{Grant, Key, Kind, Token, Ttl};

    /// A task that counts how often it is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Task {
        fn poll(self: &Arc<Self>, answer: &mut ReleaseAnswer) -> Poll<ReleaseOutcome> {
            Pin::new(answer).poll(&mut Context::from_waker(&self.waker()))
        }

        fn waker(self: &Arc<Self>) -> Waker {
            Arc::clone(self).into()
        }

        fn wakes(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn cell() -> Arc<LeaseCell> {
        let got = Moment::now();
        let times = CellTimes {
            got,
            deadline: got.at + Duration::from_secs(10),
            lost_when_suspended: got.suspended + Duration::from_secs(8),
        };
        let grant = Grant::new(Token::NEVER_ISSUED, Ttl::from_secs(10).unwrap());
        Arc::new(LeaseCell::new(Key::new("k").unwrap(), Kind::Lock, grant, times))
    }

    fn kind(outcome: Poll<ReleaseOutcome>) -> Option<std::result::Result<(), ErrorKind>> {
        match outcome {
            Poll::Ready(outcome) => outcome.map(|answer| answer.map_err(|error| error.kind())),
            Poll::Pending => panic!("the release has no outcome yet"),
        }
    }

    /// Outcomes that are sent, and their form on the receiving side.
    fn outcomes() -> [(ReleaseOutcome, Option<std::result::Result<(), ErrorKind>>); 3] {
        let refusal = Error::new(ErrorKind::NotHeld, "not held");
        [
            (Some(Ok(())), Some(Ok(()))),
            (Some(Err(refusal)), Some(Err(ErrorKind::NotHeld))),
            (None, None),
        ]
    }

    fn tell(reply: ReleaseReply, outcome: ReleaseOutcome) {
        match outcome {
            Some(outcome) => reply.tell(outcome),
            None => drop(reply),
        }
    }

    #[test]
    fn the_task_that_released_is_woken_once_and_hears_the_outcome() {
        for (outcome, heard) in outcomes() {
            let (cell, task) = (cell(), Arc::<Task>::default());
            let reply = ReleaseReply::new(&cell, Some(task.waker()));
            let mut answer = ReleaseAnswer::new(&cell, Some(task.waker()));
            assert!(task.poll(&mut answer).is_pending() && task.poll(&mut answer).is_pending());
            assert_eq!(task.wakes(), 0);
            tell(reply, outcome);
            assert_eq!(task.wakes(), 1);
            assert_eq!(kind(task.poll(&mut answer)), heard);
        }
    }

    #[test]
    fn another_task_that_waits_is_woken_and_hears_the_outcome() {
        for knows_waker in [true, false] {
            for (outcome, heard) in outcomes() {
                let (cell, first, other) = (cell(), Arc::<Task>::default(), Arc::<Task>::default());
                let waker = knows_waker.then(|| first.waker());
                let reply = ReleaseReply::new(&cell, waker.clone());
                let mut answer = ReleaseAnswer::new(&cell, waker);
                assert!(first.poll(&mut answer).is_pending() && other.poll(&mut answer).is_pending());
                tell(reply, outcome);
                assert_eq!(other.wakes(), 1);
                assert_eq!(kind(other.poll(&mut answer)), heard);
            }
        }
    }

    #[test]
    fn an_outcome_that_came_before_the_wait_is_heard() {
        for (outcome, heard) in outcomes() {
            let (cell, task) = (cell(), Arc::<Task>::default());
            let mut answer = ReleaseAnswer::new(&cell, None);
            tell(ReleaseReply::new(&cell, None), outcome);
            assert_eq!(kind(task.poll(&mut answer)), heard);
        }
    }

    #[test]
    fn the_outcome_of_a_release_does_not_change_the_state_of_the_lease() {
        let cell = cell();
        cell.release();
        drop(ReleaseReply::new(&cell, None));
        assert_eq!(cell.state(), LeaseState::Released);
    }
}
