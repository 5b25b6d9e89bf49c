//! Requests that wait for a connection. From time to time, requests of callers that are gone are removed, so that they
//! do not accumulate.

use std::collections::VecDeque;

use super::request::Pending;
use crate::net::lane::Caller;

/// The minimum number of requests at which requests of gone callers are removed.
const CLEAN_AT_LEAST: usize = 64;

/// The waiting requests.
pub(super) struct Parked {
    /// Requests for a pipelined connection, oldest first.
    requests: VecDeque<Pending>,
    /// The length at which requests of gone callers are next removed.
    clean_at: usize,
    /// Requests for the disposable connection, oldest first.
    disposable: Vec<Pending>,
}

impl Parked {
    pub(super) fn new() -> Self {
        Self {
            requests: VecDeque::new(),
            clean_at: CLEAN_AT_LEAST,
            disposable: Vec::new(),
        }
    }

    /// Keeps a request until a pipelined connection is up.
    pub(super) fn keep(&mut self, pending: Pending) {
        self.requests.push_back(pending);
        if self.requests.len() >= self.clean_at {
            self.requests.retain(|pending| !pending.is_gone());
            self.clean_at = (self.requests.len() * 2).max(CLEAN_AT_LEAST);
        }
    }

    /// Keeps a request until the disposable connection is up. One [`Pending::Look`] is enough, so further ones are
    /// dropped.
    pub(super) fn keep_disposable(&mut self, pending: Pending) {
        let is_look = |pending: &Pending| matches!(pending, Pending::Look);
        if !is_look(&pending) || !self.disposable.iter().any(is_look) {
            self.disposable.push(pending);
        }
    }

    /// Removes and returns the requests for a pipelined connection whose callers still wait.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Pending> + use<> {
        let requests = std::mem::take(&mut self.requests).into_iter();
        requests.filter(|pending| !pending.is_gone())
    }

    /// Removes and returns the requests for the disposable connection whose callers still wait.
    pub(super) fn take_disposable(&mut self) -> impl Iterator<Item = Pending> + use<> {
        let requests = std::mem::take(&mut self.disposable).into_iter();
        requests.filter(|pending| !pending.is_gone())
    }

    /// Returns the number of requests that wait for a pipelined connection.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether requests wait for the disposable connection.
    pub(super) fn wants_disposable(&self) -> bool {
        !self.disposable.is_empty()
    }

    /// Returns the number of all waiting requests.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.requests.len() + self.disposable.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Semaphore, oneshot};

    use super::*;
    use crate::error::Result;
    use crate::protocol::{Call, Response};
    use crate::shard::ask::Ask;
    use crate::shard::question::{Answered, Question};

    fn question() -> (Pending, oneshot::Receiver<Result<Answered<()>>>) {
        let (reply, answer) = oneshot::channel();
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let ask = Ask { reply, _room: room };
        (Pending::Ask(Question::of_any(Call::ping(), ask)), answer)
    }

    #[test]
    fn requests_of_gone_callers_are_removed_and_the_others_keep_their_order() {
        let mut parked = Parked::new();
        let mut callers = Vec::new();
        for index in 0..10 * CLEAN_AT_LEAST {
            let (pending, answer) = question();
            if index % 100 == 0 {
                callers.push(answer);
            }
            parked.keep(pending);
            assert!(parked.len() <= CLEAN_AT_LEAST, "{index}");
        }
        for pending in parked.take() {
            let Pending::Ask(question) = pending else {
                panic!("another kind")
            };
            question.tell(Ok(Response::Done), &"a:1".into());
            assert!(callers.remove(0).try_recv().is_ok());
        }
        assert!(callers.is_empty() && parked.count() == 0);
    }

    #[test]
    fn one_leader_check_at_most_waits_for_the_disposable_connection() {
        let mut parked = Parked::new();
        let (question, _told) = question();
        parked.keep_disposable(Pending::Look);
        parked.keep_disposable(question);
        for _ in 0..100 {
            parked.keep_disposable(Pending::Look);
        }
        assert_eq!(parked.take_disposable().count(), 2);
        parked.keep_disposable(Pending::Look);
        assert!(parked.wants_disposable());
    }

    #[test]
    fn requests_for_the_disposable_connection_wait_separately() {
        let mut parked = Parked::new();
        let ((first, _told), (second, gone)) = (question(), question());
        parked.keep_disposable(first);
        parked.keep_disposable(second);
        drop(gone);
        assert!(parked.wants_disposable() && parked.len() == 0);
        assert_eq!(parked.take_disposable().count(), 1);
        assert!(!parked.wants_disposable());
    }
}
