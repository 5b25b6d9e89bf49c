//! How long to wait before the next attempt to connect.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// The pauses between attempts to reconnect: jittered, growing, and never the end of trying.
///
/// The default starts at 50 ms and doubles up to 5 s; each pause is then made longer by a random part of itself, so that
/// clients which lost a server together do not come back together.
#[derive(Clone)]
pub struct ReconnectPolicy(Arc<dyn Fn() -> Pauses + Send + Sync>);

/// One sequence of pauses, begun anew whenever a connection was lost.
pub(crate) type Pauses = Box<dyn Iterator<Item = Duration> + Send>;

/// What is waited if a policy of the user's has no more to say.
const LAST_RESORT: Duration = Duration::from_secs(5);

impl ReconnectPolicy {
    /// Pauses that start at `first`, double each time, and stop growing at `longest`, plus jitter.
    #[must_use]
    pub fn exponential(first: Duration, longest: Duration) -> Self {
        let first = first.max(Duration::from_millis(1));
        let builder = ExponentialBuilder::default()
            .with_min_delay(first)
            .with_max_delay(longest.max(first))
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        // Without the standard library, `backon` has one seed for all: every client would make the same pauses.
        Self(Arc::new(move || {
            Box::new(builder.with_jitter_seed(fastrand::u64(..)).build())
        }))
    }

    /// The pauses of a policy of the `backoff` crate; `new` makes one for each sequence, which is
    /// [reset](backoff::backoff::Backoff::reset) first. Where it has no more to say, 5 s.
    ///
    /// ```
    /// use backoff::ExponentialBackoff;
    /// use dflockd_client::ReconnectPolicy;
    ///
    /// let policy = ReconnectPolicy::from_backoff(|| ExponentialBackoff {
    ///     max_elapsed_time: None,
    ///     ..ExponentialBackoff::default()
    /// });
    /// ```
    #[cfg(feature = "backoff")]
    #[must_use]
    pub fn from_backoff<B>(new: impl Fn() -> B + Send + Sync + 'static) -> Self
    where
        B: backoff::backoff::Backoff + Send + 'static,
    {
        Self(Arc::new(move || {
            let mut policy = new();
            policy.reset();
            Box::new(std::iter::from_fn(move || policy.next_backoff()))
        }))
    }

    /// A new sequence.
    pub(crate) fn start(&self) -> Attempts {
        Attempts {
            pauses: (self.0)(),
            made: 0,
        }
    }
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(50), Duration::from_secs(5))
    }
}

impl fmt::Debug for ReconnectPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReconnectPolicy")
    }
}

/// The attempts since a connection was lost.
pub(crate) struct Attempts {
    pauses: Pauses,
    made: u32,
}

impl Attempts {
    /// An attempt failed: how long to wait before the next.
    pub(crate) fn failed(&mut self) -> Duration {
        self.made = self.made.saturating_add(1);
        self.pauses.next().unwrap_or(LAST_RESORT)
    }

    /// An attempt failed, and the next is made at once, somewhere else.
    pub(crate) fn failed_here(&mut self) {
        self.made = self.made.saturating_add(1);
    }

    /// How many attempts failed so far.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_bound_with_jitter_and_never_ends() {
        let policy = ReconnectPolicy::exponential(Duration::from_millis(100), Duration::from_secs(1));
        let mut attempts = policy.start();
        let pauses: Vec<Duration> = (0..50).map(|_| attempts.failed()).collect();
        assert!(pauses[0] >= Duration::from_millis(100) && pauses[0] <= Duration::from_millis(200));
        assert!(pauses.iter().all(|p| *p <= Duration::from_secs(2)), "{pauses:?}");
        assert!(pauses[10..].iter().all(|p| *p >= Duration::from_secs(1)), "{pauses:?}");
        assert!(pauses[10..].iter().any(|p| *p != pauses[10]), "no jitter: {pauses:?}");
        assert_eq!(attempts.made(), 50);
    }

    #[test]
    fn no_two_sequences_are_alike() {
        let policy = ReconnectPolicy::default();
        let pauses = || {
            let mut attempts = policy.start();
            [attempts.failed(), attempts.failed(), attempts.failed()]
        };
        assert_ne!(
            pauses(),
            pauses(),
            "clients that lost a server together would come back together"
        );
    }

    #[cfg(feature = "backoff")]
    #[test]
    fn a_policy_of_the_backoff_crate_is_followed_and_has_no_last_word() {
        struct Twice(u32);
        impl backoff::backoff::Backoff for Twice {
            fn next_backoff(&mut self) -> Option<Duration> {
                self.0 += 1;
                (self.0 <= 2).then(|| Duration::from_millis(u64::from(self.0)))
            }
            fn reset(&mut self) {
                self.0 = 0;
            }
        }
        let policy = ReconnectPolicy::from_backoff(|| Twice(7));
        for _ in 0..2 {
            let mut attempts = policy.start();
            let pauses = [attempts.failed(), attempts.failed(), attempts.failed()];
            assert_eq!(
                pauses,
                [Duration::from_millis(1), Duration::from_millis(2), LAST_RESORT]
            );
        }
    }
}
