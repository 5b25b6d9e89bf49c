//! Decides how soon an actor that died is replaced. Pure: the caller provides the time.

use std::time::Duration;

use crate::net::backoff::{Attempts, OF_USE_AFTER, ReconnectPolicy};

/// The deaths of one shard's actors.
pub(crate) struct Restarts {
    policy: ReconnectPolicy,
    in_a_row: Attempts,
}

impl Restarts {
    pub(crate) fn new(policy: ReconnectPolicy) -> Self {
        Self {
            in_a_row: policy.start(),
            policy,
        }
    }

    /// Notes the death of an actor that lived for this long. Returns the pause before the next actor starts: zero if
    /// the actor was useful, and a longer one after each actor that dies early.
    pub(crate) fn died_after(&mut self, lived: Duration) -> Duration {
        if lived < OF_USE_AFTER {
            return self.in_a_row.failed();
        }
        self.in_a_row = self.policy.start();
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_useful_actor_is_replaced_at_once_and_one_that_dies_early_after_a_growing_pause() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_millis(80));
        let mut restarts = Restarts::new(ReconnectPolicy::exponential(first, longest));
        let hour = Duration::from_secs(3600);
        assert_eq!(restarts.died_after(hour), Duration::ZERO);
        let pauses: Vec<Duration> = (0..20).map(|_| restarts.died_after(Duration::ZERO)).collect();
        assert!(pauses[0] >= first && pauses[0] < longest, "{pauses:?}");
        assert!(pauses[10..].iter().all(|pause| *pause >= longest / 2), "{pauses:?}");
        assert_eq!(restarts.died_after(hour), Duration::ZERO);
        assert!(
            restarts.died_after(Duration::ZERO) < longest / 2,
            "the count starts again"
        );
    }
}
