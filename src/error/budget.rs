//! Which time ran out.

use std::fmt;
use std::time::Duration;

use crate::human::human;

/// Which of the times that a caller allowed for an operation ran out: see [`Error::budget`](super::Error::budget).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Budget {
    /// The operation's own wait: the acquire timeout, or what a ticket was waited for. A server had said that the key is held.
    Wait(Duration),
    /// The operation's own wait, in which no server said anything about the key: whether it is held is not known.
    Unanswered(Duration),
    /// All of it: the operation's own wait, if it has one, plus the
    /// [request timeout](crate::ClientBuilder::request_timeout). No answer came.
    #[non_exhaustive]
    Total {
        /// The operation's own wait.
        wait: Duration,
        /// What was allowed on top of it.
        request_timeout: Duration,
    },
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(wait) | Self::Unanswered(wait) => write!(f, "{}", human(*wait)),
            Self::Total { wait, request_timeout } if wait.is_zero() => {
                write!(f, "the request timeout of {}", human(*request_timeout))
            }
            Self::Total { wait, request_timeout } => {
                write!(
                    f,
                    "its wait of {} plus the request timeout of {}",
                    human(*wait),
                    human(*request_timeout)
                )
            }
        }
    }
}
