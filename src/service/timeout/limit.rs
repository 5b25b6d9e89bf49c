//! The time limit of a request, and the error when it has passed.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::after;
use crate::error::{Budget, Error, ErrorKind};
use crate::protocol::Channel;
use crate::service::request::{Operation, Request};
use crate::shard::progress::{Progress, WaitsFor};
use crate::types::Key;

/// A description of a request, which remains after the request was passed on.
#[derive(Clone, Debug)]
pub struct RequestSummary {
    pub(crate) operation: Operation,
    pub(crate) about: Scope,
    pub(crate) wait: Duration,
    progress: Option<Progress>,
}

impl RequestSummary {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            operation: request.operation(),
            about: match (request, request.shard()) {
                (_, Some(shard)) => Scope::Shard(shard),
                (Request::Emit { channel, .. }, None) => Scope::Channel(channel.clone()),
                (Request::Acquire(acquire), None) => Scope::Key(acquire.routed_by().clone()),
                (_, None) => request.key().cloned().map_or(Scope::All, Scope::Key),
            },
            wait: request.wait(),
            progress: match request {
                Request::Acquire(acquire) | Request::Enqueue(acquire) => acquire.progress.clone(),
                _ => None,
            },
        }
    }
}

/// The subject of a request.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    Key(Key),
    Channel(Channel),
    Shard(usize),
    /// All shards.
    All,
}

/// Writes the subject for messages.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "{:?}", key.as_str()),
            Self::Channel(channel) => write!(f, "{:?}", channel.as_str()),
            Self::Shard(shard) => write!(f, "shard {shard}"),
            Self::All => f.write_str("all shards"),
        }
    }
}

/// Returns the error of a request that was sent and that a server did not answer.
pub(crate) fn unanswered(operation: Operation, about: &Scope, budget: Budget) -> Error {
    let message = match operation {
        Operation::Acquire | Operation::TryAcquire => {
            format!("the server did not answer the acquire of {about} within {budget}")
        }
        Operation::Enqueue => format!("the server did not answer the enqueue of {about} within {budget}"),
        Operation::Collect => format!("the server did not answer the wait for the turn of {about} within {budget}"),
        Operation::Release => {
            format!("the server did not answer the release of {about} within {budget}; the release is still under way")
        }
        Operation::Failback => format!("the first server of the shard was not in use within {budget}"),
        Operation::Emit => format!("the server did not answer the signal to {about} within {budget}"),
        Operation::Subscribe => format!("not all servers answered the subscription within {budget}"),
        // Requests to a single server.
        _ => format!("the server did not answer within {budget}"),
    };
    Error::new(ErrorKind::Unavailable, message).out_of(budget)
}

/// Explains why a request may have got no answer.
pub trait Explain {
    /// Returns an error that says why there was no answer, or `None` if the reason is not known.
    fn explain(&self, subject: &RequestSummary, budget: Budget) -> Option<Error>;

    /// Returns whether no layer between this layer and the servers could delay a request.
    fn is_direct(&self) -> bool {
        false
    }
}

/// Explains nothing.
impl Explain for () {
    fn explain(&self, _: &RequestSummary, _: Budget) -> Option<Error> {
        None
    }
}

/// The time limit of a request.
pub(super) struct TimeLimit<X> {
    subject: RequestSummary,
    request_timeout: Duration,
    called_at: Instant,
    explain: X,
}

impl<X: Explain> TimeLimit<X> {
    pub(super) fn new(subject: RequestSummary, request_timeout: Duration, explain: X) -> Self {
        Self {
            subject,
            request_timeout,
            called_at: Instant::now(),
            explain,
        }
    }

    /// Returns the deadline.
    pub(super) fn until(&self) -> Instant {
        after(self.called_at, self.subject.wait.saturating_add(self.request_timeout))
    }

    /// Returns the error of a request whose deadline has passed.
    pub(super) fn error(&self) -> Error {
        let budget = Budget::Total {
            wait: self.subject.wait,
            request_timeout: self.request_timeout,
        };
        let known = self.explain.explain(&self.subject, budget);
        known.unwrap_or_else(|| self.no_answer(budget)).out_of(budget)
    }

    /// Returns the error of a request without an answer, according to what it was waiting for.
    fn no_answer(&self, budget: Budget) -> Error {
        let RequestSummary { operation, about, .. } = &self.subject;
        match self.subject.progress.as_ref().map(Progress::get) {
            Some(WaitsFor::Answer) => unanswered(*operation, about, budget),
            Some(why @ (WaitsFor::Connection { .. } | WaitsFor::Opening | WaitsFor::Full)) => {
                let kind = match why {
                    WaitsFor::Opening | WaitsFor::Full => ErrorKind::Unavailable,
                    _ => ErrorKind::Timeout,
                };
                Error::new(
                    kind,
                    format!("{about} got no place in its queue within {budget}: {why}"),
                )
            }
            _ if self.explain.is_direct() => unanswered(*operation, about, budget),
            _ => Error::new(ErrorKind::Timeout, self.message(budget)),
        }
    }

    fn message(&self, budget: Budget) -> String {
        let about = &self.subject.about;
        match self.subject.operation {
            Operation::Acquire | Operation::TryAcquire => {
                format!("the acquire of {about} was not answered within {budget}")
            }
            Operation::Enqueue => format!("{about} got no place in its queue within {budget}"),
            Operation::Collect => format!("the wait for the turn of {about} was not answered within {budget}"),
            Operation::Release => {
                format!("the release of {about} was not answered within {budget}; the release is still under way")
            }
            Operation::Failback => format!("the first server of the shard was not in use within {budget}"),
            Operation::Emit => format!("the signal to {about} was not answered within {budget}"),
            Operation::Subscribe => format!("the subscription was not answered by all servers within {budget}"),
            // Requests to a single server.
            _ => format!("the server did not answer within {budget}"),
        }
    }
}
