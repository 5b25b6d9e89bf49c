//! The outcomes of requests, with their names in metrics and spans.

use super::request::Response;
use crate::error::{ErrorKind, Result};

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Granted,
    Busy,
    Queued,
    Released,
    Answered,
    Delivered,
    Subscribed,
    /// The caller dropped the future.
    Dropped,
    Failed(ErrorKind),
}

/// The number of outcomes that are not failures.
const NOT_FAILED: usize = 8;

impl Outcome {
    pub(crate) const COUNT: usize = NOT_FAILED + ErrorKind::ALL.len();

    pub(crate) fn of(result: &Result<Response>) -> Self {
        match result {
            Ok(Response::Granted(_)) => Self::Granted,
            Ok(Response::Busy) => Self::Busy,
            Ok(Response::Queued(_)) => Self::Queued,
            Ok(Response::Released) => Self::Released,
            Ok(Response::Stats(_) | Response::Visible | Response::FailingBack(_)) => Self::Answered,
            Ok(Response::Delivered(_)) => Self::Delivered,
            Ok(Response::Subscribed(_)) => Self::Subscribed,
            Err(error) => Self::Failed(error.kind()),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Busy => "busy",
            Self::Queued => "queued",
            Self::Released => "released",
            Self::Answered => "answered",
            Self::Delivered => "delivered",
            Self::Subscribed => "subscribed",
            Self::Dropped => "dropped",
            Self::Failed(kind) => kind.as_str(),
        }
    }

    /// Returns the index of the outcome, below [`COUNT`](Self::COUNT).
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Granted => 0,
            Self::Busy => 1,
            Self::Queued => 2,
            Self::Released => 3,
            Self::Answered => 4,
            Self::Dropped => 5,
            Self::Delivered => 6,
            Self::Subscribed => 7,
            Self::Failed(kind) => NOT_FAILED + kind as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_outcome_has_a_place_and_a_name_of_its_own() {
        let others = [
            Outcome::Granted,
            Outcome::Busy,
            Outcome::Queued,
            Outcome::Released,
            Outcome::Answered,
            Outcome::Delivered,
            Outcome::Subscribed,
            Outcome::Dropped,
        ];
        let all: Vec<Outcome> = others.into_iter().chain(ErrorKind::ALL.map(Outcome::Failed)).collect();
        let places: BTreeSet<usize> = all.iter().map(|outcome| outcome.index()).collect();
        let names: BTreeSet<&str> = all.iter().map(|outcome| outcome.as_str()).collect();
        assert_eq!(places, (0..Outcome::COUNT).collect());
        assert_eq!(names.len(), Outcome::COUNT);
    }
}
