//! The time limits of an operation.

use std::fmt;
use std::time::Duration;

use crate::human::human;

/// The time limit of an operation that was exceeded: see [`Error::budget`](super::Error::budget).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Budget {
    /// The operation's own wait: the acquire timeout, or the timeout of [`Ticket::wait`](crate::Ticket::wait). A server
    /// reported the key as held.
    Wait(Duration),
    /// The operation's own wait. No server answered during that time, so it is not known whether the key is held.
    Unanswered(Duration),
    /// The total: the operation's own wait, if it has one, plus the [request
    /// timeout](crate::ClientBuilder::request_timeout). No answer came.
    #[non_exhaustive]
    Total {
        /// The operation's own wait.
        wait: Duration,
        /// The time that the client allows in addition.
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
