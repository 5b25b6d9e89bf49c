//! The requests and answers of a mock service.

use std::time::Duration;

use crate::error::ErrorKind;
use crate::protocol::Status;
use crate::service::{Operation, Request};
use crate::stats::Stats;
use crate::types::Key;

/// An answer of a [`MockService`](super::MockService) to one request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MockAnswer {
    /// The lock or slot is granted. Answers an acquire, an enqueue, or the wait of a ticket.
    Grant,
    /// The key is held. Answers an acquire, or the wait of a ticket: both fail at once with [`ErrorKind::Timeout`],
    /// without a wait. An acquire with a wait of zero gets [`Response::Busy`](crate::Response::Busy) instead. For an
    /// enqueue of a held key, use [`Queue`](Self::Queue).
    Busy,
    /// The key is held, and the answer is a queue position. Answers an enqueue.
    Queue,
    /// The server rejects the request with a status. The error is the same as with a real server.
    Refuse(Status),
    /// The request fails with an error of this kind.
    Fail(ErrorKind),
    /// No answer ever comes. A client on this service fails with [`ErrorKind::Unavailable`] after its timeout, because
    /// no server has reported the key as held.
    Never,
    /// The statistics of a server. Answers [`Request::Stats`].
    Stats(Stats),
    /// A signal was delivered this many times. Answers [`Request::Emit`].
    Delivered(u64),
}

impl MockAnswer {
    /// Returns the default answer to a kind of request, or `None` if none of these answers is the default for it.
    pub(super) fn default_for(operation: Operation) -> Option<Self> {
        match operation {
            Operation::Acquire | Operation::TryAcquire | Operation::Enqueue | Operation::Collect => Some(Self::Grant),
            Operation::Stats => Some(Self::Stats(Stats::default())),
            Operation::Emit => Some(Self::Delivered(0)),
            Operation::Release | Operation::Barrier | Operation::Failback | Operation::Subscribe => None,
        }
    }
}

/// A request that a [`MockService`](super::MockService) received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MockRequest {
    /// The kind of request.
    pub operation: Operation,
    /// The key, if the request has one.
    pub key: Option<Key>,
    /// How long it may wait for other holders.
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
