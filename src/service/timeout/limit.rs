//! How long a request may take, and what to say when that is over.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::after;
use crate::error::{Budget, Error, ErrorKind};
use crate::protocol::Channel;
use crate::service::request::{Operation, Request};
use crate::types::Key;

/// What a request was about, for when it is gone.
#[derive(Clone, Debug)]
pub struct Subject {
    pub(crate) operation: Operation,
    pub(crate) about: About,
    pub(crate) wait: Duration,
}

impl Subject {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            operation: request.operation(),
            about: match request {
                Request::Stats { shard } | Request::Barrier { shard } | Request::Failback { shard } => {
                    About::Shard(*shard)
                }
                Request::Emit { channel, .. } => About::Channel(channel.clone()),
                _ => request.key().cloned().map_or(About::All, About::Key),
            },
            wait: request.wait(),
        }
    }
}

/// What a request was about.
#[derive(Clone, Debug)]
pub(crate) enum About {
    Key(Key),
    Channel(Channel),
    Shard(usize),
    /// All shards.
    All,
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
        let key = match &self.subject.about {
            About::Key(key) => key.as_str(),
            About::Channel(channel) => channel.as_str(),
            About::Shard(_) | About::All => "",
        };
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
            Operation::Stats | Operation::Barrier => format!("the server did not answer within {budget}"),
            Operation::Failback => format!("the first server was not there within {budget}"),
            Operation::Emit => format!("the signal to {key:?} was not answered within {budget}"),
            Operation::Subscribe => format!("the subscription was not answered by all servers within {budget}"),
        }
    }
}
