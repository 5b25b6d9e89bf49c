//! What a mock service is asked, and what it is told to answer.

use std::time::Duration;

use crate::error::ErrorKind;
use crate::protocol::Status;
use crate::service::{Operation, Request};
use crate::stats::Stats;
use crate::types::Key;

/// What a [`MockService`](super::MockService) answers one request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MockAnswer {
    /// The lock or slot is granted. Answers an acquire, an enqueue, or the wait at a place.
    Grant,
    /// It is held. Answers an acquire, or the wait at a place: an acquire that waits, and the wait at a place, fail with
    /// [`ErrorKind::Timeout`], at once. An enqueue of what is held is answered with [`Queue`](Self::Queue).
    Busy,
    /// It is held, and this is a place in its queue. Answers an enqueue.
    Queue,
    /// The server refuses with a status. The error is that of a client whose server does.
    Refuse(Status),
    /// The request fails with an error of this kind.
    Fail(ErrorKind),
    /// No answer ever comes. A client that stands on the service fails when its time is over, with [`ErrorKind::Unavailable`]: there is no
    /// server that could have said that the key is held.
    Never,
    /// The state of a server. Answers [`Request::Stats`].
    Stats(Stats),
    /// A signal was delivered so many times. Answers [`Request::Emit`].
    Delivered(u64),
}

impl MockAnswer {
    /// What is answered where nothing else was asked for. `None`: such a request cannot be answered.
    pub(super) fn default_for(operation: Operation) -> Option<Self> {
        match operation {
            Operation::Acquire | Operation::TryAcquire | Operation::Enqueue | Operation::Collect => Some(Self::Grant),
            Operation::Stats => Some(Self::Stats(Stats::default())),
            Operation::Emit => Some(Self::Delivered(0)),
            Operation::Release | Operation::Barrier | Operation::Failback | Operation::Subscribe => None,
        }
    }
}

/// What a [`MockService`](super::MockService) was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MockRequest {
    /// What kind of request it was.
    pub operation: Operation,
    /// The key that it was about, if it was about one.
    pub key: Option<Key>,
    /// How long it might wait for other holders.
    pub wait: Duration,
}

impl From<&Request> for MockRequest {
    fn from(request: &Request) -> Self {
        Self {
            operation: request.operation(),
            key: request.key().cloned(),
            wait: request.wait(),
        }
    }
}
