//! How long a request may take, and what to say when that is over.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Budget, Error, ErrorKind};
use crate::service::request::{Operation, Request};
use crate::types::Key;

/// What a request was about, for when it is gone.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
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

/// Says why nobody may have answered, where more is known than that the time is over.
pub(crate) type Explain = Arc<dyn Fn(&Subject, Budget) -> Option<Error> + Send + Sync>;

/// How long a request may take.
pub(super) struct Limit {
    subject: Subject,
    request_timeout: Duration,
    explain: Option<Explain>,
}

impl Limit {
    pub(super) fn new(subject: Subject, request_timeout: Duration, explain: Option<Explain>) -> Self {
        Self {
            subject,
            request_timeout,
            explain,
        }
    }

    pub(super) fn duration(&self) -> Duration {
        self.subject.wait.saturating_add(self.request_timeout)
    }

    /// It is over.
    pub(super) fn error(&self) -> Error {
        let budget = Budget::Total {
            wait: self.subject.wait,
            request_timeout: self.request_timeout,
        };
        let explained = self.explain.as_ref().and_then(|explain| explain(&self.subject, budget));
        explained
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
