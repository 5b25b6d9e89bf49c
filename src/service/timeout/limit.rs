//! How long a request may take, and what to say when that is over.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::after;
use crate::error::{Budget, Error, ErrorKind};
use crate::service::request::{Operation, Request};
use crate::types::Key;

/// What a request was about, for when it is gone.
#[derive(Clone, Debug)]
pub struct Subject {
    pub(crate) operation: Operation,
    pub(crate) key: Option<Key>,
    /// Where the request names it.
    pub(crate) shard: Option<usize>,
    pub(crate) wait: Duration,
}

impl Subject {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            operation: request.operation(),
            key: request.key().cloned(),
            shard: match request {
                Request::Stats { shard } => Some(*shard),
                _ => None,
            },
            wait: request.wait(),
        }
    }
}

/// Knows why nobody may have answered.
pub trait Explain {
    /// More than that the time is over, where more is known.
    fn explain(&self, subject: &Subject, budget: Budget) -> Option<Error>;
}

/// Nothing is known.
impl Explain for () {
    fn explain(&self, _: &Subject, _: Budget) -> Option<Error> {
        None
    }
}

/// How long a request may take.
pub(super) struct Limit<X> {
    subject: Subject,
    request_timeout: Duration,
    called_at: Instant,
    explain: X,
}

impl<X: Explain> Limit<X> {
    pub(super) fn new(subject: Subject, request_timeout: Duration, explain: X) -> Self {
        Self {
            subject,
            request_timeout,
            called_at: Instant::now(),
            explain,
        }
    }

    /// When it is over.
    pub(super) fn until(&self) -> Instant {
        after(self.called_at, self.subject.wait.saturating_add(self.request_timeout))
    }

    /// It is over.
    pub(super) fn error(&self) -> Error {
        let budget = Budget::Total {
            wait: self.subject.wait,
            request_timeout: self.request_timeout,
        };
        self.explain
            .explain(&self.subject, budget)
            .unwrap_or_else(|| Error::new(ErrorKind::Timeout, self.message(budget)))
            .out_of(budget)
    }

    fn message(&self, budget: Budget) -> String {
        let key = self.subject.key.as_ref().map(Key::as_str).unwrap_or_default();
        match self.subject.operation {
            Operation::Acquire | Operation::TryAcquire => {
                format!("the acquire of {key:?} was not answered within {budget}")
            }
            Operation::Enqueue => format!(
                "{key:?} got no place in its queue within {budget}: the connections for waits (exclusive_connections, and \
                 exclusive_connections_per_key) are all in use, or the server does not answer"
            ),
            Operation::Collect => format!("the wait for the turn of {key:?} was not answered within {budget}"),
            Operation::Release => {
                format!("the release of {key:?} was not answered within {budget}; it is still on its way")
            }
            Operation::Stats => format!("the server did not answer within {budget}"),
        }
    }
}
