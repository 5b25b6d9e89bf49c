//! The pauses between attempts to connect.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::unwind::{Panic, catch};

/// The pauses between attempts to reconnect. They have jitter, grow up to a limit, and never end.
///
/// By default, the first pause lasts 50 to 100 ms, the second 100 to 200 ms, and so on, up to 2.5 to 5 s. The length
/// within each range is random, so that clients which lost a server together do not return together.
///
/// A policy that panics is not called again in that sequence; all further pauses last 5 s.
#[derive(Clone)]
pub struct ReconnectPolicy {
    start: Arc<dyn Fn() -> Pauses + Send + Sync>,
    /// The first and the longest pause of an [exponential](Self::exponential) policy.
    bounds: Option<(Duration, Duration)>,
}

/// One sequence of pauses. A new one begins after a success. A connection for signals counts as a success only if it
/// was [useful](OF_USE_AFTER). The same holds for a pipelined connection while no other is up.
pub(crate) type Pauses = Box<dyn Iterator<Item = Duration> + Send>;

/// The pause when a user's policy returns none.
const LAST_RESORT: Duration = Duration::from_secs(5);

/// The longest pause, whatever a policy returns. Every clock can represent an instant this far ahead.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A connection that lasted this long was useful, unless it is a shard's connection that ended because the server fell
/// silent. After a connection that was not useful, the sequence of pauses continues, and the next member of a cluster
/// is tried first.
pub(crate) const OF_USE_AFTER: Duration = Duration::from_secs(1);

impl ReconnectPolicy {
    /// Creates a policy whose first pause lasts between `first` and twice that. Each further pause is twice as long,
    /// until it would exceed `longest`; all later pauses last between half of `longest` and `longest`. If `longest` is
    /// below twice `first`, the first pause lasts between half of `longest` and `longest`, too. No pause is longer than
    /// `longest`, or shorter than half a millisecond. A `longest` below `first` counts as `first`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use dflockd_client::{Client, ReconnectPolicy};
    ///
    /// let policy = ReconnectPolicy::exponential(Duration::from_millis(10), Duration::from_secs(1));
    /// let builder = Client::builder().reconnect(policy);
    /// ```
    #[must_use]
    pub fn exponential(first: Duration, longest: Duration) -> Self {
        let first = first.max(Duration::from_millis(1));
        let longest = longest.max(first);
        let growing = ExponentialBuilder::default()
            .with_min_delay(first.saturating_mul(2).min(longest))
            .with_max_delay(longest)
            .with_factor(2.0)
            .without_max_times();
        // The jitter of the `backon` crate would come on top of its limit, so it is not used.
        Self {
            start: Arc::new(move || Box::new(growing.build().map(|bound| below(bound, fastrand::f64())))),
            bounds: Some((first, longest)),
        }
    }

    /// Returns the first and the longest pause of an exponential policy.
    pub(crate) fn bounds(&self) -> Option<(Duration, Duration)> {
        self.bounds
    }

    /// Creates a policy from the `backoff` crate. `new` creates a backoff for each sequence of pauses; it is
    /// [reset](backoff::backoff::Backoff::reset) before its first use. When the backoff returns no pause, because its
    /// `max_elapsed_time` is over, the pause is 5 s.
    ///
    /// The pauses, including their jitter, are those of the crate. For
    /// [`ExponentialBackoff`](backoff::ExponentialBackoff) they last up to `max_interval · (1 + randomization_factor)`,
    /// by default 90 s.
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
        Self::custom(move || {
            let mut policy = new();
            policy.reset();
            Box::new(std::iter::from_fn(move || policy.next_backoff()))
        })
    }

    /// Creates a policy with pauses that a test chooses. `new` creates one sequence.
    #[cfg(any(test, fuzzing, feature = "__measure"))]
    pub(crate) fn of(new: impl Fn() -> Pauses + Send + Sync + 'static) -> Self {
        Self::custom(new)
    }

    #[cfg(any(test, fuzzing, feature = "__measure", feature = "backoff"))]
    fn custom(start: impl Fn() -> Pauses + Send + Sync + 'static) -> Self {
        Self {
            start: Arc::new(start),
            bounds: None,
        }
    }

    /// Begins a new sequence.
    pub(crate) fn start(&self) -> Attempts {
        Attempts {
            pauses: catch(&*self.start).unwrap_or_else(after_panic),
            made: 0,
        }
    }
}

/// Returns a pause between half of `bound` and `bound`. `random` is in [0, 1).
pub(crate) fn below(bound: Duration, random: f64) -> Duration {
    bound - (bound / 2).mul_f64(random)
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(50), Duration::from_secs(5))
    }
}

impl fmt::Debug for ReconnectPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bounds {
            Some((first, longest)) => write!(f, "ReconnectPolicy({first:?}..{longest:?})"),
            None => f.write_str("ReconnectPolicy(custom)"),
        }
    }
}

/// Returns the pauses of a policy that has panicked, which is not called again.
fn after_panic(_: Panic) -> Pauses {
    Box::new(std::iter::empty())
}

/// The failed attempts of one sequence, and the pauses after them.
pub(crate) struct Attempts {
    pauses: Pauses,
    made: u32,
}

impl Attempts {
    /// Notes a failed attempt and returns the pause before the next.
    pub(crate) fn failed(&mut self) -> Duration {
        self.made = self.made.saturating_add(1);
        let next = catch(|| self.pauses.next()).unwrap_or_else(|panic| {
            self.pauses = after_panic(panic);
            None
        });
        next.unwrap_or(LAST_RESORT).min(LONGEST)
    }

    /// Notes a failed attempt that is followed at once by an attempt at another server.
    pub(crate) fn failed_here(&mut self) {
        self.made = self.made.saturating_add(1);
    }

    /// Returns the number of failed attempts so far.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_stay_within_it_and_never_end() {
        let ms = Duration::from_millis;
        for (first, longest) in [
            (ms(50), ms(5_000)),
            (ms(100), ms(1_000)),
            (ms(7), ms(7)),
            (ms(5), ms(1)),
            (ms(0), ms(0)),
        ] {
            let (least, most) = (first.max(ms(1)), longest.max(first).max(ms(1)));
            let policy = ReconnectPolicy::exponential(first, longest);
            let mut at_the_bound = Vec::new();
            for _ in 0..200 {
                let mut attempts = policy.start();
                for number in 0..40 {
                    let (pause, doubled) = (attempts.failed(), least * 2_u32.saturating_pow(number.min(20) + 1));
                    let bound = doubled.min(most);
                    assert!(pause <= bound && pause >= bound / 2, "{number}: {pause:?} of {bound:?}");
                    if bound == most {
                        at_the_bound.push(pause);
                    }
                }
                assert_eq!(attempts.made(), 40);
            }
            let (shortest, longest) = (at_the_bound.iter().min().unwrap(), at_the_bound.iter().max().unwrap());
            assert!(
                *longest - *shortest > most.mul_f64(0.45),
                "jitter: {shortest:?} to {longest:?}"
            );
        }
    }

    #[test]
    fn the_default_policy_is_as_documented() {
        let ms = Duration::from_millis;
        let pauses: Vec<Vec<Duration>> = (0..2_000)
            .map(|_| {
                let mut attempts = ReconnectPolicy::default().start();
                (0..20).map(|_| attempts.failed()).collect()
            })
            .collect();
        assert!(pauses.iter().all(|pauses| pauses[0] >= ms(50) && pauses[0] <= ms(100)));
        assert!(pauses.iter().flatten().all(|pause| *pause <= ms(5_000)));
        assert!(pauses.iter().all(|pauses| pauses[19] >= ms(2_500)));
    }

    #[test]
    fn pauses_are_short_enough_for_every_clock() {
        let policy = ReconnectPolicy::exponential(Duration::MAX, Duration::MAX);
        let pause = policy.start().failed();
        assert!(std::time::Instant::now().checked_add(pause).is_some(), "{pause:?}");
    }

    #[test]
    fn after_a_policy_has_panicked_all_pauses_last_five_seconds() {
        let unwilling = ReconnectPolicy::of(|| panic!("no pauses"));
        assert_eq!(unwilling.start().failed(), LAST_RESORT);
        let tired = ReconnectPolicy::of(|| {
            let first = std::iter::once(Duration::from_millis(7));
            Box::new(first.chain(std::iter::from_fn(|| panic!("no more"))))
        });
        let mut attempts = tired.start();
        let pauses = [attempts.failed(), attempts.failed(), attempts.failed()];
        assert_eq!(pauses, [Duration::from_millis(7), LAST_RESORT, LAST_RESORT]);
        assert_eq!(attempts.made(), 3);
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
    fn a_policy_of_the_backoff_crate_is_followed_and_never_ends() {
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
